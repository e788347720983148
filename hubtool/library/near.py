"""Files that do the same to a model at another rank, in another dtype or dialect.

Each file is sketched once and its sketch remembered; files whose sketches agree are compared in full, with one file of each group
that is there already. So thousands of files cost thousands of sketches, and few comparisons.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.operations.likeness import NUMBERS, candidates, likeness, sketch
from hubtool.operations.per_module import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed

COSINE = 0.95  # from which on two changes are the same: nine tenths of one are in the other
RATIO = 1.25  # of their norms, at most

Sketch = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Near:
    """Files that do the same, the first being the one that the others were compared with."""

    models: tuple[Installed, ...]
    cosine: float  # the lowest


def near_groups(index: Index, models: Sequence[Installed], progress: Callable[[Path], None]) -> list[Near]:
    """Groups among these files; those of unknown architecture, or whose change depends on the base model, are in none.

    Raises:
        MissingExtra: torch is not there.
    """
    families: dict[str, list[Installed]] = defaultdict(list)
    for one in models:
        if one.facts.kind == "adapter" and one.facts.architecture:
            families[one.facts.architecture].append(one)
    with one_thread():
        return [
            group
            for architecture, family in families.items()
            if len(family) > 1
            for group in _among(family, _sketches(index, family, progress), architecture)
        ]


def _among(family: Sequence[Installed], sketches: Sequence[Sketch], architecture: str) -> list[Near]:
    heads: dict[int, int] = {}  # member → the first of its group
    cosines: dict[int, float] = {}
    for first, second in candidates(sketches):
        head = heads.get(first, first)
        if second in heads or head == second:
            continue
        found = _compared(family[head], family[second], architecture)
        if found is not None:
            heads[second] = head
            cosines[head] = min(cosines.get(head, 1.0), found)
    groups: dict[int, list[int]] = defaultdict(list)
    for member, head in heads.items():
        groups[head].append(member)
    return [
        Near((family[head], *(family[one] for one in sorted(members))), cosines[head])
        for head, members in groups.items()
    ]


def _compared(first: Installed, second: Installed, architecture: str) -> float | None:
    """The cosine of two files that do the same; None if they do not, or one cannot be read any more."""
    try:
        found = likeness(first.path, second.path, architecture)
    except HubtoolError:  # changed since it was sketched: the next run sees it as it is then
        return None
    return found.cosine if found and found.cosine >= COSINE and found.ratio <= RATIO else None


def _sketches(index: Index, family: Sequence[Installed], progress: Callable[[Path], None]) -> list[Sketch]:
    found = []
    for one in family:
        known = index.sketch(one)
        if known is None:
            progress(one.path)
            made = _made(one)
            with index.writing():
                index.remember_sketch(
                    one, "\n".join(made), array("f", (n for row in made.values() for n in row)).tobytes()
                )
            found.append(made)
        else:
            numbers = array("f", known.numbers)
            names = known.modules.split("\n") if known.modules else []
            found.append(
                {name: list(numbers[place * NUMBERS : (place + 1) * NUMBERS]) for place, name in enumerate(names)}
            )
    return found


def _made(one: Installed) -> Sketch:
    try:
        return sketch(one.path, one.facts.architecture or "")
    except HubtoolError:  # unreadable: `verify` says why
        return {}
