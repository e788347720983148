"""Low-rank approximation of a matrix near the Eckart–Young optimum, and a measured account of how near.

Two methods, chosen by shape and rank (`gram_is_cheaper`):

* randomized block Krylov (Musco & Musco 2015, arXiv:1504.05477): each step multiplies a block of vectors with A·Aᵀ and keeps all
  blocks, fully orthogonalised; the Ritz values of that basis approach the singular values from below. ‖A‖² − Σθ² is the error
  itself, not a bound, so the loop sees what a step still gained and stops when that is less than `TOLERANCE`.
* exact: eigenvectors of the Gram matrix of the smaller side, both in float64.

Where the CPU multiplies bfloat16 natively, the basis is sought in it (2 to 3 times quicker, half the memory traffic). The
factors and their error always come from float32: rounding a matrix moves its leading subspace by an angle whose effect on the
error is of second order. Where next to nothing is left out, rounding is no longer negligible beside it, so the remainder is
searched again at its own scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from hubtool.operations.ranks import FixedRank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hubtool.operations.ranks import RankRule

TOLERANCE = 1.5e-3  # stop when a step lowered the error by less than this share of it
RANK_SHARE = 6  # from rank > side / RANK_SHARE on, all eigenvectors cost less than a Krylov basis
BASIS_SHARE = 4  # a basis of more than side / BASIS_SHARE vectors costs more than all eigenvectors
MAX_BLOCKS = 16
REMAINDER = 1e-2  # share of the searched ‖·‖² left out below which the remainder is searched by itself
ROUNDING = 1e-12  # share of ‖A‖² left out that is float32's own rounding
DIRECT = 1e-3  # share of ‖A‖² below which ‖A‖² − Σσ² loses digits and the error is measured on A − BA
_DOUBT = {torch.bfloat16: 1e-4, torch.float32: 1e-6}  # share of ‖A‖² by which Ritz values may be wrong
_SMALL_SIDE = 64
_STRIP = 1 << 18  # elements of a block that stays in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A matrix with the copy that the basis is sought in (itself where bfloat16 is not native) and its norm."""

    exact: Tensor  # (rows, columns), float32
    quick: Tensor  # the same, in `quick_dtype()`
    squared_norm: float

    @classmethod
    def of(cls, values: Tensor) -> Matrix:
        """A matrix from its values in float32."""
        dtype = quick_dtype()
        quick = values if dtype is torch.float32 else values.to(dtype)
        return cls(values, quick, squared_norm(values))

    @property
    def side(self) -> int:
        """The smaller side."""
        return min(self.exact.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Truncation:
    """A ≈ up · down, each carrying the square roots of the singular values."""

    up: Tensor  # (rows, rank), float32
    down: Tensor  # (rank, columns), float32
    energies: Tensor  # squared singular values, descending, float64
    squared_error: float  # ‖A − up · down‖²
    method: str  # "randomized" or "exact"


@lru_cache(maxsize=1)
def quick_dtype() -> torch.dtype:
    """bfloat16 where the CPU has instructions for its products, else float32."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def gram_is_cheaper(side: int, rank: int) -> bool:
    """Whether all eigenvectors of the smaller side cost less than finding `rank` of them."""
    return side <= _SMALL_SIDE or RANK_SHARE * rank > side


def squared_norm(values: Tensor) -> float:
    """‖A‖² of a matrix: rows in float32, their sum in float64."""
    return float(torch.linalg.vector_norm(values, dim=1).double().square().sum())


def truncate(matrix: Matrix, rule: RankRule, *, exact: bool = False) -> Truncation:
    """The best approximation of the rank that `rule` decides; the norm must be finite and not zero."""
    if not exact and not gram_is_cheaper(matrix.side, rule.expected(matrix.side)):
        found = _randomized(matrix, rule)
        if found is not None:
            return found
    return _exact(matrix, rule)


def _randomized(matrix: Matrix, rule: RankRule) -> Truncation | None:
    """None if the rule cannot be decided this way."""
    for values in [matrix.quick] if matrix.quick is matrix.exact else [matrix.quick, matrix.exact]:
        left = _krylov_basis(_wide(values), matrix.squared_norm, rule)
        found = None if left is None else _refined(matrix, left)
        if found is not None and rule.confirms(found.energies, matrix.squared_norm):
            return found
    return None


def _refined(matrix: Matrix, left: Tensor) -> Truncation:
    """Factors from a basis; as long as it leaves next to nothing out, what is left is searched too, for the same rank."""
    rank, wide = FixedRank(left.shape[1]), _wide(matrix.exact)
    searched, found = matrix.squared_norm, _projected(matrix, left, "randomized")
    while ROUNDING * matrix.squared_norm < found.squared_error < REMAINDER * searched:
        left = _orthonormal(wide @ (wide.T @ left))  # what bfloat16 tilted, straightened
        searched = found.squared_error
        more = _krylov_basis(_remainder(matrix, left), searched, rank)
        if more is None:
            break
        both = _orthonormal(torch.cat([left, more], 1))
        # not from the Gram matrix: the remainder's values drown in its rounding
        best = torch.linalg.svd(both.T @ wide, full_matrices=False).U[:, : rank.value]
        left = both @ best
        found = _projected(matrix, left, "randomized")
    return found


def _remainder(matrix: Matrix, left: Tensor) -> Tensor:
    """A less its projection, computed in float32, in the dtype of the quick copy."""
    wide = _wide(matrix.exact)
    rest = torch.empty(wide.shape, dtype=matrix.quick.dtype)
    for strip in _strips(wide):
        rest[:, strip] = wide[:, strip] - left @ (left.T @ wide[:, strip])
    return rest


def _exact(matrix: Matrix, rule: RankRule) -> Truncation:
    wide = _wide(matrix.exact)
    gram = torch.zeros(matrix.side, matrix.side, dtype=torch.float64)
    for strip in _strips(wide):
        block = wide[:, strip].double()
        gram.addmm_(block, block.T)
    values, vectors = torch.linalg.eigh(gram)
    energies = values.flip(0).clamp_min(0)
    rank = rule.rank(energies, min(matrix.squared_norm, float(energies.sum())), 0.0)
    return _projected(matrix, vectors.flip(1)[:, :rank].float(), "exact")


# ---------------------------------------------------------------- block Krylov


def _krylov_basis(wide: Tensor, norm: float, rule: RankRule) -> Tensor | None:
    """Orthonormal (side, rank) basis of nearly the leading left singular subspace; None if the rule needs a large one."""
    side, columns = wide.shape
    width = _block_width(rule.expected(side), side)
    block = basis = _orthonormal((wide @ _gaussian(columns, width, wide.dtype)).float())
    images: list[Tensor] = []
    core = torch.empty(0, 0)
    convergence = _Convergence(rule, norm, _DOUBT[wide.dtype] * norm)
    while True:
        image = _image(block, wide)
        core = _bordered(core, images, image)
        images.append(image)
        energies = torch.linalg.eigvalsh(core.double()).flip(0).clamp_min(0)
        rank = convergence.rank(energies)
        if rank is not None:
            break
        size = basis.shape[1] + width
        if size > side // BASIS_SHARE and convergence.candidate is None:
            return None
        if size > min(side, MAX_BLOCKS * width):
            rank = rule.rank(energies, norm, math.inf)
            break
        block = _next_block(wide, basis, image)
        basis = torch.cat([basis, block], 1)
    if rank is None:
        return None
    vectors = torch.linalg.eigh(core.double()).eigenvectors.flip(1)[:, :rank]
    return _orthonormal(basis @ vectors.float())


def _image(block: Tensor, wide: Tensor) -> Tensor:
    """blockᵀ · A, (width, columns); where the block has to be rounded, what that did to its lengths is undone."""
    rounded = block.to(wide.dtype)
    image = (rounded.T @ wide).float()
    return image if rounded is block else image / (rounded.float() * block).sum(0)[:, None]


def _block_width(rank: int, side: int) -> int:
    """Half the rank was the quickest by measurement: narrower blocks take more steps, wider ones a larger basis."""
    return min(max(16, min(48, -(-rank // 16) * 8)), side)


def _next_block(wide: Tensor, basis: Tensor, image: Tensor) -> Tensor:
    """A·Aᵀ times the last block, orthogonal to the basis.

    The block is turned to its own singular directions first: with a dominant one in every column, the rounding of
    bfloat16 would drown what the other columns have to say.
    """
    turned = torch.linalg.eigh((image @ image.T).double()).eigenvectors.float().T @ image
    block = _orthonormal(_outside(basis, (wide @ turned.T.to(wide.dtype)).float()))
    block = _outside(basis, block)  # what cancellation left of the basis
    norms = torch.linalg.vector_norm(block, dim=0)
    if float(norms.min()) > 0.5:
        return block
    # the others were rounding within the basis: A holds no more directions, and any new ones will do
    new = _gaussian(block.shape[0], basis.shape[1] + block.shape[1], torch.float32)[:, basis.shape[1] :]
    block = _orthonormal(_outside(basis, torch.where(norms > 0.5, block, new)))
    return _orthonormal(_outside(basis, block))


def _outside(basis: Tensor, block: Tensor) -> Tensor:
    return block - basis @ (basis.T @ block)


def _bordered(core: Tensor, images: list[Tensor], image: Tensor) -> Tensor:
    """The Gram matrix of all images, from that of all but the newest."""
    corner = image @ image.T
    if not images:
        return corner
    border = torch.cat([older @ image.T for older in images])
    return torch.cat([torch.cat([core, border], 1), torch.cat([border.T, corner], 1)])


class _Convergence:
    """Watches the Ritz values from step to step."""

    def __init__(self, rule: RankRule, norm: float, doubt: float) -> None:
        self._rule, self._norm, self._doubt = rule, norm, doubt
        self._previous: Tensor | None = None
        self.candidate: int | None = None  # the rank as the values stand now

    def rank(self, energies: Tensor) -> int | None:
        """The rank, once it is certain and the last step hardly lowered the error.

        The next steps together gain less than the last one did (extrapolating the gains to stop a step earlier was tried:
        it misjudges spectra with a few dominant values, by six times the tolerance).
        """
        previous, self._previous = self._previous, energies
        self.candidate = self._rule.rank(energies, self._norm, 0.0)
        if previous is None or self.candidate is None or len(previous) < self.candidate:
            return None
        kept = float(energies[: self.candidate].sum())
        gain = max(kept - float(previous[: self.candidate].sum()), 0.0)
        if 0.5 * gain > TOLERANCE * max(self._norm - kept, 1e-7 * self._norm):  # ½: the error is a root
            return None
        return self._rule.rank(energies, self._norm, gain + self._doubt)


# ---------------------------------------------------------------- factors


def _projected(matrix: Matrix, left: Tensor, method: str) -> Truncation:
    """The best factors whose column space (row space, if tall) is spanned by `left`, in float32, and their error."""
    wide = _wide(matrix.exact)
    image = torch.empty(left.shape[1], wide.shape[1])
    for strip in _strips(wide):
        image[:, strip] = left.T @ wide[:, strip]
    turn = torch.linalg.eigh((image @ image.T).double()).eigenvectors.flip(1).float()
    up, down = left @ turn, turn.T @ image
    values = torch.linalg.vector_norm(
        down, dim=1
    )  # not the roots of the eigenvalues, where small ones drown in rounding
    values, order = values.sort(descending=True)
    roots = values.sqrt()
    up, down = up[:, order] * roots, down[order] * torch.where(values > 1e-12 * values[:1], 1 / roots, 0)[:, None]
    energies = values.double().square()
    if matrix.exact.shape[0] > matrix.exact.shape[1]:
        up, down = down.T, up.T
    error = matrix.squared_norm - float(energies.sum())
    if error < DIRECT * matrix.squared_norm:
        error = squared_distance(matrix, up, down)
    return Truncation(up, down, energies, error, method)


def squared_distance(matrix: Matrix, up: Tensor, down: Tensor) -> float:
    """‖A − up · down‖², measured strip by strip."""
    tall = matrix.exact.shape[0] > matrix.exact.shape[1]
    wide, left, right = _wide(matrix.exact), (down.T if tall else up).float(), (up.T if tall else down).float()
    return sum(squared_norm(wide[:, strip] - left @ right[:, strip]) for strip in _strips(wide))


def _orthonormal(columns: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def _wide(values: Tensor) -> Tensor:
    """The matrix, or its transpose if that has fewer rows."""
    return values if values.shape[0] <= values.shape[1] else values.T


def _strips(wide: Tensor) -> Iterator[slice]:
    """Column ranges that fit the cache."""
    step = max(256, _STRIP // wide.shape[0])
    return (slice(start, start + step) for start in range(0, wide.shape[1], step))


@lru_cache(maxsize=8)
def _normals(count: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)


def _gaussian(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """The same random numbers on every call, so that results repeat; drawn once, for drawing costs as much as a product."""
    count = 1 << max(20, (rows * columns - 1).bit_length())
    return _normals(count, dtype)[: rows * columns].view(rows, columns)
