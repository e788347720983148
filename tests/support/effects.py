"""What an adapter does to its model, without the fusing and splitting code: products with fixed vectors, in float64.

Two files have the same effect if every canonical module's change, times the same vectors, is the same.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from support.files import numbers

from hubtool.adapters.codec import read_adapter
from hubtool.naming.address import Component, ModuleRef, Role

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer

Effects = dict[ModuleRef, np.ndarray]


def effects(path: Path) -> Effects:
    """Canonical module → change @ two vectors; modules that change nothing are left out. LoRA and LoCon only."""
    return effects_of(read_adapter(path))


def effects_of(adapter: Adapter) -> Effects:
    """The same of an adapter that is read."""
    found: Effects = {}
    for module, layer in adapter.layers.items():
        product = _product(layer)
        fused = adapter.architecture.fused.get(module.path) if module.component is Component.DENOISER else None
        if fused is None:
            found[module] = product
        elif fused.swapped:
            found[ModuleRef(Component.DENOISER, fused.parts[0])] = np.concatenate(np.split(product, 2)[::-1])
        else:
            pieces = np.split(product, np.cumsum(fused.rows)[:-1])
            found |= {
                ModuleRef(Component.DENOISER, path): piece for path, piece in zip(fused.parts, pieces, strict=True)
            }
    return {module: product for module, product in found.items() if product.any()}


def difference(first: Effects, second: Effects) -> float:
    """The largest relative difference of any module; infinite if one changes modules that the other does not."""
    if first.keys() != second.keys():
        return float("inf")
    return max((float(np.abs(first[m] - second[m]).max() / np.abs(first[m]).max()) for m in first), default=0.0)


def _product(layer: Layer) -> np.ndarray:
    up, down = _matrix(layer, Role.UP), _matrix(layer, Role.DOWN)
    mid = layer.tensors.get(Role.MID)
    if mid is not None:
        core = _array(layer, Role.MID).reshape(*mid.shape[:2], -1)
        down = np.einsum("mnk,ni->mik", core, down).reshape(mid.shape[0], -1)
    return layer.scale * (up @ (down @ _vectors(down.shape[1])))


def _array(layer: Layer, role: Role) -> np.ndarray:
    tensor = layer.tensors[role]
    return numbers(bytes(tensor.view()), tensor.dtype).reshape(tensor.shape)


def _matrix(layer: Layer, role: Role) -> np.ndarray:
    return _array(layer, role).reshape(layer.tensors[role].shape[0], -1)


@cache
def _vectors(width: int) -> np.ndarray:
    return np.random.default_rng(width).standard_normal((width, 2))
