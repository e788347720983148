"""How several adapters get along: the angle between their changes, and who overpowers whom, block by block.

All of it comes from the inner products ⟨sᵢΔWᵢ, sⱼΔWⱼ⟩ of every module, which factors give without any weight being made. Sums
over a block or the model are a Gram matrix G: norms are √Gᵢᵢ, cosines Gᵢⱼ/√(GᵢᵢGⱼⱼ), and the norm of all together is √ΣGᵢⱼ.

Strengths are suggested by this rule: each file gets the energy that the files have on (geometric) average; if they reinforce
each other, all are lowered together until the whole is as large as if they were independent, √ΣGᵢᵢ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.operations.factors import Factors, added, changes_weight, inner, is_additive
from hubtool.operations.model_blocks import block_of, blocks
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import Share, placed
from hubtool.operations.sources import Source, Weighted, read_sources

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.naming.address import ModuleRef

OVERPOWERS = 2.0  # times the norm of the next: the larger one decides what comes out
AGAINST, ALIKE = -0.1, 0.3  # cosines from which on two files work against each other, or do the same thing


@dataclass(frozen=True, slots=True)
class FileFigures:
    """One file over all modules."""

    file: Path
    strength: float
    modules: int
    norm: float  # ‖sΔW‖
    energy_share: float  # of the sum of all files' energies
    suggested_strength: float
    dominates: int  # blocks that it overpowers the others in


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Two files, by their numbers from 1."""

    first: int
    second: int
    cosine: float
    shared_modules: int
    verdict: str  # "independent", "alike" or "against"


@dataclass(frozen=True, slots=True)
class BlockFigures:
    """One block: norms in the order of the files, cosines in the order of the pairs."""

    block: str
    norms: tuple[float, ...]
    cosines: tuple[float | None, ...]  # None where one of the two does not touch the block
    dominant: int | None  # number of the file that overpowers all others


@dataclass(frozen=True, slots=True)
class Conflicts:
    """What `conflicts` found."""

    architecture: str
    files: tuple[FileFigures, ...]
    pairs: tuple[PairFigures, ...]
    blocks: tuple[BlockFigures, ...]
    together: float  # ‖Σ sΔW‖ / √Σ‖sΔW‖²: above 1 they reinforce each other, below they cancel
    notes: tuple[str, ...]


