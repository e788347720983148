"""Checkpoints for tests: real names and real shapes, a few modules, in every layout."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import torch

from hubtool.adapters.tensors import from_torch
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import nbytes
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Weights = Mapping[ModuleRef, torch.Tensor]

#: One of each kind, the smallest that Stable Diffusion 1.x has.
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
PROJECTION = "down_blocks.0.attentions.0.proj_in"  # a 1×1 convolution in SD 1.x
TIME = "down_blocks.0.resnets.0.time_emb_proj"
KERNEL = "down_blocks.0.resnets.0.conv1"
INPUT = "conv_in"
ENCODER = "text_model.encoder.layers.0.self_attn.q_proj"
DENOISER_PATHS = (ATTENTION, CROSS, PROJECTION, TIME, KERNEL, INPUT)

_ENCODER_PREFIX = {Component.CLIP_L: "cond_stage_model.transformer."}


def unet(*paths: str) -> list[ModuleRef]:
    return [ModuleRef(Component.DENOISER, path) for path in paths]


def small_model(architecture_id: str = "sd1", seed: int = 0) -> dict[ModuleRef, torch.Tensor]:
    """Random float16 weights of a few modules, text encoder included."""
    target = architecture(architecture_id)
    generator = torch.Generator().manual_seed(seed)
    modules = unet(*DENOISER_PATHS) + [ModuleRef(component, ENCODER) for component in target.encoders]
    shapes = {module: target.shape(module) for module in modules}
    return {m: (torch.randn(s, generator=generator) * 0.03).half() for m, s in shapes.items() if s}


def tuned(weights: Weights, rank: int = 8, size: float = 0.01, noise: float = 0.0, seed: int = 1) -> dict:
    """The weights plus an update of this rank and relative size, and noise, rounded to the weights' dtype."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for module, weight in weights.items():
        rows, columns = weight.shape[0], math.prod(weight.shape[1:])
        update = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
        update *= size / math.sqrt(rank)
        update += noise * torch.randn(rows, columns, generator=generator)
        found[module] = (weight.float() + update.reshape(weight.shape)).to(weight.dtype)
    return found


def ldm_keys(weights: Weights, architecture_id: str = "sd1") -> dict[str, torch.Tensor]:
    """Keys of a one-file checkpoint as the authors write it (CLIP-L as the only encoder)."""
    original = architecture(architecture_id).original
    found = {}
    for module, weight in weights.items():
        if module.component is Component.DENOISER:
            found[f"model.diffusion_model.{original[module.path]}.weight"] = weight
        else:
            found[f"{_ENCODER_PREFIX[module.component]}{module.path}.weight"] = weight
    return found


def write_file(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        write_safetensors(out, {key: from_torch(tensor) for key, tensor in tensors.items()}, metadata or {})
    return path


def write_ldm(path: Path, weights: Weights, architecture_id: str = "sd1") -> Path:
    """A one-file checkpoint."""
    return write_file(path, ldm_keys(weights, architecture_id))


def write_diffusers(folder: Path, weights: Weights) -> Path:
    """A diffusers folder: unet/ and text_encoder/."""
    parts = {
        "unet/diffusion_pytorch_model.safetensors": [m for m in weights if m.component is Component.DENOISER],
        "text_encoder/model.safetensors": [m for m in weights if m.component is not Component.DENOISER],
    }
    for name, modules in parts.items():
        if modules:
            write_file(folder / name, {f"{module.path}.weight": weights[module] for module in modules})
    return folder


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    """A safetensors file of zeros that takes no space on disk."""
    header: dict[str, object] = {}
    position = 0
    for key, shape in shapes.items():
        size = nbytes(dtype, shape)
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + position)
    return path


def full_shapes(architecture_id: str, encoders: Iterable[tuple[Component, str]]) -> dict[str, tuple[int, ...]]:
    """Every weight of a one-file checkpoint: the denoiser, and encoders under transformers' names with this prefix."""
    target = architecture(architecture_id)
    found = {f"model.diffusion_model.{name}.weight": target.modules[path] for path, name in target.original.items()}
    for component, prefix in encoders:
        found |= {f"{prefix}{path}.weight": shape for path, shape in target.encoders[component].modules.items()}
    return found
