"""Rewrites other families as LoRA, each module at the best approximation of a rank or energy.

Never through the whole weight where the factors say it all: the SVD of a Kronecker product is made of those of its
factors (Van Loan 2000, "The ubiquitous Kronecker product"), and a Hadamard product of low-rank matrices is a product of
their row-wise and column-wise Khatri–Rao products, at the product of the ranks (Hyeon-Woo et al. 2021, proposition 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import torch

from hubtool.adapters.rewriting import BESIDE, is_to_be_rewritten, magnitudes_for
from hubtool.adapters.scaling import ROUNDING, multiplied
from hubtool.adapters.tensors import TORCH_DTYPES, from_torch
from hubtool.errors import NonFinite, NotRepresentable
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.ranks import EXACT, EnergyRank, FixedRank
from hubtool.operations.svd import Matrix, truncate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.base_weights import BaseWeights
    from hubtool.operations.ranks import RankRule

#: Khatri–Rao factors are worth it up to this share of the smaller side; beyond, the whole weight is quicker.
_KHATRI_RAO_SHARE = 8
_STANDALONE = frozenset({"lora", "loha", "lokr", "full"})  # families whose change is the same whatever the base weight
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class Factors(NamedTuple):
    """A change as left @ right, (rows, k) and (k, columns), or whole as left with `right` None."""

    left: Tensor
    right: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The largest part of a change as left · diag(values) · right; orthonormal sides, values descending."""

    left: Tensor  # (rows, k)
    values: Tensor  # (k), float64
    right: Tensor  # (k, columns)
    squared_norm: float  # of the whole change, cut values included
    remainder: float = 0.0  # squared norm of what left · diag(values) · right lacks


def rewrite_as_lora(
    adapter: Adapter, rule: RankRule, base: BaseWeights | None = None
) -> tuple[Adapter, dict[ModuleRef, float]]:
    """Every module that is no LoRA as one; returns the relative error ‖ΔW − BA‖ / ‖ΔW‖ of each that was rewritten.

    With the base model, modules that depend on it become LoRA, too, DoRA among them; without it DoRA keeps its magnitude.

    Raises:
        NotRepresentable: a module's change depends on the base weight, and there is none.
        NonFinite: a module holds NaN or infinity.
        IncompatibleCheckpoints: the base model lacks a weight.
    """
    target = adapter.architecture

    def one(module: ModuleRef, layer: Layer) -> tuple[Layer, float] | None:
        shape = target.shape(module)
        if shape is None or not is_to_be_rewritten(layer, shape, with_base=base is not None):
            return None
        weight = base_weight(layer, module, base)
        return _rewritten(layer, shape, spectrum(layer, shape, rule, weight), resolved=weight is not None)

    return each_rewritten(adapter, one)


