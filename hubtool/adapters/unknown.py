"""Adapters of base models that we do not know: modules under the names the file gives them, suffixes understood all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.grouping import group_tensors, layer_of
from hubtool.adapters.recorded import config_beside, recorded_scales
from hubtool.errors import NotAnAdapter
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.dialect import dialect
from hubtool.naming.unknown import UNKNOWN, Cut, cut, likeliest_dialect, unknown_architecture

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from hubtool.adapters.layer import Layer
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.naming.architecture import Architecture


def is_unknown(adapter: Adapter) -> bool:
    """Whether the modules are named by the file alone: nothing may be renamed, split or joined."""
    return adapter.architecture.id == UNKNOWN


def decode_unknown(file: SafetensorsFile) -> Adapter:
    """The adapter in a file that fits no architecture: every group of suffixes is a module.

    A module's path is its name without a diffusers prefix, if it has one; `Layer.base` is the whole of it. What makes no change
    (an alpha alone), and what says a role a second time, is left over.

    Raises:
        NotAnAdapter: it holds no adapter's tensors.
    """
    grouped = group_tensors(file.tensors)
    if not grouped.tensors:
        raise NotAnAdapter("", f"{file.path.name} holds no LoRA tensors.")
    spoken = likeliest_dialect(grouped.groups)
    denoiser = _denoiser(cut(base, spoken) for base in grouped.tensors)
    layers, leftovers = {}, dict(grouped.others)
    for base, rows in grouped.tensors.items():
        layer = layer_of(base, rows)
        if layer.parametrization:
            layers[_module(base, denoiser, grouped.tensors)] = layer
        kept = set(map(id, layer.tensors.values())) if layer.parametrization else set()
        leftovers |= {grouped.keys[base, suffix]: tensor for suffix, tensor in rows.items() if id(tensor) not in kept}
    shapes = {module.path: shape for module, layer in layers.items() if (shape := _weight(layer))}
    target = unknown_architecture(denoiser, shapes)
    metadata = file.metadata
    if not dialect(spoken).says(Role.ALPHA):
        metadata = {**metadata, **(config_beside(file.path) if spoken == "peft" else {})}
        layers = _with_recorded_scales(target, metadata, layers)
    return Adapter(target, layers, metadata, leftovers, spoken)


def _denoiser(cuts: Iterable[Cut]) -> str:
    """unet or transformer, as the file calls it; transformer where it does not say."""
    named = {found.prefix.rstrip(".") for found in cuts if found.is_denoiser and found.prefix}
    return "unet" if "unet" in named and "transformer" not in named else "transformer"


def _module(base: str, denoiser: str, bases: Container[str]) -> ModuleRef:
    path = base.removeprefix(f"{denoiser}.")
    return ModuleRef(Component.DENOISER, base if path in bases else path)


def _with_recorded_scales(
    target: Architecture, metadata: Mapping[str, str], layers: Mapping[ModuleRef, Layer]
) -> dict[ModuleRef, Layer]:
    """Scales that the metadata state of the denoiser; of text encoders nobody says which part is meant."""
    own = {module: layer for module, layer in layers.items() if not layer.base.startswith("text_encoder")}
    scales = recorded_scales(target, metadata, own)
    return {module: replace(layer, recorded_scale=scales.get(module)) for module, layer in layers.items()}


def _weight(layer: Layer) -> tuple[int, ...]:
    """The shape of the weight that a layer changes, as far as its factors say."""
    extent, down = layer.extent, layer.shapes.get(Role.DOWN, ())
    if extent.rows is None or extent.columns is None:
        return ()
    return (extent.rows, *(down[1:] if len(down) > 2 and Role.MID not in layer.tensors else (extent.columns,)))
