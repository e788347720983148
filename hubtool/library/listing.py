"""What is installed, as the contract's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.library.scan import recheck
from hubtool.library.searching import search

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.library.searching import Filter


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of the library, for people and programs."""

    name: str
    path: Path
    target: str
    sha256: str | None  # None until somebody needed it: listing reads no more than headers
    architecture: str | None
    base_model: str | None
    dialect: str | None
    parametrizations: tuple[str, ...]
    trigger_words: tuple[str, ...]
    preferred_weight: float | None
    tags: tuple[str, ...]
    favourite: bool
    rating: int
    outfits: tuple[str, ...]
    negative: str | None
    notes: str | None
    title: str | None
    size_bytes: int
    problem: str | None  # why the file cannot be used


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be listed."""

    words: str = ""
    wanted: Filter | None = None
    order: str = ""  # one of `ORDERS`; empty: the most relevant first, or by path
    limit: int | None = None


def listing(index: Index, question: Question) -> list[Listed]:
    """The files that match, each as it is now: what was written to in its place since the last scan is read first."""
    found = _found(index, question)
    if recheck(index, found):
        found = _found(index, question)
    return [_row(one) for one in found]


def _found(index: Index, question: Question) -> list[Installed]:
    return search(index, question.words, question.wanted, question.order, question.limit)


def _row(installed: Installed) -> Listed:
    facts, own = installed.facts, installed.own
    return Listed(
        name=installed.name,
        path=installed.path,
        target=installed.target,
        sha256=installed.digests.sha256 or None,
        architecture=facts.architecture,
        base_model=installed.base_model or None,
        dialect=facts.dialect,
        parametrizations=facts.parametrizations,
        trigger_words=installed.trigger_words,
        preferred_weight=own.preferred_weight,
        tags=own.tags,
        favourite=own.favourite,
        rating=own.rating,
        outfits=own.outfits,
        negative=own.negative or None,
        notes=own.notes or None,
        title=facts.title or None,
        size_bytes=installed.stamp.size_bytes,
        problem=facts.problem or None,
    )
