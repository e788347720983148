"""Module names with their indices left out: enough to see at a glance which architectures a file can be of.

Reading a TOML takes a millisecond, expanding it and building tables takes ten; of fifty architectures a file's names
leave two or three.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.naming.architecture import architecture_ids, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INDEX = Path(__file__).with_name("outlines.json")
_OUTLINE = str.maketrans(".", "_", "0123456789")
_BRACES = re.compile(r"\{[^}]*\}")
_SAMPLE = 48
_SHARE = 0.25  # of the sample; a file of which less than half is explained is of no use anyway
#: Whatever can stand before a denoiser's module path, in any dialect.
_PREFIXES = (
    "lora_unet__", "lora_unet_", "oft_unet_", "lora_transformer_", "lora_prior_unet_", "lycoris_",
    "model.diffusion_model.", "diffusion_model.", "unet.base_model.model.", "transformer.base_model.model.",
    "base_model.model.unet.", "base_model.model.transformer.", "base_model.model.", "transformer_2.", "transformer.",
    "unet.", "Hunyuan_video_I2V_lora_", "",
)  # fmt: skip


def outline(path: str) -> str:
    """A module path or flat name with its indices left out, and one kind of separator.

    >>> outline("transformer_blocks.3.attn.to_out.0") == outline("transformer_blocks_17_attn_to_out_0")
    True
    """
    return path.translate(_OUTLINE).strip("_")


@cache
def outlines(architecture_id: str) -> frozenset[str]:
    """Every denoiser module of an architecture, in every naming, as an outline.

    From `outlines.json` where it is listed there: reading fifty TOMLs takes as long as all the rest of an inspection.
    """
    listed = _index().get(architecture_id)
    return computed_outlines(architecture_id) if listed is None else frozenset(listed)


def computed_outlines(architecture_id: str) -> frozenset[str]:
    """The outlines, from the TOML; `scripts/docs.py` writes them into the index and a test compares."""
    return frozenset(outline(_BRACES.sub("", template)) for template in templates(architecture_id))


@cache
def _index() -> dict[str, list[str]]:
    try:
        table = json.loads(INDEX.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return {str(id): list(names) for id, names in table.items()}


def shortlist(bases: Sequence[str]) -> tuple[str, ...]:
    """The architectures whose names occur among the bases (what stands before the suffix of each key).

    All of them where the names say nothing: text encoders alone, or names that no architecture has.
    """
    sample = [shapes for base in bases[:: max(1, len(bases) // _SAMPLE)] if (shapes := _outlines_of(base))]
    hits = {id: sum(not shapes.isdisjoint(outlines(id)) for shapes in sample) for id in architecture_ids()}
    enough = tuple(id for id, count in hits.items() if count and count >= _SHARE * len(sample))
    return enough or architecture_ids()


def _outlines_of(base: str) -> set[str]:
    """What the denoiser module may be called, for each prefix that the base may have; empty for text encoders."""
    if base.startswith(("lora_te", "text_encoder", "base_model.model.text_encoder")):
        return set()
    plain = base.replace(".processor.", ".").replace("_lora", "") if ".processor." in base else base
    return {outline(plain[len(prefix) :]) for prefix in _PREFIXES if plain.startswith(prefix)}


def known_outlines(bases: Iterable[str], architecture_id: str) -> set[str]:
    """Those of the bases whose outline an architecture has."""
    known = outlines(architecture_id)
    return {base for base in bases if not _outlines_of(base).isdisjoint(known)}
