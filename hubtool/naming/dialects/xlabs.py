"""XLabs' FLUX trainer: attention processors, `double_blocks.N.processor.qkv_lora1` for images, `…lora2` for text.

In single blocks `qkv_lora` changes only the q, k and v rows of `linear1`. Read, not written: most modules have no name in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOUBLE = re.compile(r"^(double_blocks\.\d+)\.(img|txt)_attn\.(qkv|proj)$")
_SINGLE = re.compile(r"^(single_blocks\.\d+)\.(linear1_qkv|linear2)$")


def _processor(path: str) -> Iterator[str]:
    """`img_attn.qkv` is `processor.qkv_lora1` here; modules outside attention have no such spelling."""
    if found := _DOUBLE.match(path):
        yield f"{found[1]}.processor.{found[3]}_lora{1 if found[2] == 'img' else 2}"
    if found := _SINGLE.match(path):
        yield f"{found[1]}.processor.{'qkv' if found[2] == 'linear1_qkv' else 'proj'}_lora"


DIALECT = Dialect(
    id="xlabs",
    source="XLabs-AI/x-flux src/flux/modules/layers.py",
    rank_order=35,
    spellings=(
        Spelling(
            PLAIN, ("", "diffusion_model."), naming="original", respell=_processor, read_only=True, only=("flux1",)
        ),
    ),
)
