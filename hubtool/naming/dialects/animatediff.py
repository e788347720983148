"""AnimateDiff's motion LoRAs: attention processors of the motion modules, in the authors' names or, converted, in diffusers'.

The authors' `temporal_transformer.….attention_blocks.1.processor.to_q_lora` is `unet.….attn2.processor.to_q_lora` after
diffusers' script. Alpha is not stored: the scale is 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTENTION = re.compile(r"^(.*\.motion_modules\..*\.(?:attn\d|attention_blocks\.\d))\.to_(q|k|v|out)(\.0)?$")


def _processor(path: str) -> Iterator[str]:
    """`attn1.to_out.0` is `attn1.processor.to_out_lora` here; what is no attention of a motion module has no name."""
    if found := _ATTENTION.match(path):
        yield f"{found[1]}.processor.to_{found[2]}_lora"


DIALECT = Dialect(
    id="animatediff",
    source="guoyww/AnimateDiff animatediff/utils/convert_lora_safetensor_to_diffusers.py; "
    "huggingface/diffusers scripts/convert_animatediff_motion_lora_to_diffusers.py",
    rank_order=12,
    spellings=(
        Spelling(PLAIN, ("",), naming="original", respell=_processor),
        Spelling(PLAIN, ("{denoiser}.", ""), respell=_processor),
    ),
)
