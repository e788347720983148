"""diffusers since 0.23: `unet.` or `transformer.` + the dotted path + PEFT's suffixes.

There is no alpha tensor; the header's `lora_adapter_metadata` may hold rank and alpha since 0.35.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import KOHYA, PEFT, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

_READ = joined(PEFT, KOHYA)
_LOST = len("diffusion_model.") - len("transformer.")


def _beheaded(path: str) -> Iterator[str]:
    """`transformer_blocks.0` without its first four letters; other modules keep their names, if they have one."""
    if path.startswith(("transformer_blocks.", "single_transformer_blocks.")):
        yield path[_LOST:]


DIALECT = Dialect(
    id="diffusers",
    source="huggingface/diffusers loaders/lora_pipeline.py, save_lora_weights",
    rank_order=20,
    spellings=(
        Spelling(PEFT, ("{denoiser}.",), ("{diffusers}.",)),
        # kohya's and LyCORIS's tensors under diffusers' names (SimpleTuner, ai-toolkit, OneTrainer's backups)
        Spelling(_READ, ("{denoiser}.",), ("{diffusers}.",), read_only=True),
        # `transformer.` cut as if it were `diffusion_model.`: seen in FLUX.2 files (lora_conversion_utils.py reads them too)
        Spelling(_READ, ("", "diffusion_model.", "{denoiser}."), (), respell=_beheaded, malformed=True),
    ),
)
