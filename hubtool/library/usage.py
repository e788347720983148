"""How often each LoRA was used, by what the pictures of output folders say."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import FolderMissing, HubtoolError
from hubtool.library.resolve import Names
from hubtool.library.resolving import read_input, resolve_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hubtool.library.index import Index

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".jxl")


@dataclass(frozen=True, slots=True)
class Use:
    """One LoRA's uses."""

    name: str  # the file's, or as pictures say where it is not here
    count: int
    status: str  # as `resolve` has it
    path: Path | None
    spec: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What the pictures of some folders say."""

    uses: tuple[Use, ...]  # the most used first
    pictures: int
    silent: int  # pictures that say nothing


def count_usage(index: Index, folders: Iterable[Path], progress: Callable[[int], None] | None = None) -> Usage:
    """Count the LoRAs of every picture below these folders, and remember the counts for `list --unused`.

    Raises:
        FolderMissing: one is no folder.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, Use] = {}
    pictures = silent = 0
    names = Names(index.labels())  # once: of 50,000 files it takes half a second
    for path in _pictures(folders):
        pictures += 1
        if progress and pictures % 1000 == 0:
            progress(pictures)
        try:
            references = resolve_all(index, read_input(str(path)), names)
        except HubtoolError:
            silent += 1
            continue
        for one in references:
            key = str(one.path or one.name)
            counts[key] += 1
            examples[key] = Use(one.path.stem if one.path else one.name, 0, one.status, one.path, one.spec)
    with index.writing():
        index.count_uses({key: count for key, count in counts.items() if examples[key].path})
    uses = [Use(x.name, counts[key], x.status, x.path, x.spec) for key, x in examples.items()]
    return Usage(tuple(sorted(uses, key=lambda use: (-use.count, use.name))), pictures, silent)


def _pictures(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        if not folder.is_dir():
            raise FolderMissing(folder)
        for parent, below, names in os.walk(folder):
            below.sort()
            yield from (Path(parent) / name for name in sorted(names) if name.lower().endswith(_PICTURES))
