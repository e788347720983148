"""A weight's change as a product of two thin matrices, and what those say without ever being multiplied.

With ΔW = L·R, L (rows, k) and R (k, columns), k far below both sides:

* a sum Σ wᵢ·Lᵢ·Rᵢ is [w₁L₁ … wₙLₙ] · [R₁; …; Rₙ];
* the singular values of L·R are those of the k × k core R_L·R_Rᵀ, where L = Q_L·R_L and Rᵀ = Q_R·R_R (Golub & Van Loan,
  Matrix Computations, §8.6); not from Gram matrices in float32, which lose every direction below 3e-4 of the largest;
* ⟨L₁R₁, L₂R₂⟩ = tr(R₁R₂ᵀ · (L₁ᵀL₂)ᵀ), two k × k matrices.

A Hadamard product of low-rank matrices is such a product of their Khatri–Rao products (Hyeon-Woo et al. 2021, proposition 1), a
Kronecker product one of Kronecker products. Where k comes near the side, the whole matrix is cheaper and `right` is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch

from hubtool.adapters.layer import parametrizations
from hubtool.adapters.parametrizations.lora import whole_down
from hubtool.errors import BrokenAdapter, NonFinite, NotRepresentable
from hubtool.naming.address import Role
from hubtool.operations.ranks import EXACT, RankRule
from hubtool.operations.svd import Matrix, truncate

if TYPE_CHECKING:
    from torch import Tensor

    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import Shape

#: Khatri–Rao and Kronecker factors are made up to this share of the smaller side; beyond, the whole matrix is quicker.
FACTOR_SHARE = 2
_NOTHING = 3e-7  # singular values below this share of the largest are float32's own rounding
#: Tensors that `factors_of` reads, of every family that has thin factors.
FACTOR_ROLES = frozenset(
    role for id in ("lora", "loha", "lokr") for role in parametrizations()[id].roles if role is not Role.UP_BIAS
) | {Role.ALPHA, Role.SCALE}
_LOKR_W1, _LOKR_W2 = (Role.LOKR_W1_A, Role.LOKR_W1_B), (Role.LOKR_W2_A, Role.LOKR_W2_B)
_ADDITIVE = frozenset({"lora", "loha", "lokr", "full", "norm"})


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """A change as left @ right, float32; whole in `left` where `right` is None."""

    left: Tensor  # (rows, k), or (rows, columns)
    right: Tensor | None  # (k, columns)

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the change."""
        return self.left.shape[0], (self.left if self.right is None else self.right).shape[1]

    def dense(self) -> Tensor:
        """The whole change."""
        return self.left if self.right is None else self.left @ self.right

    def applied(self, vectors: Tensor) -> Tensor:
        """What the change makes of vectors (columns, count), float64."""
        seen = vectors if self.right is None else self.right.double() @ vectors
        return self.left.double() @ seen

    def scaled(self, by: float) -> Factors:
        """The change times a number."""
        return self if by == 1 else Factors(self.left * by, self.right)

    def rows(self, start: int, stop: int) -> Factors:
        """Rows [start, stop)."""
        return Factors(self.left[start:stop], self.right)

    def halves_swapped(self) -> Factors:
        """The second half of the rows before the first."""
        return Factors(self.left.roll(self.left.shape[0] // 2, 0), self.right)

    def among(self, start: int, rows: int) -> Factors:
        """The change as rows from `start` on of one that has `rows`, zero elsewhere."""
        if self.left.shape[0] == rows:
            return self
        left = self.left.new_zeros(rows, self.left.shape[1])
        left[start : start + self.left.shape[0]] = self.left
        return Factors(left, self.right)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """up @ down, each carrying the square roots of the singular values, nearest to some change."""

    up: Tensor  # (rows, rank), float32
    down: Tensor  # (rank, columns), float32
    energies: Tensor  # squared singular values that were kept, descending, float64
    squared_norm: float  # of the change
    squared_error: float  # of what was left out


# ---------------------------------------------------------------- from tensors to factors


def is_additive(layer: Layer) -> bool:
    """Whether the change is the same whatever the base weight is."""
    kind = layer.parametrization
    return kind is not None and kind.id in _ADDITIVE and not {Role.MAGNITUDE, Role.SET_WEIGHT} & layer.tensors.keys()


def changes_weight(layer: Layer) -> bool:
    """Whether the weight itself is changed, not the bias alone."""
    return not layer.tensors.keys() <= {Role.DIFF_BIAS, Role.ALPHA, Role.DIFF_MODULATION, Role.NORM_BIAS}


def factored_rank(layer: Layer, shape: Shape) -> int | None:
    """The k of its factors, from shapes alone; None where the change is better taken whole."""
    kind, rank = layer.parametrization, layer.rank
    if kind is None or kind.id not in {"lora", "loha", "lokr"}:
        return None
    if kind.id == "lora":
        return None if Role.SPARSE_INDICES in layer.tensors else rank
    found = _hadamard_rank(layer) if kind.id == "loha" else _kronecker_rank(layer)
    return found if found is not None and found * FACTOR_SHARE <= min(shape[0], prod(shape[1:])) else None


def factors_of(layer: Layer, shape: Shape) -> Factors:
    """The change that a layer makes to a weight of this shape, at strength 1, without DoRA's magnitude and the bias.

    Raises:
        BrokenAdapter: tensors are missing or do not go together.
        NotRepresentable: the change depends on the base weight.
    """
    kind = layer.parametrization
    lacking = kind.missing(layer.shapes) if kind else ()
    if kind is None or lacking:
        names = ", ".join(role.value for role in lacking) or "its tensors"
        raise BrokenAdapter(layer.base, f"{layer.base} lacks {names}.")
    if kind.id not in _ADDITIVE or Role.SET_WEIGHT in layer.tensors:
        message = f"{layer.base} ({kind.id}) changes its weight in a way that depends on the base model."
        raise NotRepresentable(layer.base, message)
    if factored_rank(layer, shape) is None:
        return Factors(layer.delta(shape).reshape(shape[0], -1), None)
    make = {"lora": _of_lora, "loha": _khatri_rao, "lokr": _kronecker}[kind.id]
    try:
        found = make(layer)
    except (RuntimeError, IndexError) as error:  # torch's words for sides that do not meet
        raise _misfit(layer, shape) from error
    inner_side = found.left.shape[1] if found.right is None else found.right.shape[0]
    if found.sides != (shape[0], prod(shape[1:])) or found.left.shape[1] != inner_side:
        raise _misfit(layer, shape)
    return found


def _misfit(layer: Layer, shape: Shape) -> BrokenAdapter:
    sides = ", ".join(f"{role.value} {list(tensor.shape)}" for role, tensor in layer.tensors.items())
    return BrokenAdapter(layer.base, f"{layer.base} does not give a change of {list(shape)}: {sides}.")


def _of_lora(layer: Layer) -> Factors:
    if layer.has(Role.EMBEDDING_DOWN):
        return Factors(layer.float(Role.EMBEDDING_DOWN).T * layer.scale, layer.float(Role.EMBEDDING_UP).T)
    up, down = layer.float(Role.UP).flatten(1), layer.float(Role.DOWN)
    if layer.has(Role.MID):
        down = whole_down(layer.float(Role.MID), down)
    return Factors(up * layer.scale if layer.scale != 1 else up, down.flatten(1))


def _hadamard_rank(layer: Layer) -> int | None:
    shapes = layer.shapes
    if Role.HADA_T1 in shapes or Role.HADA_T2 in shapes:
        return None
    return shapes[Role.HADA_W1_B][0] * shapes[Role.HADA_W2_B][0]


def _khatri_rao(layer: Layer) -> Factors:
    a1, b1 = layer.float(Role.HADA_W1_A), layer.float(Role.HADA_W1_B)
    a2, b2 = layer.float(Role.HADA_W2_A), layer.float(Role.HADA_W2_B)
    left = (a1[:, :, None] * a2[:, None, :]).flatten(1)
    return Factors(left * layer.scale, (b1[:, None, :] * b2[None, :, :]).flatten(0, 1))


def _kronecker_rank(layer: Layer) -> int | None:
    """Rank of w1 times rank of w2, each whole one counted by its smaller side."""
    shapes, found = layer.shapes, 1
    if Role.LOKR_T2 in shapes:
        return None
    for whole, part in ((Role.LOKR_W1, Role.LOKR_W1_B), (Role.LOKR_W2, Role.LOKR_W2_B)):
        found *= min(shapes[whole][0], prod(shapes[whole][1:])) if whole in shapes else shapes[part][0]
    return found


def _kronecker(layer: Layer) -> Factors:
    one, two = _lokr_factor(layer, Role.LOKR_W1, _LOKR_W1), _lokr_factor(layer, Role.LOKR_W2, _LOKR_W2)
    return Factors(torch.kron(one[0], two[0]) * layer.scale, torch.kron(one[1], two[1]))


def _lokr_factor(layer: Layer, whole: Role, pair: tuple[Role, Role]) -> tuple[Tensor, Tensor]:
    if not layer.has(whole):
        return layer.float(pair[0]), layer.float(pair[1]).flatten(1)
    matrix = layer.float(whole).flatten(1)
    identity = torch.eye(min(matrix.shape))
    return (identity, matrix) if matrix.shape[0] <= matrix.shape[1] else (matrix, identity)


def _lokr_matrices(layer: Layer) -> tuple[Tensor, Tensor]:
    """Both factors of a Kronecker product, whole."""
    one, two = _lokr_factor(layer, Role.LOKR_W1, _LOKR_W1), _lokr_factor(layer, Role.LOKR_W2, _LOKR_W2)
    if not layer.has(Role.LOKR_T2):
        return one[0] @ one[1], two[0] @ two[1]
    core = layer.float(Role.LOKR_T2).flatten(2).permute(2, 0, 1)  # (kernel, rank, rank)
    parts = layer.float(Role.LOKR_W2_A).T @ core @ layer.float(Role.LOKR_W2_B)
    return one[0] @ one[1], parts.permute(1, 2, 0).flatten(1)


# ---------------------------------------------------------------- arithmetic


def added(terms: list[Factors]) -> Factors:
    """The sum of changes of one shape; there is at least one."""
    if len(terms) == 1:
        return terms[0]
    if any(term.right is None for term in terms):
        return Factors(torch.stack([term.dense() for term in terms]).sum(0), None)
    return Factors(
        torch.cat([term.left for term in terms], 1), torch.cat([t.right for t in terms if t.right is not None])
    )


def inner(first: Factors, second: Factors) -> float:
    """⟨A, B⟩ = Σ AᵢⱼBᵢⱼ, in float64: ‖A − B‖² is a small difference of such numbers."""
    if first.right is None and second.right is None:
        return float((first.left.double() * second.left.double()).sum())
    if first.right is None or second.right is None:
        whole, thin = (first, second) if first.right is None else (second, first)
        assert thin.right is not None  # noqa: S101  # only one of the two is whole
        return float(((whole.left.double() @ thin.right.double().T) * thin.left.double()).sum())
    lefts = first.left.double().T @ second.left.double()
    return float((lefts * (first.right.double() @ second.right.double().T)).sum())


def singular_values(layer: Layer, shape: Shape) -> Tensor:
    """All singular values of a layer's change, descending, float64; of a whole change those above 3e-4 of the largest are true.

    Raises:
        NonFinite: NaN or infinity among the values.
        BrokenAdapter, NotRepresentable: see `factors_of`.
    """
    kind, found = layer.parametrization, factored_rank(layer, shape)
    if kind and kind.id == "lokr" and found is None and not kind.missing(layer.shapes):
        one, two = (torch.linalg.svdvals(_finite(matrix, layer.base).double()) for matrix in _lokr_matrices(layer))
        products: Tensor = (one[:, None] * two).flatten().sort(descending=True).values * abs(layer.scale)
        return products[: min(shape[0], prod(shape[1:]))]
    factors = factors_of(layer, shape)
    if factors.right is None:
        wide = factors.left if factors.left.shape[0] <= factors.left.shape[1] else factors.left.T
        energies: Tensor = torch.linalg.eigvalsh(_finite(wide @ wide.T, layer.base)).double()
        return energies.flip(0).clamp_min(0).sqrt()
    core = _triangle(factors.left) @ _triangle(factors.right.T).T
    values: Tensor = torch.linalg.svdvals(_finite(core, layer.base).double())
    return values


def truncated(factors: Factors, rule: RankRule, name: str, *, exact: bool = False) -> LowRank:
    """The nearest change of the rank that `rule` decides, at least 1.

    Exact for factors; a change that is whole goes the way of extraction, within about 1e-3 of the optimum unless `exact`.

    Raises:
        NonFinite: NaN or infinity among the values of what is called `name`.
    """
    if factors.right is None:
        return _of_whole(factors.left, rule, name, exact=exact)
    if factors.sides[0] >= factors.sides[1]:
        return _of_product(factors.left, factors.right, rule, name)
    found = _of_product(factors.right.T, factors.left.T, rule, name)
    return LowRank(found.down.T, found.up.T, found.energies, found.squared_norm, found.squared_error)


def _of_product(left: Tensor, right: Tensor, rule: RankRule, name: str) -> LowRank:
    """Orthonormal vectors are made for the shorter side alone; the longer side's are what the change makes of those."""
    if not right.shape[0]:
        return _zero(left.shape[0], right.shape[1])
    packed, reflectors = torch.geqrf(right.T)
    side = min(packed.shape)
    triangle = packed[:side].triu()
    core = _finite(_triangle(left) @ triangle.T, name).double()
    # in float64 the eigenvectors of the square have all the digits that float32 has, and cost a third less than an SVD
    values, vectors = torch.linalg.eigh(core.T @ core)
    energies = values.flip(0).clamp_min(0)
    rank = _rank(rule, energies)
    turned, roots = vectors.flip(1)[:, :rank].float(), energies[:rank].sqrt().sqrt()
    up = left @ (triangle.T @ turned)
    up *= torch.where(roots > math.sqrt(_NOTHING) * roots[0], 1 / roots, 0.0).float()
    down = turned.new_zeros(packed.shape[0], rank)
    down[:side] = turned * roots.float()
    down = torch.ormqr(packed[:, :side], reflectors, down).T
    return LowRank(up, down, energies[:rank], float(energies.sum()), float(energies[rank:].sum()))


def _triangle(tall: Tensor) -> Tensor:
    """The R of a QR decomposition."""
    packed: Tensor = torch.geqrf(tall)[0]
    return packed[: min(packed.shape)].triu()


def _of_whole(weight: Tensor, rule: RankRule, name: str, *, exact: bool) -> LowRank:
    matrix = Matrix.of(weight.contiguous())
    if not math.isfinite(matrix.squared_norm):
        raise _not_finite(name)
    if not matrix.squared_norm:
        return _zero(*weight.shape)
    cut = truncate(matrix, rule, exact=exact)
    if not len(cut.energies):
        return replace(_zero(*weight.shape), squared_norm=matrix.squared_norm, squared_error=matrix.squared_norm)
    return LowRank(cut.up, cut.down, cut.energies, matrix.squared_norm, max(cut.squared_error, 0.0))


def _zero(rows: int, columns: int) -> LowRank:
    return LowRank(torch.zeros(rows, 1), torch.zeros(1, columns), torch.zeros(1, dtype=torch.float64), 0.0, 0.0)


def _rank(rule: RankRule, energies: Tensor) -> int:
    kept = rule.rank(energies, float(energies.sum()), EXACT)
    return max(1, min(len(energies) if kept is None else kept, len(energies)))


def _finite(values: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(values).all()):
        raise _not_finite(name)
    return values


def _not_finite(name: str) -> NonFinite:
    return NonFinite(name, f"{name} holds NaN or infinity.")
