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
from typing import TYPE_CHECKING, NamedTuple

from hubtool.errors import UsageProblem
from hubtool.operations.factors import Factors, added, changes_weight, inner, is_additive
from hubtool.operations.model_blocks import block_of, blocks
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import Share, placed
from hubtool.operations.sources import Source, Weighted, off_notes, read_sources

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.naming.address import ModuleRef
    from hubtool.naming.architecture import Architecture

OVERPOWERS = 2.0  # times the norm of the next: the larger one decides what comes out
AGAINST, ALIKE = -0.1, 0.3  # cosines from which on two files work against each other, or do the same thing
CANCEL = -0.9  # cosine from which on equally strong files leave less than a tenth of their energy


@dataclass(frozen=True, slots=True)
class FileFigures:
    """One file over all modules whose change is known; None where none is, or what depends on such a file."""

    file: Path
    strength: float
    modules: int
    norm: float | None  # ‖sΔW‖
    energy_share: float | None  # of the sum of all files' energies
    suggested_strength: float | None  # None for a file that changes nothing, too, and where files cancel
    dominates: int  # blocks that it overpowers the others in


@dataclass(frozen=True, slots=True)
class PairFigures:
    """Two files, by their numbers from 1."""

    first: int
    second: int
    cosine: float | None  # None beside the last two verdicts
    shared_modules: int
    verdict: str  # "independent", "alike", "against", "unknown" or "nothing" (one of the two changes nothing)


@dataclass(frozen=True, slots=True)
class BlockFigures:
    """One block: norms in the order of the files, cosines in the order of the pairs."""

    block: str
    norms: tuple[float | None, ...]  # None where a file's change is not known
    cosines: tuple[float | None, ...]  # None where one of the two does not touch the block
    dominant: int | None  # number of the file that overpowers all others


@dataclass(frozen=True, slots=True)
class Conflicts:
    """What `conflicts` found."""

    architecture: str
    files: tuple[FileFigures, ...]
    pairs: tuple[PairFigures, ...]
    blocks: tuple[BlockFigures, ...]
    together: float | None  # ‖Σ sΔW‖ / √Σ‖sΔW‖²: above 1 they reinforce each other; None of fewer than two
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
    terms, unknown = _terms(files)
    target = files[0].adapter.architecture
    grams = for_each(list(terms.values()), lambda rows: gram(rows, len(files)), workers=workers, progress=progress)
    by_block = {name: torch.zeros(len(files), len(files), dtype=torch.float64) for name in blocks(target)}
    for module, matrix in zip(terms, grams, strict=True):
        by_block[block_of(target, module)] += matrix
    whole = sum(by_block.values(), torch.zeros(len(files), len(files), dtype=torch.float64))
    several = int((whole.diagonal() > 0).sum()) > 1
    found = _Found(terms, unknown, whole)
    by_name = {name: found.within(target, name, matrix) for name, matrix in by_block.items()}
    rows = tuple(_block(name, part, several=several) for name, part in by_name.items() if part.terms or part.unknown)
    pairs = tuple(_pairs(found))
    return Conflicts(
        architecture=target.id,
        files=tuple(_files(files, found, rows)),
        pairs=pairs,
        blocks=rows,
        together=math.sqrt(max(float(whole.sum()), 0.0) / float(whole.trace())) if several else None,
        notes=(*_notes(files, unknown), *off_notes(files), *_cancelling(pairs)),
    )


Terms = dict["ModuleRef", dict[int, list[tuple[Share, float]]]]
Unknown = dict["ModuleRef", set[int]]


