"""Symbolic links of the library, which go on leading to their files when either is moved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hubtool.library.index import Index

_LONG = 40  # links that lead to links: where Linux gives up, too


@dataclass(frozen=True, slots=True)
class Relink:
    """A link that is to say something else."""

    path: Path  # where it is after all moves
    before: str
    after: str


def known_links(index: Index) -> list[Path]:
    """The files of the library that are symbolic links."""
    return [Path(label.path) for label in index.labels() if os.path.islink(label.path)]  # noqa: PTH114  # 50,000 strings


def left_dangling(links: Iterable[Path], going: Iterable[Path]) -> list[Path]:
    """Those of the links that would lead nowhere without the files that go; links that go themselves are left out."""
    gone = {place_of(path) for path in going}
    return [link for link in links if place_of(link) not in gone and not gone.isdisjoint(_steps(link))]


def relinks(moved: Mapping[Path, Path], others: Iterable[Path]) -> list[Relink]:
    """What links have to say after files moved (old path → new one): links that move, and others that lead to what moves.

    A relative link stays relative. One that leads nowhere keeps what it says.
    """
    links = {place_of(path) for path in (*moved, *others) if path.is_symlink() and path.exists()}
    if not links:  # nearly always, and there may be many moves
        return []
    places = {place_of(old): place_of(new) for old, new in moved.items()}
    found = []
    for link in sorted(links):
        new, before = places.get(link, link), str(link.readlink())
        goal = _goal(link, places, links)
        is_same = goal == _steps(link)[0] and (Path(before).is_absolute() or new.parent == link.parent)
        if not is_same:
            after = str(goal) if Path(before).is_absolute() else os.path.relpath(goal, new.parent)
            found.append(Relink(new, before, after))
    return found


def place_of(path: Path) -> Path:
    """The one true path of a name: links in its folder resolved, it itself not."""
    return Path(os.path.realpath(path.parent)) / path.name


def _goal(link: Path, places: Mapping[Path, Path], links: Collection[Path]) -> Path:
    """Where a link has to lead."""
    first, *further = _steps(link)
    if first in places:
        return places[first]
    if first not in links:  # a link outside the library, which nobody corrects
        return next((places[step] for step in further if step in places), first)
    return first


def _steps(link: Path) -> list[Path]:
    """The places that a link leads to: one, or several if there are links on the way."""
    found: list[Path] = []
    place = place_of(link)
    while place.is_symlink() and len(found) < _LONG:
        place = place_of(place.parent / place.readlink())
        found.append(place)
    return found
