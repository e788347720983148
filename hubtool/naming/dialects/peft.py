"""PEFT adapters: `base_model.model.` + the dotted path; alpha lives in `adapter_config.json`.

A raw `state_dict()` keeps the adapter's name (`lora_A.default.weight`); some tools wrap one component
(`transformer.base_model.model.`) or a whole pipeline (`base_model.model.unet.`). Paths follow diffusers, the authors' names
(fal's FLUX trainer, Tencent's HunyuanDiT), or those of DiffSynth's own FLUX class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.naming.dialect import Dialect
from hubtool.naming.spelling import Spelling
from hubtool.naming.suffixes import PEFT, PEFT_NAMED, joined

if TYPE_CHECKING:
    from collections.abc import Iterator

_DENOISER = ("base_model.model.", "{denoiser}.base_model.model.", "base_model.model.{denoiser}.")
#: The last is a folder that the encoder has for itself.
_ENCODER = ("{diffusers}.base_model.model.", "base_model.model.{diffusers}.", "base_model.model.")
_BOTH = joined(PEFT, PEFT_NAMED)
#: In a block of FLUX: the authors' module and DiffSynth's (diffsynth/models/flux_dit.py).
_DIFFSYNTH = {
    "img_mod.lin": "norm1_a.linear", "txt_mod.lin": "norm1_b.linear",
    "img_attn.qkv": "attn.a_to_qkv", "txt_attn.qkv": "attn.b_to_qkv",
    "img_attn.proj": "attn.a_to_out", "txt_attn.proj": "attn.b_to_out",
    "img_mlp.0": "ff_a.0", "img_mlp.2": "ff_a.2", "txt_mlp.0": "ff_b.0", "txt_mlp.2": "ff_b.2",
    "modulation.lin": "norm.linear", "linear1": "to_qkv_mlp", "linear2": "proj_out",
}  # fmt: skip


def _diffsynth(path: str) -> Iterator[str]:
    """`double_blocks.3.img_attn.qkv` is `blocks.3.attn.a_to_qkv` here."""
    kind, _, rest = path.partition(".")
    number, _, module = rest.partition(".")
    if module in _DIFFSYNTH:
        yield f"{kind.removeprefix('double_')}.{number}.{_DIFFSYNTH[module]}"


DIALECT = Dialect(
    id="peft",
    source="huggingface/peft utils/save_and_load.py; modelscope/DiffSynth-Studio diffsynth/diffusion/training_module.py",
    rank_order=40,
    spellings=(
        Spelling(_BOTH, _DENOISER, _ENCODER),
        Spelling(_BOTH, _DENOISER, (), naming="original"),
        Spelling(PEFT_NAMED, ("", "{denoiser}."), ("{diffusers}.",)),
        Spelling(PEFT_NAMED, ("", "diffusion_model.", "pipe.dit."), (), naming="original"),
        Spelling(_BOTH, ("", "pipe.dit."), (), naming="original", respell=_diffsynth, only=("flux1",)),
    ),
)
