"""Whole changes in float64, made the plain way: what thin factors are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from support.adapters import denoiser, pair, spelt
from support.files import number, random_tensor, write

from hubtool.adapters.codec import read_adapter
from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from support.files import Raw

Changes = dict[ModuleRef, np.ndarray]

#: Small modules of Stable Diffusion 1.x, one of each kind.
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
POINT = "down_blocks.0.attentions.0.proj_in"  # a 1×1 convolution
KERNEL = "down_blocks.0.resnets.0.conv1"


def sd1(*paths: str) -> list[ModuleRef]:
    return denoiser(*paths)


def changes(path: Path) -> Changes:
    """Module → (out, in · kernel), at strength 1, by the formula of each family."""
    adapter = read_adapter(path)
    found = {}
    for module, layer in adapter.layers.items():
        shape = adapter.architecture.shape(module)
        assert shape is not None
        found[module] = layer.delta(shape).reshape(shape[0], -1).double().numpy()
    return found


def loha(shape: tuple[int, ...], rank: int, seed: int) -> dict[Role, Raw]:
    columns = int(np.prod(shape[1:]))
    sides = {Role.HADA_W1_A: (shape[0], rank), Role.HADA_W1_B: (rank, columns)}
    sides |= {Role.HADA_W2_A: (shape[0], rank), Role.HADA_W2_B: (rank, columns)}
    return {role: random_tensor(seed + i, side, "F32", 0.3) for i, (role, side) in enumerate(sides.items())}


def lokr(shape: tuple[int, ...], factor: int, seed: int, rank: int | None = None) -> dict[Role, Raw]:
    """w1 (factor, factor), w2 the rest; with a rank, w2 as a product."""
    rows, columns, kernel = shape[0] // factor, shape[1] // factor, shape[2:]
    found = {Role.LOKR_W1: random_tensor(seed, (factor, factor), "F32", 0.3)}
    if rank is None:
        return found | {Role.LOKR_W2: random_tensor(seed + 1, (rows, columns, *kernel), "F32", 0.3)}
    wide = columns * int(np.prod(kernel))
    found[Role.LOKR_W2_A] = random_tensor(seed + 1, (rows, rank), "F32", 0.3)
    return found | {Role.LOKR_W2_B: random_tensor(seed + 2, (rank, wide), "F32", 0.3)}


def tucker(shape: tuple[int, ...], rank: int, seed: int) -> dict[Role, Raw]:
    return {
        Role.UP: random_tensor(seed, (shape[0], rank, 1, 1), "F32", 0.3),
        Role.MID: random_tensor(seed + 1, (rank, rank, *shape[2:]), "F32", 0.3),
        Role.DOWN: random_tensor(seed + 2, (rank, shape[1], 1, 1), "F32", 0.3),
    }


def shape(path: str, architecture_id: str = "sd1") -> tuple[int, ...]:
    found = architecture(architecture_id).shape(denoiser(path)[0])
    assert found is not None
    return found


def lora(path: str, rank: int, seed: int, alpha: float = 4.0, dtype: str = "F32") -> dict[Role, Raw]:
    return {**pair(shape(path), rank, seed, dtype), Role.ALPHA: number(alpha)}


def write_adapter(
    path: Path,
    layers: Mapping[str, Mapping[Role, Raw]],
    metadata: Mapping[str, str] | None = None,
    names: tuple[str, str] = ("sd1", "kohya"),
) -> Path:
    """A file of denoiser modules; `names` are architecture and dialect."""
    tensors = spelt(*names, {denoiser(name)[0]: rows for name, rows in layers.items()})
    return write(path, tensors, metadata)


def best(change: np.ndarray, rank: int) -> float:
    """The smallest error that any matrix of this rank has (Eckart & Young)."""
    return float(np.sqrt((np.linalg.svd(change, compute_uv=False)[rank:] ** 2).sum()))
