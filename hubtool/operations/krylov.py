"""Randomized block Krylov: the leading left singular vectors of a matrix that is wider than it is high.

Musco & Musco 2015 (arXiv:1504.05477). Each step multiplies the last block of vectors by A·Aᵀ and keeps all blocks, fully
orthogonalised; the Ritz values of that basis approach the squared singular values from below. ‖A‖² − Σθ is the error itself, not
a bound, so the loop sees what a step still gained.

Vectors are rows here: a basis is (vectors, side), its image basis · A is (vectors, columns).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

from hubtool.operations.ranks import EXACT, Doubt, FixedRank

if TYPE_CHECKING:
    from torch import Tensor

    from hubtool.operations.ranks import RankRule

GAINED = 1.2e-3  # stop when a step lowered the error by less than this share of it
EXPECTED = 1.0e-3  # or when all further steps together would, to judge by the last two (in truth about half of that)
BASIS_SHARE = 4  # a basis of more than side / BASIS_SHARE vectors costs more than all eigenvectors
MAX_BLOCKS = 16
MISSING = 3.0  # times what a step gave a value is what further steps may give it: each gives at most 3/4 of the last
MARGIN = 4  # vectors beyond the rank, for a rule to be decided again by more precise values
_STILL_UNIT = 0.9999  # length of orthonormal rows from which on what was taken from them leaves them so
_WELL_CONDITIONED = 0.5  # smallest diagonal element of a Cholesky factor with which one round is orthogonal to rounding


class Leading(NamedTuple):
    """What a search found: the leading singular vectors, in order, and a few more where the rule depends on the values."""

    left: Tensor  # (rank, side), orthonormal rows
    image: Tensor  # left · A, (rank, columns), float32 but with the rounding of A's dtype
    energies: Tensor  # squared lengths of the image's rows, float64, on the CPU
    missing: Tensor  # by how much each of them, or each sum of the first so many, may still be too small


def search(wide: Tensor, norm: float, rule: RankRule, seed: int = 0) -> Leading | None:
    """The directions that the rule keeps; None if it needs so many that all eigenvectors cost less.

    Args:
        wide: (side, columns) with side ≤ columns, float32 or bfloat16.
        norm: ‖A‖² of the matrix.
        rule: how many directions.
        seed: which random numbers the search begins with.
    """
    side, columns = wide.shape
    width = block_width(rule.expected(side), side)
    basis = _Basis(wide, min(side, MAX_BLOCKS * width), seed)
    convergence = _Convergence(rule, norm)
    block = orthonormal(_product(gaussian(width, columns, wide, seed), wide.T).float())
    while True:
        basis.add(block)
        rank = convergence.rank(basis.energies())
        if rank is not None:
            break
        if basis.size + width > side // BASIS_SHARE and convergence.candidate is None:
            return None
        if basis.size + width > basis.capacity:
            rank = rule.rank(basis.energies(), norm, Doubt(math.inf))
            break
        block = basis.next_block()
    if rank is None:
        return None
    more = 0 if isinstance(rule, FixedRank) else MARGIN
    return basis.leading(min(rank + more, basis.size), convergence.missing)


def block_width(rank: int, side: int) -> int:
    """Vectors in a block, by measurement: multiples of 16 (others are padded), about half the rank."""
    return min(16 * min(3, max(1, (rank + 16) // 32)), side)


class _Basis:
    """The blocks found so far, their images, and the Gram matrix of those."""

    def __init__(self, wide: Tensor, capacity: int, seed: int) -> None:
        self._wide, self.capacity, self.size, self._seed = wide, capacity, 0, seed
        # not a list of blocks: joining them in each step cost as much as a product
        self._vectors = torch.empty(capacity, wide.shape[0], device=wide.device)
        self._images = torch.empty(capacity, wide.shape[1], device=wide.device)
        self._gram = torch.empty(capacity, capacity, device=wide.device)
        self._last = slice(0, 0)

    def add(self, block: Tensor) -> None:
        """One more block, orthogonal to the others."""
        rounded = block.to(self._wide.dtype)
        lengths = torch.linalg.vecdot(rounded.float(), block).unsqueeze(1)  # what rounding did to them is undone
        self._last = slice(self.size, self.size + len(block))
        self.size += len(block)
        self._vectors[self._last] = block
        image = torch.div(_product(rounded, self._wide), lengths, out=self._images[self._last])
        self._gram[self._last, : self.size] = image @ self._images[: self.size].T  # no reader looks above the diagonal

    def energies(self) -> Tensor:
        """The Ritz values, descending, float64, on the CPU."""
        gram = self._gram[: self.size, : self.size].to("cpu", torch.float64)
        values: Tensor = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
        return values

    def leading(self, rank: int, missing: Tensor) -> Leading:
        """The Ritz vectors of the largest values."""
        turn = eigen(self._gram[: self.size, : self.size])[1][:, :rank].T
        image = turn @ self._images[: self.size]
        # not the Ritz values, where small ones drown in the rounding of the largest
        energies = torch.linalg.vector_norm(image, dim=1).to("cpu", torch.float64).square()
        return Leading(turn @ self._vectors[: self.size], image, energies, missing[:rank])

    def next_block(self) -> Tensor:
        """A·Aᵀ times the last block, orthogonal to the basis.

        The block is turned to its own singular directions first: with a dominant one in every row, the rounding of bfloat16
        would drown what the other rows have to say.
        """
        _, turn = eigen(self._gram[self._last, self._last])
        turned = turn.T @ self._images[self._last]
        block = orthonormal(self._outside(_product(turned.to(self._wide.dtype), self._wide.T).float()))
        # what cancellation left of the basis, which would grow from step to step
        block = self._outside(block)
        norms: Tensor = torch.linalg.vector_norm(block, dim=1, keepdim=True)
        if float(norms.min()) > _STILL_UNIT:
            return block / norms
        # the others were rounding within the basis: A holds no more directions, and any new ones will do
        count = self.size + len(block)
        new = gaussian(count, block.shape[1], block, self._seed)[self.size :]
        block = orthonormal(self._outside(torch.where(norms > 0.5, block, new)))
        return orthonormal(self._outside(block))

    def _outside(self, block: Tensor) -> Tensor:
        vectors = self._vectors[: self.size]
        return block - (block @ vectors.T) @ vectors


class _Convergence:
    """Watches the Ritz values from step to step."""

    def __init__(self, rule: RankRule, norm: float) -> None:
        self._rule, self._norm = rule, norm
        self._steps: list[Tensor] = []
        self.candidate: int | None = None  # the rank as the values stand now
        self.missing = torch.empty(0, dtype=torch.float64)  # as `Leading` has it

    def rank(self, energies: Tensor) -> int | None:
        """The rank, once it is certain and further steps would hardly lower the error."""
        self._steps = [*self._steps[-2:], energies]
        self.missing = torch.full_like(energies, math.inf)
        rank = self.candidate = self._rule.rank(energies, self._norm, EXACT)
        if rank is None or len(self._steps) < 2 or len(self._steps[-2]) < rank:
            return None
        known = len(self._steps[-2])
        gains = (energies[:known] - self._steps[-2]).clamp_min(0)
        self.missing[:known] = MISSING * (gains.cumsum(0) if self._rule.of_sums else gains)
        left = max(self._norm - float(energies[:rank].sum()), 1e-7 * self._norm)
        # ½: the error is a root
        if 0.5 * float(gains[:rank].sum()) > GAINED * left and 0.5 * self._expected(gains[:rank]) > EXPECTED * left:
            return None
        return self._rule.rank(energies, self._norm, Doubt(self.missing))

    def _expected(self, gains: Tensor) -> float:
        """What all further steps will gain, if each value goes on as in the last two steps.

        Value by value, not by the sum: that misjudges spectra with a few dominant values, which converge long before the others.
        """
        rank = len(gains)
        if len(self._steps) < 3 or len(self._steps[0]) < rank:
            return math.inf
        before = self._steps[1][:rank] - self._steps[0][:rank]
        ratios = (gains / before.clamp_min(1e-300)).clamp_max(0.9)
        return float((gains * ratios / (1 - ratios)).sum())


# ---------------------------------------------------------------- small pieces


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """rows · matrix. A matrix whose own rows lie across comes first: as the second factor it would be packed anew each time."""
    return rows @ matrix if matrix.is_contiguous() else (matrix.T @ rows.T).T


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span what these do: Cholesky's way where that is exact enough, else Householder's."""
    for _ in range(2):
        rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(1e-30)
        factor, failed = torch.linalg.cholesky_ex((rows @ rows.T).to("cpu", torch.float64))
        if int(failed):
            break
        smallest = float(factor.diagonal().min())
        identity = torch.eye(len(rows), dtype=torch.float64)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        rows = inverse.to(rows.device, torch.float32) @ rows
        if smallest > _WELL_CONDITIONED:
            return rows
    basis: Tensor = torch.linalg.qr(rows.T).Q.T
    return basis


def eigen(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (descending, float64, on the CPU) and eigenvectors (columns, float32) of a small symmetric matrix."""
    values, vectors = torch.linalg.eigh(gram.to("cpu", torch.float64))
    return values.flip(0).clamp_min(0), vectors.flip(1).to(gram.device, torch.float32)


@lru_cache(maxsize=8)
def _normals(count: int, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def gaussian(rows: int, columns: int, like: Tensor, seed: int) -> Tensor:
    """The same random numbers for a seed, so that results repeat; drawn once, for drawing costs as much as a product."""
    count = 1 << max(20, (rows * columns - 1).bit_length())
    return _normals(count, like.dtype, like.device, seed)[: rows * columns].view(rows, columns)
