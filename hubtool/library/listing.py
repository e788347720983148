"""What is installed, as the contract's rows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    title: str | None
    size_bytes: int
    problem: str | None  # why the file cannot be used


def listing(index: Index, query: str, below: Path | None = None) -> list[Listed]:
    """The files that match a query (all for none), those below one folder if it is given."""
    root = os.path.realpath(below) if below else "/"
    return [_row(one) for one in index.search(query) if below is None or one.path.is_relative_to(root)]


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
        title=facts.title or None,
        size_bytes=installed.stamp.size_bytes,
        problem=facts.problem or None,
    )
