"""The metadata of a merged file: what all files agree on, their trigger words and tags together, and how it was made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubtool import __version__
from hubtool.adapters.metadata import read_json
from hubtool.operations.adapter_output import STALE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.adapters.layer import Layer
    from hubtool.operations.merge import MergeOptions
    from hubtool.operations.sources import Weighted

_WORDS = "modelspec.trigger_phrase"
_TAGS = "ss_tag_frequency"
_OWN = ("ss_network_dim", "ss_network_alpha", "ss_network_module", "ss_network_args", _WORDS, _TAGS, *STALE)


def describe(files: Sequence[Weighted], layers: Sequence[Layer], options: MergeOptions) -> dict[str, str]:
    """Header metadata for the merge of `files` into `layers`."""
    tables = [file.adapter.metadata for file in files]
    found = {
        key: text for key, text in tables[0].items() if key not in _OWN and all(t.get(key) == text for t in tables)
    }
    ranks = {rank for layer in layers if (rank := layer.rank)}
    if ranks:
        shown = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
        found |= {"ss_network_module": "networks.lora", "ss_network_dim": shown, "ss_network_alpha": shown}
    words = dict.fromkeys(table[_WORDS] for table in tables if table.get(_WORDS))
    if words:
        found[_WORDS] = ", ".join(words)
    tags = _tags(tables)
    if tags:
        found[_TAGS] = json.dumps(tags, ensure_ascii=False)
    found["hubtool.merge"] = json.dumps(_record(files, options), ensure_ascii=False)
    return found


def _tags(tables: Sequence[Mapping[str, str]]) -> dict[str, object]:
    """kohya's folder → tag → count of all files; a folder that two have under one name is the first's."""
    found: dict[str, object] = {}
    for table in reversed(tables):
        entry = read_json(table.get(_TAGS))
        found |= entry if isinstance(entry, dict) else {}
    return found


def _record(files: Sequence[Weighted], options: MergeOptions) -> dict[str, object]:
    rows: list[dict[str, object]] = []
    for file in files:
        source = file.source
        row: dict[str, object] = {"name": source.path.name, "strength": source.strength}
        if source.text_encoder is not None:
            row["text_encoder"] = source.text_encoder
        if source.blocks.text:
            row["blocks"] = source.blocks.text
        rows.append(row)
    chosen = {
        "rank": options.rank,
        "conv_rank": options.conv_rank,
        "energy": options.energy,
        "density": options.density,
    }
    seed = {"seed": options.seed} if options.chosen == "dare" else {}
    given = {key: value for key, value in chosen.items() if value is not None}
    return {"version": __version__, "method": options.chosen, **given, **seed, "files": rows}
