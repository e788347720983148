"""What kind of file this is: an adapter, or one of the other things that lie in the same folders.

Names of tensors: CompVis and diffusers checkpoints, lllyasviel/ControlNet and kohya's LLLite, TencentARC/T2I-Adapter,
tencent-ailab/IP-Adapter, A1111's hypernetworks and embeddings, chaiNNer-org/spandrel for upscalers, mcmonkeyprojects/SwarmUI
T2IModelClassSorter.cs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.grouping import group_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.formats.tensor import LazyTensor


class Kind(NamedTuple):
    """The contract's kind, and the same in words."""

    kind: str  # "adapter", "checkpoint", "embedding" or "other"
    what: str


@dataclass(frozen=True, slots=True)
class _Row:
    kind: Kind
    begins: tuple[str, ...] = ()  # beginnings of keys
    holds: tuple[str, ...] = ()  # parts of keys
    code: str = "OTHER"  # the ending of validation's E_NOT_A_LORA_…


#: A wrapper's name in front of everything says nothing.
_WRAPPERS = ("module.", "model.", "state_dict.")
_CONTROLNET = "a ControlNet"
#: Before adapters: their keys look like an adapter's.
_LOOKALIKES = (
    _Row(Kind("other", f"{_CONTROLNET} (Control-LoRA)"), ("lora_controlnet",), code="CONTROLNET"),
    _Row(Kind("other", f"{_CONTROLNET} (LLLite)"), ("lllite_",), code="CONTROLNET"),
)
#: The first row that a key fits decides.
_ROWS = (
    _Row(Kind("other", _CONTROLNET), code="CONTROLNET",
         begins=("control_model.", "controlnet_", "zero_convs.", "input_hint_block.", "control_layers.")),
    _Row(Kind("other", "an IP-Adapter"), ("ip_adapter.", "image_proj.", "ip_adapter_"), ("_ip.weight",)),
    _Row(Kind("other", "a T2I-Adapter"), ("adapter.body.", "body.0.block1.", "adapter.conv_in.")),
    _Row(Kind("other", "a motion module (AnimateDiff)"), holds=("motion_modules.",)),
    _Row(Kind("other", "a VAE"), code="VAE",
         begins=("post_quant_conv.", "quant_conv.", "encoder.conv_in.", "decoder.conv_in.", "decoder.up.", "decoder.up_blocks.",
                 "decoder.mid.", "decoder.mid_block.", "decoder.middle.", "encoder.downsamples.", "taesd_decoder.")),
    _Row(Kind("other", "an upscaler"), ("conv_first.", "1.sub."), (".RDB1.", ".rdb1.", ".residual_group.")),
    _Row(Kind("checkpoint", "a text encoder"),
         ("text_model.encoder.", "encoder.block.", "text_model.embeddings.", "transformer.resblocks.")),
    _Row(Kind("checkpoint", "an image encoder"), ("vision_model.", "visual.transformer.")),
    _Row(Kind("checkpoint", "a language model"), ("layers.0.self_attn.", "layers.0.mlp.", "lm_head.", "embed_tokens.")),
)  # fmt: skip
_CHECKPOINT = Kind("checkpoint", "a checkpoint (whole model weights)")
_WHOLE = ("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.", "first_stage_model.")
_DENOISER = (
    "double_blocks.", "joint_blocks.", "down_blocks.", "input_blocks.", "transformer_blocks.", "blocks.0.", "double_layers.",
    "layers.0.attention.", "single_blocks.", "double_stream_blocks.", "diffusion_model.",
)  # fmt: skip
_EMBEDDING = Kind("embedding", "a textual-inversion embedding")
_EMBEDDING_KEYS = {"emb_params", "clip_l", "clip_g", "clip_h", "string_to_param", "t5xxl", "qwen", "gemma"}
_EMBEDDING_WIDTHS = {768, 1024, 1280, 2048, 2304, 2560, 3584, 4096}  # of text encoders' tokens
_MOST_TOKENS = 256
_HYPERNETWORK = Kind("other", "a hypernetwork")
_HYPERNETWORK_KEY = re.compile(r"^(?:hypernetwork\.|(?:320|640|768|1024|1280|2048)\.[01]\.(?:linear|\d))")
_NOTHING = Kind("other", "no LoRA-family file")
#: The words above → the ending of the code E_NOT_A_LORA_…; what is not listed is OTHER.
CODES: Mapping[str, str] = {
    **{row.kind.what: row.code for row in (*_LOOKALIKES, *_ROWS)},
    **{row.kind.what: "CHECKPOINT" for row in _ROWS if row.kind.kind == "checkpoint"},
    _CHECKPOINT.what: "CHECKPOINT",
    _EMBEDDING.what: "EMBEDDING",
}


def kind_of(file: SafetensorsFile, adapter: Adapter | None) -> Kind:
    """What a file is; `adapter` is what it was read as, if an architecture explains it."""
    keys = file.tensors
    for row in _LOOKALIKES:
        if any(key.startswith(row.begins) for key in keys):
            return row.kind
    if adapter is not None and 2 * len(adapter.leftovers) <= len(keys):
        return Kind("adapter", "a LoRA-family adapter")
    if adapter is None and group_tensors(keys).size * 2 > len(keys):
        return Kind("adapter", "an adapter of an unknown architecture")
    return _other_kind(keys)


def refusal(name: str, kind: Kind) -> str:
    """What to say of a file that is no adapter.

    >>> refusal("x.safetensors", Kind("other", "a VAE"))
    'x.safetensors is a VAE, not a LoRA.'
    """
    return f"{name} is {kind.what}{'' if kind == _NOTHING else ', not a LoRA'}."


def _other_kind(keys: Mapping[str, LazyTensor]) -> Kind:
    if _is_embedding(keys):
        return _EMBEDDING
    if keys and all(_HYPERNETWORK_KEY.match(key) for key in keys):
        return _HYPERNETWORK
    if any(key.startswith(_WHOLE) for key in keys):
        # the original ControlNets carry the encoder under its own name
        return _ROWS[0].kind if any(key.startswith("control_model.") for key in keys) else _CHECKPOINT
    bare = [_unwrapped(key) for key in keys]
    found = next((row.kind for row in _ROWS if _fits(row, bare)), None)
    if found is not None:
        return found
    return _CHECKPOINT if any(mark in key for key in bare for mark in _DENOISER) else _NOTHING


def _unwrapped(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


def _fits(row: _Row, keys: Iterable[str]) -> bool:
    return any(key.startswith(row.begins) or any(part in key for part in row.holds) for key in keys)


def _is_embedding(keys: Mapping[str, LazyTensor]) -> bool:
    """Known names, or a few vectors as wide as a text encoder's tokens under the name of a word (`<cat-toy>`)."""
    if not keys:
        return False
    if keys.keys() <= _EMBEDDING_KEYS or any(key.startswith("string_to_param") for key in keys):
        return True
    return len(keys) <= len(_EMBEDDING_KEYS) and all("." not in key and _is_tokens(t.shape) for key, t in keys.items())


def _is_tokens(shape: tuple[int, ...]) -> bool:
    tokens = shape[0] if len(shape) == 2 else 1
    return len(shape) in {1, 2} and shape[-1] in _EMBEDDING_WIDTHS and 0 < tokens <= _MOST_TOKENS
