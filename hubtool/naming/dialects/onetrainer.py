"""OneTrainer's own keys: flat ones with diffusers' paths, and dotted ones with the authors' names.

`lora_transformer_` + diffusers' path, text encoders counted from te1 without gaps, is its oldest format. In 2025 it wrote
`transformer.` + the authors' path, each part of a fused module by number (`double_blocks.0.img_attn.qkv.1`), and `clip_l.`, `t5.`
for text encoders. What it calls kohya, ComfyUI, original and diffusers are those dialects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA

if TYPE_CHECKING:
    from collections.abc import Iterator


def _image_input(path: str) -> Iterator[str]:
    """FLUX's `img_in` was written as `img_in.proj`, a name of HunyuanVideo's."""
    yield path
    if path == "img_in":
        yield "img_in.proj"


DIALECT = Dialect(
    id="onetrainer",
    source="Nerogar/OneTrainer modules/util/convert_lora_util.py; "
    "for the format of 2025 modules/util/convert/lora/ as it was before pull request 1563",
    rank_order=15,
    spellings=(
        Spelling(KOHYA, ("lora_transformer_",), ("lora_{onetrainer}_",), "_"),
        Spelling(KOHYA, ("{denoiser}.",), ("{component}.",), naming="split", respell=_image_input),
    ),
)