def each_rewritten(
    adapter: Adapter, one: Callable[[ModuleRef, Layer], tuple[Layer, float] | None]
) -> tuple[Adapter, dict[ModuleRef, float]]:
    """An adapter with what `one` makes of each module (None: as it is), and the errors of those that it made anew."""
    seen = magnitudes_for(adapter, "kohya")  # only the dialect tells PEFT's (1, out, 1, 1) from LyCORIS's (1, in, 1, 1)
    layers, errors = dict(adapter.layers), {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are small: a second thread costs more than it brings
    try:
        for module, layer in seen.layers.items():
            found = one(module, layer)
            if found is None:
                continue
            made, errors[module] = found
            if Role.MAGNITUDE in made.tensors:  # as the dialect has it, for the way out
                made = made.having({**made.tensors, Role.MAGNITUDE: layers[module].tensors[Role.MAGNITUDE]})
            layers[module] = made
    finally:
        torch.set_num_threads(threads)
    return replace(adapter, layers=layers), errors


def base_weight(layer: Layer, module: ModuleRef, base: BaseWeights | None) -> Tensor | None:
    """The base weight where the change depends on it; None where it does not, or where DoRA alone does and there is none.

    Raises:
        NotRepresentable: it depends on it, and there is none.
        IncompatibleCheckpoints: the base model lacks it.
    """
    kind = layer.parametrization
    depends = kind is None or kind.id not in _STANDALONE or Role.SET_WEIGHT in layer.tensors
    if base is None and depends:
        family = kind.id if kind else "unknown"
        message = f"{layer.base} ({family}) changes its weight in a way that cannot be said without the base model."
        raise NotRepresentable(
            layer.base, message, hint="Name the model that it was made for with `--base CHECKPOINT`."
        )
    return base.weight(module) if base and (depends or Role.MAGNITUDE in layer.tensors) else None


def rank_rule(rank: int | None, energy: float | None) -> RankRule | None:
    """The rule of `--rank` and `--energy`; with both, the rank is the upper limit."""
    if energy is not None:
        return EnergyRank(energy, rank or 1 << 30)
    return FixedRank(rank) if rank is not None else None


def _rewritten(layer: Layer, shape: tuple[int, ...], found: Spectrum, *, resolved: bool) -> tuple[Layer, float]:
    rank, root = len(found.values), found.values.sqrt().to(found.left.dtype)
    name = factor_dtype(layer)
    up, down = (values.to(TORCH_DTYPES[name]) for values in (found.left * root, root[:, None] * found.right))
    tensors = kept_beside(layer, resolved=resolved)
    tensors[Role.UP] = from_torch(up.reshape(shape[0], rank, *(1,) * (len(shape) - 2)))
    tensors[Role.DOWN] = from_torch(down.reshape(rank, *shape[1:]))
    tensors[Role.ALPHA] = scalar_tensor(rank)
    error = (found.remainder / found.squared_norm) ** 0.5 if found.squared_norm else 0.0
    return replace(layer, tensors=tensors, recorded_scale=None), math.hypot(error, ROUNDING.get(name, 2.0**-4))


def kept_beside(layer: Layer, *, resolved: bool) -> dict[Role, LazyTensor]:
    """What goes with the new factors, whose scale is 1: biases, and DoRA's magnitude unless it was worked out."""
    kept: dict[Role, LazyTensor] = {
        role: tensor for role, tensor in layer.tensors.items() if role in BESIDE and role is not Role.ALPHA
    }
    if resolved:
        kept.pop(Role.MAGNITUDE, None)
    if Role.UP_BIAS in kept and layer.scale != 1:
        kept[Role.UP_BIAS] = multiplied(kept[Role.UP_BIAS], layer.scale)
    return kept


def factor_dtype(layer: Layer) -> str:
    """The dtype that the new factors are stored in: that of the old ones."""
    factors = [t.dtype for role, t in layer.tensors.items() if role not in BESIDE and t.dtype in _FLOATS]
    return factors[0] if factors else "F32"


def spectrum(layer: Layer, shape: tuple[int, ...], rule: RankRule, base: Tensor | None = None) -> Spectrum:
    """The singular values that `rule` keeps, with their vectors, by the cheapest exact way the family has.

    With the base weight it is the change that this layer makes to that very weight, DoRA included.

    Raises:
        NonFinite: NaN or infinity among the values.
    """
    if base is not None:
        return _of_weight(layer, layer.change(shape, base).reshape(shape[0], -1).contiguous(), rule)
    kind = layer.parametrization
    if kind and kind.id == "lokr":
        return _kronecker(layer, rule)
    factors = khatri_rao(layer, shape) if kind and kind.id == "loha" else None
    if factors is not None and factors.right is not None:
        whole = _of_product(factors.left, factors.right, layer.base)
        rank = _count(layer, whole.values, rule)
        rest = float(whole.values[rank:].square().sum())
        return Spectrum(whole.left[:, :rank], whole.values[:rank], whole.right[:rank], whole.squared_norm, rest)
    return _of_weight(layer, layer.delta(shape).reshape(shape[0], -1).contiguous(), rule)


def _of_weight(layer: Layer, weight: Tensor, rule: RankRule) -> Spectrum:
    matrix = Matrix.of(weight)
    if not math.isfinite(matrix.squared_norm):
        raise _not_finite(layer)
    if not matrix.squared_norm:
        return Spectrum(weight[:, :1] * 0, torch.zeros(1, dtype=torch.float64), weight[:1] * 0, 0.0)
    cut = truncate(matrix, rule)
    values = cut.energies.sqrt()
    root = values.sqrt().clamp_min(1e-30).to(cut.up.dtype)
    return Spectrum(cut.up / root, values, cut.down / root[:, None], matrix.squared_norm, cut.squared_error)


def _count(layer: Layer, values: Tensor, rule: RankRule) -> int:
    """How many of all singular values (descending) the rule keeps; at least one."""
    energies = values.square()
    total = float(energies.sum())
    if not math.isfinite(total):
        raise _not_finite(layer)
    kept = rule.rank(energies, total, EXACT)
    return max(1, min(len(values) if kept is None else kept, len(values)))


def _not_finite(layer: Layer) -> NonFinite:
    return NonFinite(layer.base, f"{layer.base} holds NaN or infinity.")


def _kronecker(layer: Layer, rule: RankRule) -> Spectrum:
    """The largest products of a singular value of `w1` with one of `w2`; vectors are made for those alone."""
    one = _svd(_lokr_factor(layer, Role.LOKR_W1, (Role.LOKR_W1_A, Role.LOKR_W1_B)), layer.base)
    two = _svd(_lokr_factor(layer, Role.LOKR_W2, (Role.LOKR_W2_A, Role.LOKR_W2_B)), layer.base)
    products, order = ((one.values[:, None] * two.values[None, :]).flatten() * abs(layer.scale)).sort(descending=True)
    rank = _count(layer, products, rule)
    i, j = order[:rank] // len(two.values), order[:rank] % len(two.values)
    left = (one.left[:, None, i] * two.left[None, :, j]).reshape(-1, rank)
    right = (one.right[i][:, :, None] * two.right[j][:, None, :]).reshape(rank, -1)
    energies = products.square()
    sign = -1.0 if layer.scale < 0 else 1.0
    return Spectrum(left * sign, products[:rank], right, float(energies.sum()), float(energies[rank:].sum()))


def _lokr_factor(layer: Layer, whole: Role, pair: tuple[Role, Role]) -> Factors:
    if layer.has(whole):
        return Factors(layer.float(whole).flatten(1), None)
    left, right = layer.float(pair[0]), layer.float(pair[1])
    if whole is Role.LOKR_W2 and layer.has(Role.LOKR_T2):
        core = layer.float(Role.LOKR_T2).flatten(2).permute(2, 0, 1)
        return Factors((left.T @ core @ right).permute(1, 2, 0).flatten(1), None)
    return Factors(left, right.flatten(1))


def _svd(factors: Factors, name: str) -> Spectrum:
    if factors.right is not None and factors.left.shape[1] < min(factors.left.shape[0], factors.right.shape[1]):
        return _of_product(factors.left, factors.right, name)
    whole = factors.left if factors.right is None else factors.left @ factors.right
    wide = whole if whole.shape[0] <= whole.shape[1] else whole.T
    gram = _finite(wide.double() @ wide.double().T, name)  # its eigenvectors cost a third of the singular ones
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1).to(wide.dtype)
    images = vectors.T @ wide
    values = images.double().norm(dim=1)  # not the roots of the eigenvalues, in which small ones drown
    images = images / values.clamp_min(1e-30).to(images.dtype)[:, None]
    left, right = (vectors, images) if wide is whole else (images.T, vectors.T)
    return Spectrum(left, values, right, float(values.square().sum()))


