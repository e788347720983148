"""Whether two files do the same to a model, whatever their rank, dtype or dialect; and a sketch by which to find such pairs.

A sketch holds, for a few modules that are chosen by their names alone, the numbers lᵀΔWr for fixed random vectors l and r. For
Gaussian vectors the mean of a product of two files' numbers is ⟨ΔW₁, ΔW₂⟩, so sketches of files that do the same point the same
way, and those of unrelated files do not. Only pairs whose sketches agree need be compared in full.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import hubtool.adapters.tensors  # noqa: F401  # first: it says what to install where torch is missing
from hubtool.adapters.codec import read_adapter
from hubtool.errors import AdapterProblem, HubtoolError, NamingProblem
from hubtool.operations.factors import Factors, added, changes_weight, inner, is_additive
from hubtool.operations.placement import placed

import torch  # isort: skip  # after our own modules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.naming.address import ModuleRef
    from hubtool.operations.placement import Share

MODULES = 6  # in a sketch
NUMBERS = 48  # of each module
_AGREE = (
    0.7  # cosine of two sketches of a module from which on it speaks for the pair: four deviations of unrelated ones
)
_MOST = 0.6  # share of the modules in both sketches that must speak for it
_MEAN = 0.85  # of those cosines at least; for changes whose cosine is 0.95 it is 0.95 ± 0.02
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Likeness:
    """How two changes of a model compare."""

    cosine: float
    ratio: float  # of their norms, at least 1


def sketch(path: Path, architecture_id: str) -> dict[str, list[float]]:
    """Module → numbers; empty for a file whose change depends on the base model, or cannot be read.

    A module of zeros says nothing and is left out.
    """
    try:
        modules = placed(read_adapter(path, architecture_id=architecture_id))
    except (AdapterProblem, NamingProblem):
        return {}
    found: dict[str, list[float]] = {}
    for module in sorted(modules, key=_order):
        change = _change(modules[module])
        if change is None:
            return {}
        numbers = _numbers(module, change)
        if any(numbers) and all(map(math.isfinite, numbers)):
            found[f"{module.component.value}:{module.path}"] = numbers
        if len(found) == MODULES:
            break
    return found


def candidates(sketches: Sequence[Mapping[str, Sequence[float]]]) -> list[tuple[int, int]]:
    """The pairs (by place, the smaller first) whose sketches agree: all pairs at once as products of matrices."""
    holders: dict[str, list[int]] = {}
    for place, one in enumerate(sketches):
        for module in one:
            holders.setdefault(module, []).append(place)
    votes: dict[tuple[int, int], list[float]] = {}
    for module, places in holders.items():
        rows = torch.nn.functional.normalize(torch.tensor([sketches[place][module] for place in places]), dim=1)
        for start in range(0, len(places), _BLOCK):
            cosines = rows[start : start + _BLOCK] @ rows[start:].T
            agreeing = (cosines.triu(1) >= _AGREE).nonzero()
            for (first, second), cosine in zip(agreeing.tolist(), cosines[tuple(agreeing.T)].tolist(), strict=True):
                votes.setdefault((places[start + first], places[start + second]), []).append(cosine)
    return sorted(
        pair
        for pair, found in votes.items()
        if len(found) >= _MOST * len(sketches[pair[0]].keys() & sketches[pair[1]].keys())
        and sum(found) >= _MEAN * len(found)
    )


def likeness(first: Path, second: Path, architecture_id: str) -> Likeness | None:
    """Compare two files in full; None where one of them does nothing, or something that depends on the base model.

    Raises:
        HubtoolError: a file cannot be read, or does not fit the architecture.
    """
    one, two = (placed(read_adapter(path, architecture_id=architecture_id)) for path in (first, second))
    square_one = square_two = product = 0.0
    for module in {*one, *two}:
        a, b = _change(one.get(module, [])), _change(two.get(module, []))
        if (module in one and a is None) or (module in two and b is None):
            return None
        square_one += inner(a, a) if a else 0.0
        square_two += inner(b, b) if b else 0.0
        product += inner(a, b) if a and b else 0.0
    if not (0 < square_one < math.inf and 0 < square_two < math.inf and math.isfinite(product)):
        return None
    ratio = math.sqrt(square_one / square_two)
    return Likeness(product / math.sqrt(square_one * square_two), max(ratio, 1 / ratio))


def _change(shares: Sequence[Share]) -> Factors | None:
    """What the layers of a module do to its weight together; None where that depends on the weight, or cannot be said."""
    usable = [share for share in shares if is_additive(share.layer) and changes_weight(share.layer)]
    if not usable or len(usable) < len(shares):
        return None
    try:
        return added([share.factors() for share in usable])
    except HubtoolError:  # broken tensors: `verify` says which
        return None


def _order(module: ModuleRef) -> bytes:
    """An order of modules in which the first of any two files that share most modules are the same."""
    return blake2b(f"{module.component.value}:{module.path}".encode(), digest_size=8).digest()


def _numbers(module: ModuleRef, change: Factors) -> list[float]:
    rows, columns = change.sides
    left, right = _vectors(_order(module), rows, columns)
    seen = change.left.T @ left
    numbers = seen * (right if change.right is None else change.right @ right)
    return [float(number) for number in numbers.sum(0)]


@functools.lru_cache(maxsize=64)
def _vectors(seed: bytes, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """(rows, NUMBERS) and (columns, NUMBERS), the same on every machine for the same module."""
    source = torch.Generator().manual_seed(int.from_bytes(seed[:7], "little"))
    return torch.randn(rows, NUMBERS, generator=source), torch.randn(columns, NUMBERS, generator=source)
