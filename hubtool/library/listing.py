"""What is installed, as the contract's rows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed


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
    notes: str | None
    title: str | None
    size_bytes: int
    problem: str | None  # why the file cannot be used


@dataclass(frozen=True, slots=True)
class Filter:
    """What a file must be; texts are compared whatever their case, base models and creators by any part of them."""

    base: str = ""
    architecture: str = ""
    dialect: str = ""
    parametrization: str = ""
    tag: str = ""
    creator: str = ""
    favourite: bool = False
    no_triggers: bool = False
    unused: bool = False  # by what `usage` counted last
    below: Path | None = None

    def matches(self, one: Installed, uses: Mapping[str, int]) -> bool:
        """Whether the file is all of it."""
        facts, origin = one.facts, one.origin
        said = (
            (self.architecture, (facts.architecture or "",)),
            (self.dialect, (facts.dialect or "",)),
            (self.parametrization, facts.parametrizations),
            (self.tag, one.own.tags),
        )
        parts = ((self.base, one.base_model), (self.creator, origin.creator if origin else ""))
        return (
            all(not wanted or wanted.casefold() in {text.casefold() for text in texts} for wanted, texts in said)
            and all(wanted.casefold() in text.casefold() for wanted, text in parts)
            and (not self.favourite or one.own.favourite)
            and not (self.no_triggers and one.trigger_words)
            and not (self.unused and str(one.path) in uses)
            and (self.below is None or one.path.is_relative_to(os.path.realpath(self.below)))
        )


def listing(index: Index, query: str, wanted: Filter | None = None) -> list[Listed]:
    """The files that match a query (all for none) and a filter."""
    found = index.search(query)
    if wanted is None or wanted == Filter():
        return [_row(one) for one in found]
    uses = index.uses() if wanted.unused else {}
    return [_row(one) for one in found if wanted.matches(one, uses)]


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
        notes=own.notes or None,
        title=facts.title or None,
        size_bytes=installed.stamp.size_bytes,
        problem=facts.problem or None,
    )
