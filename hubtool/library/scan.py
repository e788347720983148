"""Brings the index up to date with the folders: one pass of directory listings, and headers only of what changed.

A file counts as unchanged while its size, modification time and inode are as remembered. Files are read before the library's lock
is taken, and stored a few hundred at a time, so that a long scan keeps nobody waiting.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hubtool.errors import FolderMissing
from hubtool.library.index import Index
from hubtool.library.journal import complete, note_places, pending
from hubtool.library.litter import remove_stale
from hubtool.library.promises import keep_promises, promised
from hubtool.library.record import Folder, Installed, Origin, Own
from hubtool.library.sidecar import read_sidecars
from hubtool.library.target import known_places, target_named
from hubtool.library.walking import Walk, look_again, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from hubtool.library.index import Known
    from hubtool.library.record import Facts
    from hubtool.library.target import Place
    from hubtool.library.walking import Seen
    from hubtool.settings import Settings

    Progress = Callable[[int, int], None]  # files read, files to read

BATCH = 200  # files a transaction, so that an interrupted first scan has not worked in vain


@dataclass(slots=True)
class Report:
    """What scans found, as paths."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@contextlib.contextmanager
def fresh_index(settings: Settings, say: Callable[[str], None], *, glance: bool = False) -> Iterator[Index]:
    """The index, brought up to date; `say` is told what a person should know meanwhile.

    With `glance`, only folders in which names changed are looked into: a file or sidecar that was written to in its place is not
    noticed, and whoever shows files has them looked at (`recheck`).

    Raises:
        StorageProblem, LibraryProblem: the index cannot be used.
    """
    with open_library(settings, say) as index:
        report = refresh(index, settings, spoken(say), glance=glance)
        for path in report.unreadable:
            say(f"This cannot be read: {path}")
        yield index


@contextlib.contextmanager
def open_library(settings: Settings, say: Callable[[str], None]) -> Iterator[Index]:
    """The index as it was left, after what a killed process had begun was finished.

    Raises:
        StorageProblem, LibraryProblem: the index cannot be used.
    """
    with Index(settings.index_path) as index:
        if index.note:
            say(index.note)
        if pending(index.notes) or promised(index.notes):
            with index.writing():
                if plans := complete(index.notes):
                    say("An interrupted move of files was completed.")
                for plan in plans:
                    note_places(index, plan)
                if keep_promises(index, index.notes):
                    say("An interrupted installation was completed, or taken back.")
            remove_stale(index.notes)
        yield index


def spoken(say: Callable[[str], None]) -> Progress:
    """Progress in sentences: where there are many files, at the start and every few thousand."""

    def progress(done: int, total: int) -> None:
        if total >= BATCH and not done:
            say(f"Reading {total} new or changed files.")
        elif done % (25 * BATCH) < BATCH <= done < total:
            say(f"Read {done} of {total} files.")

    return progress


def add_folders(index: Index, settings: Settings, folders: Sequence[Path], target: str | None) -> None:
    """Keep up with these LoRA folders from now on.

    Raises:
        FolderMissing: one is no folder. UsageProblem: no such target.
    """
    chosen = target_named(target or settings.target)
    for folder in folders:
        if not folder.is_dir():
            raise FolderMissing(folder)
    if folders:
        with index.writing():
            for folder in folders:
                index.remember(Folder(Path(os.path.realpath(folder)), chosen.id))


def scan_place(index: Index, place: Place) -> None:
    """Bring one LoRA folder up to date, which is kept up with from now on if it exists."""
    if place.folder.is_dir():
        with index.writing():
            folder = index.remember(Folder(place.folder, place.target.id, place.deep))
        scan_folder(index, folder, Report())


def refresh(
    index: Index, settings: Settings, progress: Progress | None = None, *, glance: bool = False, reread: bool = False
) -> Report:
    """Rescan every LoRA folder that is known, and the configured one (for `glance`, see `fresh_index`).

    With `reread`, the header of every file is read again.
    """
    deep = {folder.path for folder in index.folders() if folder.deep}
    fresh = [place for place in known_places(settings) if deep.isdisjoint([place.folder, *place.folder.parents])]
    if fresh:
        with index.writing():
            for place in fresh:
                index.remember(Folder(place.folder, place.target.id))
    report = Report()
    for folder in index.folders():
        if not (glance and same_names(index, folder)):
            scan_folder(index, folder, report, progress, reread=reread)
    return report


def same_names(index: Index, folder: Folder) -> bool:
    """Whether the same files lie in every subfolder as when the folder was scanned last."""
    branches = index.branches(folder.path)
    return bool(branches) and all(changed and settled(path) == changed for path, changed in branches.items())


