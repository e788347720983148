"""What lies in a LoRA folder, as directory listings show it: nothing is opened.

Links are followed, each folder once; hidden files and folders are passed over.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.library.litter import is_litter
from hubtool.library.record import Stamp
from hubtool.library.sidecar import all_sidecars

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from hubtool.library.record import Folder

_SETTLED_NS = 3_000_000_000  # file systems tell times only so finely (FAT: 2 s): a younger one may hide a second change


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the directory listing shows it."""

    path: str
    stamp: Stamp
    sidecars: str  # suffix, time and size of each sidecar beside it


@dataclass(slots=True)
class Walk:
    """One pass over a LoRA folder; `unreadable` and `branches` are filled meanwhile."""

    folder: Folder
    extensions: Collection[str]
    unreadable: list[str] = field(default_factory=list)
    #: (sub)folder → its modification time, 0 where that is too young to tell whether its names change again
    branches: dict[str, int] = field(default_factory=dict)
    #: folders in which something of ours was not finished
    littered: list[str] = field(default_factory=list)

    def files(self) -> Iterator[Seen]:
        """Every file with one of the extensions."""
        visited: set[str] = set()
        waiting = [*(str(path) for path in self.folder.also if os.path.lexists(path)), str(self.folder.path)]
        links: list[str] = []  # last: of two ways to a folder, the one without links is its name
        while waiting or links:
            current = waiting.pop() if waiting else links.pop(0)
            real = os.path.realpath(current)
            if real in visited:
                continue
            visited.add(real)
            self.branches[current] = settled(current)
            entries = self._entries(current)
            if self.folder.deep:
                below = [entry for entry in entries.values() if _is_folder(entry)]
                waiting.extend(entry.path for entry in below if not entry.is_symlink())
                links.extend(sorted(entry.path for entry in below if entry.is_symlink()))
            yield from _models(entries, self.extensions)

    def _entries(self, folder: str) -> Mapping[str, os.DirEntry[str]]:
        try:
            entries = _listed(folder)
        except FileNotFoundError:  # an unmounted disk: its files are missing, not wrong
            return {}
        except OSError:
            self.unreadable.append(folder)
            return {}
        if any(is_litter(name) for name in entries):
            self.littered.append(folder)
        entries = {name: entry for name, entry in entries.items() if not name.startswith(".")}
        for name in [name for name in entries if any("\udc80" <= character <= "\udcff" for character in name)]:
            self.unreadable.append(entries.pop(name).path)  # not UTF-8: SQLite and JSON cannot hold such a name
        return entries


def look_again(paths: Iterable[str]) -> Iterator[Seen]:
    """These files as they are now; those that are gone are left out."""
    parents: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        parent, _, name = path.rpartition(os.sep)
        parents[parent].add(name)
    for parent, names in parents.items():
        try:
            entries = _listed(parent)
        except OSError:
            continue
        yield from _models(entries, (), names)


def settled(folder: str) -> int:
    """The modification time of a folder, once it is old enough to tell; 0 before, and where there is no folder."""
    try:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116  # a string; Path costs ten times the call
    except OSError:
        return 0
    return changed if time.time_ns() - changed > _SETTLED_NS else 0


def stamp_of(status: os.stat_result) -> Stamp:
    """What identifies an unchanged file."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def _listed(folder: str) -> dict[str, os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return {entry.name: entry for entry in listing}


def _models(
    entries: Mapping[str, os.DirEntry[str]], extensions: Collection[str], names: Collection[str] = ()
) -> Iterator[Seen]:
    """The files with these extensions, or of these names."""
    suffixes = tuple({sidecar.suffix: 0 for sidecar in all_sidecars().values() if sidecar.own or sidecar.origin})
    for name, entry in entries.items():
        stem, _, extension = name.rpartition(".")
        wanted = name in names or f".{extension.lower()}" in extensions
        if wanted and (file := _seen(entry, stem, entries, suffixes)):
            yield file


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _seen(
    entry: os.DirEntry[str], stem: str, beside: Mapping[str, os.DirEntry[str]], suffixes: Sequence[str]
) -> Seen | None:
    try:
        if not entry.is_file():
            return None
        stamps = [(suffix, beside[stem + suffix].stat()) for suffix in suffixes if stem + suffix in beside]
        status = entry.stat()
    except OSError:  # it vanished, or is a loop of links
        return None
    return Seen(entry.path, stamp_of(status), " ".join(f"{suffix}:{s.st_mtime_ns}:{s.st_size}" for suffix, s in stamps))
