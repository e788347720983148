"""PEFT adapters: `base_model.model.` + the dotted path; alpha lives in `adapter_config.json`.

A raw `state_dict()` keeps the adapter's name (`lora_A.default.weight`); some tools wrap one component
(`transformer.base_model.model.`) or a whole pipeline (`base_model.model.unet.`). Paths follow diffusers, or the authors'
names (fal's FLUX trainer).
"""

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import PEFT, PEFT_NAMED, joined

_DENOISER = ("base_model.model.", "{denoiser}.base_model.model.", "base_model.model.{denoiser}.")
_ENCODER = ("{diffusers}.base_model.model.", "base_model.model.{diffusers}.")
_BOTH = joined(PEFT, PEFT_NAMED)

DIALECT = Dialect(
    id="peft",
    source="huggingface/peft utils/save_and_load.py",
    rank_order=40,
    spellings=(
        Spelling(_BOTH, _DENOISER, _ENCODER),
        Spelling(_BOTH, _DENOISER, (), naming="original"),
        Spelling(PEFT_NAMED, ("", "{denoiser}."), ("{diffusers}.",)),
        Spelling(PEFT_NAMED, ("", "diffusion_model."), (), naming="original"),
    ),
)