def scan_folder(
    index: Index, folder: Folder, report: Report, progress: Progress | None = None, *, reread: bool = False
) -> None:
    """Rescan one LoRA folder, which the index must remember; what changed is added to the report."""
    known = index.known(folder.path)
    walk = Walk(folder, target_named(folder.target).extensions)
    seen = {file.path: file for file in walk.files()}
    news = [file for file in seen.values() if reread or _differs(file, known.get(file.path))]
    gone = {path for path, before in known.items() if path not in seen and not before.missing}
    if not folder.deep:  # another process may just have put it into a subfolder that was not yet looked into
        gone = {path for path in gone if not os.path.exists(path)}  # noqa: PTH110  # a string
    back = _back(news, known, gone)
    lost = sorted(gone - set(back.values()))
    if back or lost or index.branches(folder.path) != walk.branches:
        with index.writing():
            for new, old in back.items():
                index.found_at(old, new)
            index.mark_missing(lost)
            index.remember_branches(folder.path, walk.branches)
    before = {file.path: known.get(back.get(file.path, file.path)) for file in news}
    keep = {file.path for file in news if not reread and _is_same_file(file, before[file.path])}
    for start in range(0, len(news), BATCH):
        if progress:
            progress(start, len(news))
        _take(index, folder, news[start : start + BATCH], keep)
    report.added.extend(file.path for file in news if file.path not in known and file.path not in back)
    report.changed.extend(file.path for file in news if file.path in known or file.path in back)
    report.removed.extend(lost)
    report.unreadable.extend(walk.unreadable)
    for littered in walk.littered:
        remove_stale(Path(littered))


def recheck(index: Index, models: Iterable[Installed]) -> bool:
    """Look at these files and their sidecars, and read those that changed; whether any did."""
    by_folder: dict[Path, list[str]] = {}
    for model in models:
        by_folder.setdefault(model.folder, []).append(str(model.path))
    changed = False
    for folder in index.folders():
        if paths := by_folder.get(folder.path):
            known = index.known(folder.path, paths)
            seen = {file.path: file for file in look_again(paths)}
            news = [file for file in seen.values() if _differs(file, known.get(file.path))]
            gone = [path for path in paths if path not in seen]
            if gone:
                with index.writing():
                    index.mark_missing(gone)
            _take(index, folder, news, {file.path for file in news if _is_same_file(file, known.get(file.path))})
            changed = changed or bool(news or gone)
    return changed


class _Read(NamedTuple):
    """What a file and its sidecars say."""

    file: Seen
    facts: Facts | None  # None: as they were
    own: Own
    origin: Origin | None


def _take(index: Index, folder: Folder, files: Sequence[Seen], keep: Collection[str]) -> None:
    """Read and store new or changed files; of those to keep, only sidecars or place changed."""
    if not files:
        return
    from hubtool.library.facts import Shapes, read_facts  # noqa: PLC0415  # a scan without news does without

    shapes = Shapes(index.shape)
    read = []
    for file in files:
        path = Path(file.path)
        facts = None if file.path in keep else read_facts(path, shapes)
        own, origin = read_sidecars(path) if file.sidecars else (Own(), None)
        read.append(_Read(file, facts, own, origin))
    with index.writing():
        index.remember_shapes(shapes.fresh)
        for one in read:
            _store(index, folder, one)


def _store(index: Index, folder: Folder, one: _Read) -> None:
    file = one.file
    bare = Installed(Path(file.path), folder.path, folder.target, file.stamp, own=one.own, origin=one.origin)
    old = index.at(bare.path)  # now that nobody else writes: it may have been installed meanwhile
    if old and old.stamp == file.stamp:
        # what the installation knew of its origin is richer than a sidecar
        fresh = replace(
            bare, digests=old.digests, facts=one.facts or old.facts, origin=None if old.origin else one.origin
        )
    elif one.facts:
        index.forget_origin(file.path)
        fresh = replace(bare, facts=one.facts, origin=_of_same_version(one.origin, old))
    else:  # moved or replaced since it was looked at: the next scan will see
        return
    index.store(fresh, file.sidecars)


def _of_same_version(said: Origin | None, old: Installed | None) -> Origin | None:
    """What a sidecar says of a file that changed; whose numbers these are it cannot say, but the installation knew."""
    was = old.origin if old else None
    if not said or not was or (said.model_id, said.version_id) != (was.model_id, was.version_id):
        return said
    return replace(said, hub=was.hub, file_id=was.file_id)


def _differs(file: Seen, before: Known | None) -> bool:
    return (
        before is None
        or before.missing
        or before.outdated
        or (before.stamp, before.sidecars) != (file.stamp, file.sidecars)
    )


def _is_same_file(file: Seen, before: Known | None) -> bool:
    """Whether nothing but its sidecars or its name changed."""
    return before is not None and before.stamp == file.stamp and not before.outdated


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
