"""diffusers before PEFT: `….lora.down.weight` (0.2x) and attention processors, `….processor.to_q_lora.down.weight` (to 0.19)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import DIFFUSERS_LINEAR_LAYER, DIFFUSERS_LORA, PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTENTION = re.compile(r"^(.*\.attn\d?)\.to_(q|k|v|out)(\.0)?$")
_CLIP_ATTENTION = re.compile(r"^(.*\.self_attn)\.(q|k|v|out)_proj$")


def _processor(path: str) -> Iterator[str]:
    """`attn1.to_out.0` is `attn1.processor.to_out_lora` here; other modules have no such spelling."""
    if found := _ATTENTION.match(path):
        yield f"{found[1]}.processor.to_{found[2]}_lora"


def _clip_processor(path: str) -> Iterator[str]:
    """`self_attn.q_proj` is `self_attn.to_q_lora` here."""
    if found := _CLIP_ATTENTION.match(path):
        yield f"{found[1]}.to_{found[2]}_lora"


DIALECT = Dialect(
    id="diffusers-old",
    source="huggingface/diffusers 0.14 to 0.22, loaders.py",
    rank_order=30,
    spellings=(
        Spelling(DIFFUSERS_LORA, ("{denoiser}.",)),
        Spelling(DIFFUSERS_LINEAR_LAYER, (), ("{diffusers}.",)),
        # no prefix at all in files of the first trainers (replicate)
        Spelling(PLAIN, ("{denoiser}.", ""), respell=_processor),
        Spelling(PLAIN, (), ("{diffusers}.",), respell=_clip_processor),
        Spelling(DIFFUSERS_LORA, (), ("{diffusers}.",)),
        Spelling(DIFFUSERS_LINEAR_LAYER, ("{denoiser}.",)),
    ),
)
