"""Rewrites other families as LoKr: the Kronecker product nearest to each module's change.

Van Loan & Pitsianis 1993 ("Approximation with Kronecker products"): with rows and columns rearranged so that w1 ⊗ w2 becomes an
outer product, it is the leading singular pair. `w1` is at most 8 × 8, so its side of that pair is an eigenvector of a matrix of
at most 64 × 64, which the factors of a LoRA give without the rearranged matrix ever being made.
"""

from __future__ import annotations

import math
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import torch

from hubtool.adapters.parametrizations.lora import whole_down
from hubtool.adapters.rewriting import is_to_be_rewritten
from hubtool.adapters.scaling import ROUNDING
from hubtool.adapters.tensors import TORCH_DTYPES, from_torch
from hubtool.errors import NonFinite
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.as_lora import (
    Factors,
    base_weight,
    each_rewritten,
    factor_dtype,
    kept_beside,
    khatri_rao,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.operations.base_weights import BaseWeights

FACTOR = 8  # the longest side of w1, LyCORIS's usual `factor`


class Kronecker(NamedTuple):
    """first ⊗ second, the nearest to some change, and how near."""

    first: Tensor  # (o1, i1), of norm 1
    second: Tensor  # (o2, i2 · kernel)
    squared_norm: float  # of the change

    @property
    def squared_error(self) -> float:
        """What the product leaves of the change."""
        return max(self.squared_norm - float(self.second.double().square().sum()), 0.0)


def rewrite_as_lokr(
    adapter: Adapter, rank: int | None, base: BaseWeights | None = None
) -> tuple[Adapter, dict[ModuleRef, float]]:
    """Every module as LoKr; returns the relative error ‖ΔW − w1 ⊗ w2‖ / ‖ΔW‖ of each that was rewritten.

    `rank` is that of the larger factor, None keeps it whole; `base` holds what OFT, BOFT, (IA)³, GLoRA and DoRA depend on.

    Raises:
        NotRepresentable, NonFinite, IncompatibleCheckpoints: see `rewrite_as_lora`.
    """
    target = adapter.architecture

    def one(module: ModuleRef, layer: Layer) -> tuple[Layer, float] | None:
        shape, kind = target.shape(module), layer.parametrization
        is_lora = kind is not None and kind.id == "lora"
        rewritable = shape is not None and (is_lora or is_to_be_rewritten(layer, shape, with_base=base is not None))
        if shape is None or len(shape) < 2 or not rewritable or (kind and kind.id == "lokr"):
            return None
        weight = base_weight(layer, module, base)
        factors = _factors(layer, shape) if weight is None else _whole(layer.change(shape, weight))
        return _layer_of(layer, shape, nearest(factors, shape, layer.base), rank, resolved=weight is not None)

    return each_rewritten(adapter, one)


def _factors(layer: Layer, shape: tuple[int, ...]) -> Factors:
    kind = layer.parametrization
    if kind and kind.id == "loha" and (found := khatri_rao(layer, shape)):
        return found
    if (
        kind is None
        or kind.id != "lora"
        or not {Role.UP, Role.DOWN} <= layer.tensors.keys()
        or layer.has(Role.SPARSE_INDICES)
    ):
        return _whole(layer.delta(shape))
    down = layer.float(Role.DOWN)
    down = whole_down(layer.float(Role.MID), down) if layer.has(Role.MID) else down
    return Factors(layer.float(Role.UP).flatten(1) * layer.scale, down.flatten(1))


def _whole(change: Tensor) -> Factors:
    return Factors(change.flatten(1), None)


def nearest(factors: Factors, shape: tuple[int, ...], name: str) -> Kronecker:
    """The Kronecker product nearest to a change of this shape.

    Raises:
        NonFinite: NaN or infinity among the values of what is called `name`.
    """
    o1, i1 = _divisor(shape[0]), _divisor(shape[1])
    wide = prod(shape[1:]) // i1
    if factors.right is None:
        return _of_matrix(factors.left.reshape(o1, -1, i1, wide).transpose(1, 2), name)
    left = factors.left.reshape(o1, shape[0] // o1, -1)  # (o1, o2, k)
    right = factors.right.reshape(-1, i1, wide)  # (k, i1, i2)
    rank = left.shape[2]
    outer, inner = left.transpose(1, 2).flatten(0, 1).double(), right.transpose(0, 1).flatten(0, 1).double()
    rows = (outer @ outer.T).reshape(o1, rank, o1, rank).permute(0, 2, 1, 3).reshape(o1 * o1, -1)
    columns = (inner @ inner.T).reshape(i1, rank, i1, rank).permute(1, 3, 0, 2).reshape(-1, i1 * i1)
    gram = (rows @ columns).reshape(o1, o1, i1, i1).permute(0, 2, 1, 3).reshape(o1 * i1, -1)
    first, squared_norm = _leading(gram, name)
    first = first.reshape(o1, i1)
    turned = torch.einsum("ac,kcd->akd", first, right)
    return Kronecker(first, left.permute(1, 0, 2).flatten(1) @ turned.flatten(0, 1), squared_norm)


def _of_matrix(parts: Tensor, name: str) -> Kronecker:
    """From the change itself as (o1, i1, o2, i2)."""
    flat = parts.flatten(2).flatten(0, 1)
    gram = (flat @ flat.T).double()
    first, squared_norm = _leading(gram, name)
    return Kronecker(first.reshape(parts.shape[:2]), (first @ flat).reshape(parts.shape[2:]), squared_norm)


def _leading(gram: Tensor, name: str) -> tuple[Tensor, float]:
    """The eigenvector of the largest eigenvalue, and the sum of all."""
    squared_norm = float(gram.trace())
    if not math.isfinite(squared_norm):
        raise NonFinite(name, f"{name} holds NaN or infinity.")
    vector: Tensor = torch.linalg.eigh(gram).eigenvectors[:, -1]
    return vector.float(), squared_norm


def _divisor(side: int) -> int:
    """The largest divisor up to `FACTOR`.

    >>> _divisor(320), _divisor(77), _divisor(13)
    (8, 7, 1)
    """
    return next(count for count in range(min(FACTOR, side), 0, -1) if side % count == 0)


def _layer_of(
    layer: Layer, shape: tuple[int, ...], found: Kronecker, rank: int | None, *, resolved: bool
) -> tuple[Layer, float]:
    name = factor_dtype(layer)
    dtype = TORCH_DTYPES[name]
    root = float(found.second.norm()) ** 0.5  # both factors of one size
    first, second, lost = found.first * root, found.second / (root or 1.0), 0.0
    tensors = kept_beside(layer, resolved=resolved)
    tensors[Role.LOKR_W1] = from_torch(first.to(dtype))
    if rank is None or rank >= min(second.shape):
        whole = second.reshape(second.shape[0], -1, *shape[2:])
        tensors[Role.LOKR_W2] = from_torch(whole.to(dtype))
    else:
        left, values, right = torch.linalg.svd(second, full_matrices=False)
        lost = float(values[rank:].double().square().sum()) * float(first.double().square().sum())
        roots = values[:rank].sqrt()
        tensors[Role.LOKR_W2_A] = from_torch((left[:, :rank] * roots).to(dtype))
        tensors[Role.LOKR_W2_B] = from_torch((roots[:, None] * right[:rank]).to(dtype))
        tensors[Role.ALPHA] = scalar_tensor(rank)
    error = ((found.squared_error + lost) / found.squared_norm) ** 0.5 if found.squared_norm else 0.0
    return replace(layer, tensors=tensors, recorded_scale=None), math.hypot(error, ROUNDING.get(name, 2.0**-4))