def conflicts(
    sources: Sequence[Source],
    architecture_id: str | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conflicts:
    """Compare the changes of several adapters at their strengths.

    Raises:
        UsageProblem: fewer than two files.
        FileProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter: a file cannot be used.
        IncompatibleAdapters: the files are for different base models.
    """
    if len(sources) < 2:
        raise UsageProblem("A conflict needs two files.", hint="Name another one.")
    files = read_sources(sources, architecture_id)
    terms, left = _terms(files)
    target = files[0].adapter.architecture
    grams = for_each(list(terms.values()), lambda rows: gram(rows, len(files)), workers=workers, progress=progress)
    by_block = {name: torch.zeros(len(files), len(files), dtype=torch.float64) for name in blocks(target)}
    touched: dict[str, bool] = {}
    for module, matrix in zip(terms, grams, strict=True):
        name = block_of(target, module)
        by_block[name] += matrix
        touched[name] = True
    whole = sum(by_block.values(), torch.zeros(len(files), len(files), dtype=torch.float64))
    rows = tuple(_block(name, matrix) for name, matrix in by_block.items() if name in touched)
    together = math.sqrt(max(float(whole.sum()), 0.0) / float(whole.trace())) if float(whole.trace()) else 1.0
    return Conflicts(
        architecture=target.id,
        files=tuple(_files(files, terms, whole, rows)),
        pairs=tuple(_pairs(terms, whole)),
        blocks=rows,
        together=together,
        notes=tuple(
            f"{count} modules of {name} depend on the base model and are left out." for name, count in left.items()
        ),
    )


Terms = dict["ModuleRef", dict[int, list[tuple[Share, float]]]]


def _terms(files: Sequence[Weighted]) -> tuple[Terms, dict[str, int]]:
    """Module → number of the file → what it adds; and how many modules of which file cannot be compared."""
    found: Terms = {}
    left: dict[str, int] = {}
    for index, file in enumerate(files):
        for module, shares in placed(file.adapter).items():
            strength = file.strength(module)
            usable = [share for share in shares if is_additive(share.layer) and changes_weight(share.layer)]
            if len(usable) < len(shares):
                left[file.source.path.name] = left.get(file.source.path.name, 0) + 1
            elif strength:
                found.setdefault(module, {})[index] = [(share, strength) for share in usable]
    return found, left


def gram(rows: dict[int, list[tuple[Share, float]]], count: int) -> Tensor:
    """⟨sᵢΔWᵢ, sⱼΔWⱼ⟩ of one module, (count, count), float64."""
    changes: dict[int, Factors] = {
        index: added([share.factors().scaled(strength) for share, strength in shares]) for index, shares in rows.items()
    }
    found = torch.zeros(count, count, dtype=torch.float64)
    for i, first in changes.items():
        for j, second in changes.items():
            if i <= j:
                found[i, j] = found[j, i] = inner(first, second)
    return found


def cosine(matrix: Tensor, i: int, j: int) -> float | None:
    """The cosine between two files; None where one of them does nothing."""
    size = math.sqrt(max(float(matrix[i, i] * matrix[j, j]), 0.0))
    return max(-1.0, min(1.0, float(matrix[i, j]) / size)) if size else None


def suggested(matrix: Tensor) -> list[float]:
    """What each strength is to be multiplied with, by the rule above; 1 for a file that does nothing."""
    norms = matrix.diagonal().clamp_min(0).sqrt()
    active = norms[norms > 0]
    if not len(active):
        return [1.0] * len(norms)
    average = float(active.log().mean().exp())
    factors = torch.where(norms > 0, average / norms, 1.0)
    scaled = matrix * factors[:, None] * factors
    alone, together = float(scaled.trace()), float(scaled.sum())
    lower = math.sqrt(alone / together) if together > alone else 1.0
    return [float(factor) * lower for factor in factors]


def _files(files: Sequence[Weighted], terms: Terms, whole: Tensor, rows: Sequence[BlockFigures]) -> list[FileFigures]:
    total = float(whole.trace()) or 1.0
    return [
        FileFigures(
            file=file.source.path,
            strength=file.source.strength,
            modules=sum(index in row for row in terms.values()),
            norm=math.sqrt(max(float(whole[index, index]), 0.0)),
            energy_share=float(whole[index, index]) / total,
            suggested_strength=round(file.source.strength * factor, 3),
            dominates=sum(row.dominant == index + 1 for row in rows),
        )
        for index, (file, factor) in enumerate(zip(files, suggested(whole), strict=True))
    ]


def _pairs(terms: Terms, whole: Tensor) -> list[PairFigures]:
    found = []
    for i, j in combinations(range(len(whole)), 2):
        value = cosine(whole, i, j) or 0.0
        verdict = "against" if value < AGAINST else "alike" if value > ALIKE else "independent"
        found.append(PairFigures(i + 1, j + 1, value, sum(i in row and j in row for row in terms.values()), verdict))
    return found


def _block(name: str, matrix: Tensor) -> BlockFigures:
    norms = [math.sqrt(max(float(value), 0.0)) for value in matrix.diagonal()]
    ordered = sorted(norms, reverse=True)
    dominant = norms.index(ordered[0]) + 1 if ordered[0] > OVERPOWERS * ordered[1] else None
    cosines = tuple(cosine(matrix, i, j) for i, j in combinations(range(len(norms)), 2))
    return BlockFigures(name, tuple(norms), cosines, dominant)