def _finite(values: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise NonFinite(name, f"{name} holds NaN or infinity.")
    return values


def _of_product(left: Tensor, right: Tensor, name: str) -> Spectrum:
    """The SVD of left @ right through QR of both and a small core; never the product itself."""
    q1, r1 = torch.linalg.qr(left)
    q2, r2 = torch.linalg.qr(right.T)
    core, values, turned = torch.linalg.svd(_finite(r1 @ r2.T, name).double(), full_matrices=False)
    return Spectrum(q1 @ core.to(q1.dtype), values, turned.to(q2.dtype) @ q2.T, float(values.square().sum()))


def khatri_rao(layer: Layer, shape: tuple[int, ...]) -> Factors | None:
    """LoHa at the product of its ranks; None where that is so large that the whole weight is quicker."""
    if layer.has(Role.HADA_T1):
        return None
    a1, b1 = layer.float(Role.HADA_W1_A), layer.float(Role.HADA_W1_B)
    a2, b2 = layer.float(Role.HADA_W2_A), layer.float(Role.HADA_W2_B)
    rank = a1.shape[1] * a2.shape[1]
    if rank * _KHATRI_RAO_SHARE > min(shape[0], prod(shape[1:])):
        return None
    left = (a1[:, :, None] * a2[:, None, :]).flatten(1) * layer.scale
    right = (b1[:, None, :] * b2[None, :, :]).reshape(rank, -1)
    return Factors(left, right)
