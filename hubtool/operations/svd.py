"""Low-rank approximation of a matrix near the Eckart–Young optimum, and a measured account of how near.

Two methods, chosen by shape and rank (`gram_is_cheaper`): randomized block Krylov (`hubtool.operations.krylov`), and exact:
eigenvectors of the Gram matrix of the smaller side, both in float64.

Where the CPU multiplies bfloat16 natively, the search runs in it (2 to 3 times quicker, half the memory traffic): rounding a
matrix moves its leading subspace by an angle whose effect on the error is of second order. The factors come from the search
itself as long as that rounding is small beside what they leave out. Otherwise they come from float32; and where next to
nothing is left out, the remainder is searched again at its own scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch

from hubtool.operations.krylov import Leading, eigen, orthonormal, search
from hubtool.operations.ranks import EXACT, Doubt, FixedRank, QuantileRank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from hubtool.operations.ranks import RankRule

RANK_SHARE = 6  # from rank > side / RANK_SHARE on, all eigenvectors cost less than a Krylov basis
REMAINDER = 1e-2  # share of the searched ‖·‖² left out below which the remainder is searched by itself
ROUNDING = 1e-12  # share of ‖A‖² left out that is float32's own rounding
DIRECT = 1e-3  # share of ‖A‖² below which ‖A‖² − Σσ² loses digits and the error is measured on A − BA
DOUBT = 1e-6  # what rounding in float32 may do: to a sum as a share of ‖A‖², to a squared value σᵢ² as a share of σ₁·σᵢ
_BIAS = 1e-3  # share of ‖A − BA‖² by which it may be misjudged, for the search's own factors to be taken
_BFLOAT16 = 2.0**-9 / 3**0.5  # root mean square of a relative rounding error
_SMALL_SIDE = 64
_STRIP = 1 << 18  # elements of a block that stays in the cache


@dataclass(frozen=True, eq=False)  # no slots: `exact` is kept once it was asked for
class Matrix:
    """A matrix in the dtype that it is searched in, and the way to its values in float32, which are needed less often."""

    quick: Tensor  # (rows, columns), in `quick_dtype()`
    squared_norm: float
    recall: Callable[[], Tensor]  # the values in float32
    seed: int = 0  # of the search for its directions

    @classmethod
    def of(cls, values: Tensor, seed: int = 0) -> Matrix:
        """A matrix from its values in float32."""
        dtype = quick_dtype()
        quick = values if dtype is torch.float32 else values.to(dtype)
        return cls(quick, squared_norm(values), lambda: values, seed)

    @cached_property
    def exact(self) -> Tensor:
        """The values in float32."""
        return self.quick if self.quick.dtype is torch.float32 else self.recall()

    @property
    def side(self) -> int:
        """The smaller side."""
        return min(self.quick.shape)

    @property
    def is_tall(self) -> bool:
        """More rows than columns."""
        return self.quick.shape[0] > self.quick.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Truncation:
    """A ≈ up · down, each carrying the square roots of the singular values."""

    up: Tensor  # (rows, rank), float32
    down: Tensor  # (rank, columns), float32
    energies: Tensor  # squared singular values, descending, float64, on the CPU
    squared_error: float  # ‖A − up · down‖²
    method: str  # "randomized" or "exact"


@lru_cache(maxsize=4)
def quick_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where the device has instructions for its products, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device != "cpu":
        return torch.float32
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def gram_is_cheaper(side: int, rank: int) -> bool:
    """Whether all eigenvectors of the smaller side cost less than finding `rank` of them."""
    return side <= _SMALL_SIDE or RANK_SHARE * rank > side


def squared_norm(values: Tensor) -> float:
    """‖A‖² of a matrix: rows in float32, their sum in float64."""
    return float(torch.linalg.vector_norm(values, dim=1).to("cpu", torch.float64).square().sum())


def truncate(matrix: Matrix, rule: RankRule, *, exact: bool = False) -> Truncation:
    """The best approximation of the rank that `rule` decides; the norm must be finite and not zero."""
    if isinstance(rule, QuantileRank):  # needs every value, but not every vector
        energies = torch.linalg.eigvalsh(gram(matrix)).flip(0).clamp_min(0)
        rule = FixedRank(rule.rank(energies, matrix.squared_norm, EXACT) or 1)
    if not exact and not gram_is_cheaper(matrix.side, rule.expected(matrix.side)):
        found = _randomized(matrix, rule)
        if found is not None:
            return found
    return _exact(matrix, rule)


def _randomized(matrix: Matrix, rule: RankRule) -> Truncation | None:
    """None if the rule cannot be decided this way."""
    dtypes = {matrix.quick.dtype: None, torch.float32: None}  # one or two, in this order
    for dtype in dtypes:
        values = matrix.quick if dtype is matrix.quick.dtype else matrix.exact
        leading = search(_wide(values), matrix.squared_norm, rule, matrix.seed)
        if leading is None:
            continue
        # a vector whose elements are rounded at random turns by about so much
        turned = 0.0 if dtype is torch.float32 else _BFLOAT16 / matrix.side**0.5
        decided = _decided(rule, leading, matrix, turned)
        if decided:
            return _factors(matrix, leading.left[:decided], leading.image[:decided])
        found = _refined(matrix, leading.left)
        missing = leading.missing + _tilt(rule, found.energies, turned)
        doubt = Doubt(missing, _rounding(rule, found.energies, matrix.squared_norm))
        rank = rule.rank(found.energies, matrix.squared_norm, doubt)
        if rank is not None:
            return _cut(found, rank)
    return None


def _cut(found: Truncation, rank: int) -> Truncation:
    """Only the first directions."""
    lost = float(found.energies[rank:].sum())
    return replace(
        found,
        up=found.up[:, :rank],
        down=found.down[:rank],
        energies=found.energies[:rank],
        squared_error=found.squared_error + lost,
    )


def _decided(rule: RankRule, leading: Leading, matrix: Matrix, turned: float) -> int | None:
    """The rank, if the search's own values decide it and its own factors are good enough."""
    left_out = matrix.squared_norm - float(leading.energies.sum())
    if left_out < REMAINDER * matrix.squared_norm:
        return None
    if 2 * turned * float(torch.linalg.vector_norm(leading.energies)) > _BIAS * left_out:
        return None
    rounding = _tilt(rule, leading.energies, turned) + _rounding(rule, leading.energies, matrix.squared_norm)
    if turned:
        rounding = rounding + DOUBT * matrix.squared_norm  # what rounding of the image adds to its length
    return rule.rank(leading.energies, matrix.squared_norm, Doubt(leading.missing, rounding))