class _Found(NamedTuple):
    """What is known of the files, over all modules or those of a block."""

    terms: Terms
    unknown: Unknown  # module → numbers of the files whose change of it depends on the base model
    whole: Tensor  # the Gram matrix

    def within(self, target: Architecture, block: str, matrix: Tensor) -> _Found:
        """The same of one block."""
        terms = {module: row for module, row in self.terms.items() if block_of(target, module) == block}
        unknown = {module: row for module, row in self.unknown.items() if block_of(target, module) == block}
        return _Found(terms, unknown, matrix)

    def norm(self, index: int) -> float | None:
        """Of one file's change; None where nothing is known of it."""
        if any(index in row for row in self.unknown.values()) and not any(index in row for row in self.terms.values()):
            return None
        return math.sqrt(max(float(self.whole[index, index]), 0.0))

    def shared(self, i: int, j: int) -> tuple[int, int]:
        """How many modules both change, and of how many of them both changes are known."""
        known = sum(i in row and j in row for row in self.terms.values())
        both = [row | self.terms.get(module, {}).keys() for module, row in self.unknown.items()]
        return known + sum(i in row and j in row for row in both), known


def _terms(files: Sequence[Weighted]) -> tuple[Terms, Unknown]:
    """Module → number of the file → what it adds; and whose changes of which modules cannot be compared."""
    found: Terms = {}
    unknown: Unknown = {}
    for index, file in enumerate(files):
        for module, shares in placed(file.adapter).items():
            strength = file.strength(module)
            weights = [share for share in shares if changes_weight(share.layer)]
            if not strength or not weights:
                continue
            if all(is_additive(share.layer) for share in weights):
                found.setdefault(module, {})[index] = [(share, strength) for share in weights]
            else:
                unknown.setdefault(module, set()).add(index)
    return found, unknown


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


def _files(files: Sequence[Weighted], found: _Found, rows: Sequence[BlockFigures]) -> list[FileFigures]:
    norms = [found.norm(index) for index in range(len(files))]
    total = float(found.whole.trace()) or 1.0
    factors = suggested(found.whole)
    cancelling = bool(_cancelling(_pairs(found)))
    return [
        FileFigures(
            file=file.source.path,
            strength=file.source.strength,
            modules=sum(index in row for row in found.terms.values()),
            norm=norm,
            energy_share=None if None in norms else float(found.whole[index, index]) / total,
            suggested_strength=round(file.source.strength * factor, 3) if norm and not cancelling else None,
            dominates=sum(row.dominant == index + 1 for row in rows),
        )
        for index, (file, factor, norm) in enumerate(zip(files, factors, norms, strict=True))
    ]


def _pairs(found: _Found) -> list[PairFigures]:
    rows = []
    for i, j in combinations(range(len(found.whole)), 2):
        value = cosine(found.whole, i, j)
        shared, known = found.shared(i, j)
        if None in (found.norm(i), found.norm(j)) or (shared and not known):
            rows.append(PairFigures(i + 1, j + 1, None, shared, "unknown"))
        elif value is None:
            rows.append(PairFigures(i + 1, j + 1, None, shared, "nothing"))
        else:
            verdict = "against" if value < AGAINST else "alike" if value > ALIKE else "independent"
            rows.append(PairFigures(i + 1, j + 1, value, shared, verdict))
    return rows


def _block(name: str, found: _Found, *, several: bool) -> BlockFigures:
    """A block's figures; nobody dominates where something is not known, or where one file alone does anything at all."""
    norms = [found.norm(index) for index in range(len(found.whole))]
    ordered = sorted((norm or 0.0 for norm in norms), reverse=True)
    decided = several and not found.unknown and ordered[0] > OVERPOWERS * ordered[1]
    cosines = tuple(cosine(found.whole, i, j) for i, j in combinations(range(len(norms)), 2))
    return BlockFigures(name, tuple(norms), cosines, norms.index(ordered[0]) + 1 if decided else None)


# ---------------------------------------------------------------- what is said of it


def _notes(files: Sequence[Weighted], unknown: Unknown) -> list[str]:
    counts = [
        (sum(index in row for row in unknown.values()), file.source.path.name) for index, file in enumerate(files)
    ]
    return [f"{count} modules of {name} depend on the base model and are left out." for count, name in counts if count]


def _cancelling(pairs: Sequence[PairFigures]) -> list[str]:
    return [
        f"{pair.first} and {pair.second} all but cancel each other, so no strengths are suggested."
        for pair in pairs
        if pair.cosine is not None and pair.cosine < CANCEL
    ]
