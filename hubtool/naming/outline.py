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

from hubtool.naming.architecture import architecture_ids, encoder_templates, templates

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


#: What keys of text encoders begin with, and how many words can stand before the path in their outline.
_ENCODERS = ("lora_te", "text_encoder", "base_model.model.text_encoder", "lora_prior_te")
_LEVELS = 10


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
    return _listed("denoisers").get(architecture_id) or computed_outlines(architecture_id)


def computed_outlines(architecture_id: str) -> frozenset[str]:
    """The outlines, from the TOML; `scripts/docs.py` writes them into the index and a test compares."""
    return frozenset(outline(_BRACES.sub("", template)) for template in templates(architecture_id))


def computed_encoder_outlines(architecture_id: str) -> frozenset[str]:
    """The outlines of its text encoders' modules, likewise."""
    return frozenset(outline(_BRACES.sub("", template)) for template in encoder_templates(architecture_id))


def index_text() -> str:
    """What `outlines.json` should hold."""
    ids = architecture_ids()
    index = {
        "denoisers": {id: sorted(computed_outlines(id)) for id in ids},
        "encoders": {id: sorted(computed_encoder_outlines(id)) for id in ids},
    }
    return json.dumps(index, indent=0) + "\n"


@cache
def _listed(part: str) -> dict[str, frozenset[str]]:
    try:
        table = json.loads(INDEX.read_text("utf-8"))[part]
    except FileNotFoundError:
        return {}
    return {str(id): frozenset(names) for id, names in table.items()}


@cache
def _encoder_outlines(architecture_id: str) -> frozenset[str]:
    listed = _listed("encoders").get(architecture_id)
    return computed_encoder_outlines(architecture_id) if listed is None else listed


def shortlist(bases: Sequence[str]) -> tuple[str, ...]:
    """The architectures whose names occur among the bases (what stands before the suffix of each key).

    Where there are bases of text encoders alone, those with such an encoder. All of them where the names say nothing.
    """
    chosen = bases[:: max(1, len(bases) // _SAMPLE)]
    denoisers = [shapes for base in chosen if (shapes := _outlines_of(base))]
    encoders = [shapes for base in chosen if (shapes := _outlines_in_encoder(base))]
    sample, known = (denoisers, outlines) if denoisers else (encoders, _encoder_outlines)
    hits = {id: sum(not shapes.isdisjoint(known(id)) for shapes in sample) for id in architecture_ids()}
    enough = tuple(id for id, count in hits.items() if count and count >= _SHARE * len(sample))
    return enough or architecture_ids()


def _outlines_of(base: str) -> set[str]:
    """What the denoiser module may be called, for each prefix that the base may have; empty for text encoders."""
    if base.startswith(_ENCODERS):
        return set()
    plain = base.replace(".processor.", ".").replace("_lora", "") if ".processor." in base else base
    return {outline(plain[len(prefix) :]) for prefix in _PREFIXES if plain.startswith(prefix)}


def _outlines_in_encoder(base: str) -> set[str]:
    """What the text encoder's module may be called: the base without its first levels, however many they are."""
    if not base.startswith(_ENCODERS):
        return set()
    parts = outline(base).removesuffix("_lora").split("_")
    rest = {"_".join(parts[start:]) for start in range(1, min(len(parts), _LEVELS))}
    return rest | {f"text_model_{name}" for name in rest if name.startswith("encoder")}


def known_outlines(bases: Iterable[str], architecture_id: str) -> set[str]:
    """Those of the bases whose outline an architecture has."""
    known = outlines(architecture_id)
    return {base for base in bases if not _outlines_of(base).isdisjoint(known)}