def _tilt(rule: RankRule, energies: Tensor, turned: float) -> Tensor:
    """What vectors that are turned so much may do to squared singular values, or to sums: four standard deviations."""
    return 8 * turned * (torch.linalg.vector_norm(energies) if rule.of_sums else energies)


def _rounding(rule: RankRule, energies: Tensor, squared_norm: float) -> Tensor | float:
    """What float32 may have done to squared singular values, or to sums of them."""
    return DOUBT * (squared_norm if rule.of_sums else (energies[:1] * energies).sqrt())


def _refined(matrix: Matrix, left: Tensor) -> Truncation:
    """Factors from a basis; as long as it leaves next to nothing out, what is left is searched too, for the same rank."""
    rank, wide = FixedRank(left.shape[0]), _wide(matrix.exact)
    searched, found = matrix.squared_norm, _projected(matrix, left)
    while ROUNDING * matrix.squared_norm < found.squared_error < REMAINDER * searched:
        left = orthonormal((left @ wide) @ wide.T)  # what bfloat16 tilted, straightened
        searched = found.squared_error
        more = search(_remainder(matrix, left), searched, rank, matrix.seed)
        if more is None:
            break
        both = orthonormal(torch.cat([left, more.left]))
        # not from the Gram matrix: the remainder's values drown in its rounding
        best = torch.linalg.svd(both @ wide, full_matrices=False).U[:, : rank.value]
        left = best.T @ both
        found = _projected(matrix, left)
    return found


def _remainder(matrix: Matrix, left: Tensor) -> Tensor:
    """A less its projection, computed in float32, in the dtype of the quick copy."""
    wide = _wide(matrix.exact)
    rest = torch.empty(wide.shape, dtype=matrix.quick.dtype, device=wide.device)
    for strip in _strips(wide):
        rest[:, strip] = wide[:, strip] - left.T @ (left @ wide[:, strip])
    return rest


def _exact(matrix: Matrix, rule: RankRule) -> Truncation:
    energies, vectors = eigen(gram(matrix))
    rank = rule.rank(energies, min(matrix.squared_norm, float(energies.sum())), EXACT)
    return _projected(matrix, vectors[:, :rank].T, "exact")


def gram(matrix: Matrix) -> Tensor:
    """A·Aᵀ of the smaller side in float64, on the CPU (not every device has float64)."""
    wide = _wide(matrix.exact)
    total = torch.zeros(matrix.side, matrix.side, dtype=torch.float64)
    for strip in _strips(wide):
        block = wide[:, strip].to("cpu", torch.float64)
        total.addmm_(block, block.T)
    return total


# ---------------------------------------------------------------- factors


def _projected(matrix: Matrix, left: Tensor, method: str = "randomized") -> Truncation:
    """The best factors whose column space (row space, if tall) is spanned by the rows of `left`, in float32."""
    wide = _wide(matrix.exact)
    left = left.to(wide.device)
    image = torch.empty(left.shape[0], wide.shape[1], device=wide.device)
    for strip in _strips(wide):
        image[:, strip] = left @ wide[:, strip]
    _, turn = eigen(image @ image.T)
    return _factors(matrix, turn.T @ left, turn.T @ image, method)


def _factors(matrix: Matrix, left: Tensor, image: Tensor, method: str = "randomized") -> Truncation:
    """The factors from orthonormal rows and their images, which are orthogonal, and their error."""
    # not the roots of the eigenvalues, where small ones drown in rounding
    values, order = torch.linalg.vector_norm(image, dim=1).sort(descending=True)
    roots = values.sqrt()
    inverse = torch.where(values > 1e-12 * values[:1], 1 / roots, 0)
    up, down = left[order].T * roots, image[order] * inverse[:, None]
    if matrix.is_tall:
        up, down = down.T, up.T
    energies = values.to("cpu", torch.float64).square()
    error = matrix.squared_norm - float(energies.sum())
    if error < DIRECT * matrix.squared_norm:
        error = squared_distance(matrix, up, down)
    return Truncation(up, down, energies, error, method)


def squared_distance(matrix: Matrix, up: Tensor, down: Tensor) -> float:
    """‖A − up · down‖², measured strip by strip."""
    left, right = (down.T, up.T) if matrix.is_tall else (up, down)
    wide, left, right = _wide(matrix.exact), left.float(), right.float()
    return sum(squared_norm(wide[:, strip] - left @ right[:, strip]) for strip in _strips(wide))


def _wide(values: Tensor) -> Tensor:
    """The matrix, or its transpose if that has fewer rows."""
    return values if values.shape[0] <= values.shape[1] else values.T


def _strips(wide: Tensor) -> Iterator[slice]:
    """Column ranges that fit the cache."""
    step = max(256, _STRIP // wide.shape[0])
    return (slice(start, start + step) for start in range(0, wide.shape[1], step))
