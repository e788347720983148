"""Bare module names without any prefix, the authors' or diffusers' (lightx2v, LTX, Mochi)."""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import COMFYUI

DIALECT = Dialect(
    id="original",
    source="ModelTC/Qwen-Image-Lightning, Lightricks/LTX-Video: published files",
    rank_order=60,
    spellings=(
        Spelling(COMFYUI, ("",), naming="original"),
        Spelling(COMFYUI, ("",), naming="diffusers"),
    ),
)
