"""Where a checkpoint keeps each module's weight: the prefixes and names of every layout, as one table per architecture.

| layout | denoiser | text encoders |
|---|---|---|
| one file (the authors, ComfyUI) | `_ALONE` below + original or diffusers' names | `_TRANSFORMERS`, `_OPEN_CLIP` below |
| diffusers folder | `unet/`, `transformer/` + diffusers' names | `text_encoder/`, `text_encoder_2/` + transformers' names |
| denoiser alone | either naming without a prefix | – |

OpenCLIP's own names (SD 2.x, SDXL's second encoder) stack q, k and v in one matrix. `/` stands for the folder a file lies in.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubtool.naming.architecture import Architecture, TextEncoder

#: Prefixes of the denoiser in one file, in either naming; the empty one is a denoiser saved by itself.
_ALONE = ("model.diffusion_model.", "diffusion_model.", "net.", "")

#: Prefixes of a text encoder under transformers' names.
_TRANSFORMERS: Mapping[Component, tuple[str, ...]] = {
    Component.CLIP_L: ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."),
    Component.CLIP_H: ("cond_stage_model.transformer.",),
}

#: Prefixes of a text encoder under OpenCLIP's names (the refiner has bigG as its only encoder).
_OPEN_CLIP: Mapping[Component, tuple[str, ...]] = {
    Component.CLIP_H: ("cond_stage_model.model.",),
    Component.CLIP_G: ("conditioner.embedders.1.model.", "conditioner.embedders.0.model."),
}

#: transformers' name below `text_model.encoder.layers.N.` → OpenCLIP's below `transformer.resblocks.N.`
_OPEN_CLIP_NAMES: Mapping[str, str] = {
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}
_OPEN_CLIP_FUSED = "attn.in_proj"  # rows of q, then k, then v; its key ends in `_weight`, not `.weight`
_FUSED_PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_LAYER = "text_model.encoder.layers."

#: What follows a module's name in a key → what it is. Scales belong to float8 weights (ComfyUI's "scaled fp8").
SUFFIXES: Mapping[str, str] = {
    ".weight": "weight",
    "_weight": "weight",
    ".scale": "weight",  # of a norm, by the authors of FLUX
    ".bias": "bias",
    "_bias": "bias",
    ".scale_weight": "scale",
    ".weight_scale": "scale",
}


class Place(NamedTuple):
    """A key, understood: the modules whose rows the tensor stacks, in order, and whether it is weight, bias or scale."""

    modules: tuple[ModuleRef, ...]
    kind: str
    swapped: bool = False  # the file has the second half of the rows first


def place(target: Architecture, key: str) -> Place | None:
    """What a checkpoint's key means in this architecture; None if it belongs to no module."""
    stems = _stems(target.id)
    for suffix, kind in SUFFIXES.items():
        if key.endswith(suffix) and key[: -len(suffix)] in stems:
            stem = stems[key[: -len(suffix)]]
            return Place(stem.modules, kind, stem.swapped)
    return None


class _Stem(NamedTuple):
    """What stands before the suffix: the modules, and whether the halves of their rows change places."""

    modules: tuple[ModuleRef, ...]
    swapped: bool = False


@lru_cache(maxsize=64)
def _stems(architecture_id: str) -> Mapping[str, _Stem]:
    """Every key in front of its suffix → modules."""
    target = architecture(architecture_id)
    found: dict[str, _Stem] = {}
    for stem, meaning in _denoiser_stems(target):
        found.setdefault(stem, meaning)
    for encoder in target.encoders.values():
        for stem, modules in _encoder_stems(encoder):
            found.setdefault(stem, _Stem(modules))
    return MappingProxyType(found)


def _denoiser_stems(target: Architecture) -> Iterator[tuple[str, _Stem]]:
    for name, meaning in _denoiser_names(target):
        for prefix in (f"{target.denoiser}/", f"{target.denoiser}.", *_ALONE):
            yield prefix + name, meaning


def _denoiser_names(target: Architecture) -> Iterator[tuple[str, _Stem]]:
    """Diffusers' names, then the authors', then what else they are called."""
    known = {path: _Stem((ModuleRef(Component.DENOISER, path),)) for path in target.modules}
    yield from known.items()
    original = {name: known[path] for path, name in target.original.items()}
    for name, fused in target.fused.items():
        if not fused.partial:
            parts = tuple(ModuleRef(Component.DENOISER, part) for part in fused.parts)
            original[name] = _Stem(parts, fused.swapped)
    yield from original.items()
    for name, path in target.second.items():
        meaning = original.get(path) or known.get(path)
        if meaning:
            yield name, meaning


def _encoder_stems(encoder: TextEncoder) -> Iterator[tuple[str, tuple[ModuleRef, ...]]]:
    usual = (f"{encoder.diffusers}/", f"text_encoders.{encoder.comfyui}.transformer.", "")
    for path in encoder.modules:
        module = (ModuleRef(encoder.component, path),)
        for prefix in (*_TRANSFORMERS.get(encoder.component, ()), *usual):
            yield prefix + path, module
            yield prefix + path.removeprefix("text_model."), module  # newer transformers leave this level out
    for prefix in _OPEN_CLIP.get(encoder.component, ()):
        for name, modules in _open_clip_stems(encoder):
            yield prefix + name, modules


def _open_clip_stems(encoder: TextEncoder) -> Iterator[tuple[str, tuple[ModuleRef, ...]]]:
    yield "ln_final", (ModuleRef(encoder.component, "text_model.final_layer_norm"),)
    for path in encoder.modules:
        layer, _, leaf = path.removeprefix(_LAYER).partition(".")
        block = f"transformer.resblocks.{layer}."
        if leaf in _OPEN_CLIP_NAMES:
            yield block + _OPEN_CLIP_NAMES[leaf], (ModuleRef(encoder.component, path),)
        elif leaf == _FUSED_PARTS[0]:
            parts = (ModuleRef(encoder.component, f"{_LAYER}{layer}.{part}") for part in _FUSED_PARTS)
            yield block + _OPEN_CLIP_FUSED, tuple(parts)
