"""Brings the index up to date with the folders: one pass of directory listings, and headers only of what changed.

A file counts as unchanged while its size, modification time and inode are as remembered.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem
from hubtool.library.index import Index
from hubtool.library.journal import complete, pending
from hubtool.library.record import Folder, Installed, Origin, Own, Stamp
from hubtool.library.sidecar import all_sidecars, read_table
from hubtool.library.target import known_places, target_named

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hubtool.library.index import Known
    from hubtool.library.target import Place
    from hubtool.settings import Settings

BATCH = 200  # files a transaction, so that an interrupted first scan has not worked in vain


@dataclass(slots=True)
class Report:
    """What scans found, as paths."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the directory listing shows it."""

    path: str
    stamp: Stamp
    sidecars: str  # suffix, time and size of each sidecar beside it


@contextlib.contextmanager
def fresh_index(settings: Settings, say: Callable[[str], None]) -> Iterator[Index]:
    """The index, brought up to date; `say` is told what a person should know meanwhile.

    Raises:
        StorageProblem, LibraryProblem: the index cannot be used.
    """
    with Index(settings.index_path) as index:
        if index.note:
            say(index.note)
        if pending(settings.moves_path):
            with index.writing():
                complete(settings.moves_path)
            say("An interrupted move of files was completed.")
        report = refresh(index, settings, lambda count: say(f"Reading {count} new or changed files."))
        for path in report.unreadable:
            say(f"This cannot be read: {path}")
        yield index


def add_folders(index: Index, settings: Settings, folders: Sequence[Path], target: str | None) -> None:
    """Keep up with these LoRA folders from now on.

    Raises:
        StorageProblem: one is no folder. UsageProblem: no such target.
    """
    name = target_named((target or settings.target).partition("=")[0]).id
    for folder in folders:
        if not folder.is_dir():
            raise StorageProblem(folder, "is no folder")
    with index.writing():
        for folder in folders:
            index.remember(Folder(Path(os.path.realpath(folder)), name))


def scan_place(index: Index, place: Place) -> None:
    """Bring one LoRA folder up to date, which is kept up with from now on if it exists."""
    if place.folder.is_dir():
        with index.writing():
            folder = index.remember(Folder(place.folder, place.target.id, place.deep))
        scan_folder(index, folder, Report())


def refresh(index: Index, settings: Settings, progress: Callable[[int], None] | None = None) -> Report:
    """Rescan every LoRA folder that is known, and the configured one.

    `progress` is told how many files are about to be read, where there are many.
    """
    known = {folder.path for folder in index.folders()}
    fresh = [place for place in known_places(settings) if known.isdisjoint([place.folder, *place.folder.parents])]
    if fresh:
        with index.writing():
            for place in fresh:
                index.remember(Folder(place.folder, place.target.id))
    report = Report()
    for folder in index.folders():
        scan_folder(index, folder, report, progress)
    return report


def scan_folder(index: Index, folder: Folder, report: Report, progress: Callable[[int], None] | None = None) -> None:
    """Rescan one LoRA folder, which the index must remember; what changed is added to the report."""
    known = index.known(folder.path)
    seen = {file.path: file for file in _walk(folder, target_named(folder.target).extensions, report)}
    news = [file for file in seen.values() if _differs(file, known.get(file.path))]
    gone = {path for path, before in known.items() if path not in seen and not before.missing}
    back = _back(news, known, gone)
    lost = sorted(gone - set(back.values()))
    if back or lost:
        with index.writing():
            for new, old in back.items():
                index.found_at(old, new)
            index.mark_missing(lost)
    if progress and len(news) >= BATCH:
        progress(len(news))
    for start in range(0, len(news), BATCH):
        with index.writing():
            for file in news[start : start + BATCH]:
                _take(index, file, Installed(Path(file.path), folder.path, folder.target, file.stamp))
    report.added.extend(file.path for file in news if file.path not in known and file.path not in back)
    report.changed.extend(file.path for file in news if file.path in known or file.path in back)
    report.removed.extend(lost)


def read_sidecars(model: Path) -> tuple[Own, Origin | None]:
    """What the sidecars beside a model say: the user's words and the hub's; the first that says a thing is believed."""
    own, origin = Own(), None
    for sidecar in all_sidecars().values():
        if not (sidecar.own or sidecar.origin) or (table := read_table(sidecar.path(model))) is None:
            continue
        own = own.completed(sidecar.own(table)) if sidecar.own else own
        found = sidecar.origin(table) if sidecar.origin else None
        origin = origin.completed(found) if origin and found else origin or found
    return own, origin


def stamp_of(status: os.stat_result) -> Stamp:
    """What identifies an unchanged file."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def _take(index: Index, file: Seen, bare: Installed) -> None:
    """Store one new or changed file, reading as little of it as need be."""
    from hubtool.library.facts import read_facts  # noqa: PLC0415  # 50 ms that a scan without news does without

    old = index.at(bare.path)
    own, origin = read_sidecars(bare.path)
    if old and old.stamp == file.stamp:  # only its sidecars or its place changed
        # what the installation knew of its origin is richer than a sidecar
        fresh = replace(bare, digests=old.digests, facts=old.facts, own=own, origin=None if old.origin else origin)
    else:
        index.forget_origin(file.path)
        fresh = replace(bare, facts=read_facts(bare.path), own=own, origin=origin)
    index.store(fresh, file.sidecars)


def _differs(file: Seen, before: Known | None) -> bool:
    return before is None or before.missing or (before.stamp, before.sidecars) != (file.stamp, file.sidecars)


def _back(news: Sequence[Seen], known: Mapping[str, Known], gone: Collection[str]) -> dict[str, str]:
    """New path → remembered path, of files that were renamed or whose disk is back."""
    lost = {known[path].stamp: path for path in gone}
    found: dict[str, str] = {}
    for file in news:
        before = known.get(file.path)
        if before is None and file.stamp in lost:
            found[file.path] = lost.pop(file.stamp)
        elif before and before.missing:
            found[file.path] = file.path
    return found


def _walk(folder: Folder, extensions: Collection[str], report: Report) -> Iterator[Seen]:
    """Every file with one of the extensions; links are followed, each folder once, hidden ones never."""
    suffixes = tuple({sidecar.suffix: 0 for sidecar in all_sidecars().values() if sidecar.own or sidecar.origin})
    visited: set[str] = set()
    waiting = [str(folder.path)]
    while waiting:
        current = waiting.pop()
        real = os.path.realpath(current)
        if real in visited:
            continue
        visited.add(real)
        entries = _entries(current, report)
        if folder.deep:
            waiting.extend(entry.path for entry in entries.values() if _is_folder(entry))
        for name, entry in entries.items():
            stem, _, extension = name.rpartition(".")
            if f".{extension.lower()}" in extensions and (file := _seen(entry, stem, entries, suffixes)):
                yield file


def _entries(folder: str, report: Report) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            entries = {entry.name: entry for entry in listing if not entry.name.startswith(".")}
    except FileNotFoundError:  # an unmounted disk: its files are missing, not wrong
        return {}
    except OSError:
        report.unreadable.append(folder)
        return {}
    for name in [name for name in entries if any("\udc80" <= character <= "\udcff" for character in name)]:
        report.unreadable.append(entries.pop(name).path)  # not UTF-8: SQLite and JSON cannot hold such a name
    return entries


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
