"""Between fused modules and their parts: the authors' q·k·v in one weight, diffusers' one by one.

Splitting is always exact: `up` is cut by rows, and `down` is shared, or cut too where `up` is block-diagonal. Joining is exact
at the sum of the ranks, or at the common rank where all parts share one `down`. Where the zeros of the result do not show
which it was, the metadata says so (`hubtool.fused`): an absent part stays absent on the way back. Other families follow the
same rules as far as their tensors have rows (`Parametrization.cut`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.joining import join_parts
from hubtool.adapters.metadata import read_json
from hubtool.adapters.splitting import SHARED, Note, split_module
from hubtool.errors import NotRepresentable
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.naming.architecture import Architecture

RECORD_KEY = "hubtool.fused"


@dataclass(frozen=True, slots=True)
class Fitted:
    """An adapter whose modules the target dialect names, and what that took."""

    adapter: Adapter
    fused: int = 0  # fused modules written
    split: int = 0  # fused modules taken apart
    inexact: Mapping[ModuleRef, float] | None = None  # relative rounding of modules that were not exact


def fit(adapter: Adapter, dialect_id: str) -> Fitted:
    """Split and join modules until the dialect has a name for each.

    Raises:
        NotRepresentable: a module cannot be split or joined, or has no name either way.
    """
    target, named = adapter.architecture, dialect(dialect_id).written(adapter.architecture)
    record = _read_record(adapter.metadata)
    kept: dict[ModuleRef, Layer] = {}
    loose: dict[str, Layer] = {}  # canonical parts of a module that the dialect only names fused
    split = 0
    for module, layer in adapter.layers.items():
        if module in named:
            kept[module] = layer
        elif module.component is Component.DENOISER and module.path in target.fused:
            fused = target.fused[module.path]
            parts = split_module(layer, fused, record.get(module.path))
            kept |= {ModuleRef(Component.DENOISER, path): part for path, part in parts.items()}
            split += not fused.swapped
        else:
            loose[module.path] = layer
    joined, notes, inexact = _join_all(target, loose)
    metadata = _with_record(adapter.metadata, record, notes, keep=not loose)
    fused_count = sum(not target.fused[module.path].swapped for module in joined)
    return Fitted(replace(adapter, layers={**kept, **joined}, metadata=metadata), fused_count, split, inexact)


def _join_all(
    target: Architecture, loose: Mapping[str, Layer]
) -> tuple[dict[ModuleRef, Layer], dict[str, Note], dict[ModuleRef, float]]:
    homes = {part: name for name, fused in target.fused.items() if not fused.partial for part in fused.parts}
    members: dict[str, dict[str, Layer]] = {}
    for path, layer in loose.items():
        if path not in homes:
            raise NotRepresentable(path, f"The dialect has no name for {path}, fused or not.")
        members.setdefault(homes[path], {})[path] = layer
    layers: dict[ModuleRef, Layer] = {}
    notes: dict[str, Note] = {}
    inexact: dict[ModuleRef, float] = {}
    for name, parts in members.items():
        joined = join_parts(name, target.fused[name], parts)
        module = ModuleRef(Component.DENOISER, name)
        layers[module] = joined.layer
        if joined.note is not None:
            notes[name] = joined.note
        if joined.rounding:
            inexact[module] = joined.rounding
    return layers, notes, inexact


# ---------------------------------------------------------------- the record


def _read_record(metadata: Mapping[str, str]) -> dict[str, Note]:
    """What an earlier conversion noted; rows that it cannot have written are left out, and the zeros in the file decide."""
    table = read_json(metadata.get(RECORD_KEY))
    rows = table.items() if isinstance(table, dict) else ()
    return {name: note for name, note in rows if note == SHARED or _is_partition(note)}


def _is_partition(note: object) -> bool:
    return isinstance(note, list) and all(type(rank) is int and rank >= 0 for rank in note)


def _with_record(
    metadata: Mapping[str, str], record: Mapping[str, object], notes: Mapping[str, object], *, keep: bool
) -> dict[str, str]:
    found = {key: text for key, text in metadata.items() if key != RECORD_KEY}
    rows = dict(notes) if notes else (dict(record) if keep else {})
    if rows:
        found[RECORD_KEY] = json.dumps(rows, separators=(",", ":"))
    return found
