"""Files that are the same: byte for byte, or with the same tensors under another header; and one copy instead of several.

Only files that could be equal are read: those of one size, or with equally many bytes of tensors.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import FileProblem, StorageProblem
from hubtool.formats.atomic import reraise, sync_folder
from hubtool.library.digest import hashed
from hubtool.library.litter import HIDDEN
from hubtool.library.placing import NO_HARD_LINK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are the same in one way."""

    kind: str  # bytes, tensors, near
    paths: tuple[Path, ...]  # hard links of one file count once
    wasted_bytes: int  # what all but one of them take up; of near ones, but for the largest
    cosine: float | None = None  # of near ones: the lowest between what the first does and what another does


@dataclass(frozen=True, slots=True)
class Linked:
    """What became of a group whose files were to be one."""

    freed_bytes: int
    left: tuple[Path, ...]  # a symbolic link, or on another disk than the first, or on one that has no hard links


def near_duplicates(index: Index, equal: Sequence[Group], progress: Callable[[Path], None]) -> list[Group]:
    """Groups of files that do the same to a model at another rank, dtype or dialect; of equal files, one is looked at.

    Raises:
        MissingExtra: torch is not there.
    """
    from hubtool.library.near import near_groups  # noqa: PLC0415  # torch: 1.4 s that equal files do without

    copies = {path for group in equal for path in group.paths[1:]}
    found = near_groups(index, [one for one in _once(index.adapters()) if one.path not in copies], progress)
    groups = [replace(_group("near", group.models), cosine=round(group.cosine, 4)) for group in found]
    return sorted(groups, key=lambda group: -group.wasted_bytes)


def duplicates(index: Index, progress: Callable[[Installed], None] | None = None) -> list[Group]:
    """Every group of files that are equal, those that waste most first. Files that cannot be read are passed over."""
    known = (_hashed(index, one, progress) for one in _alike(index.adapters()))
    readable = [one for one in known if one is not None]
    equal = _groups(readable, lambda one: one.digests.sha256)
    copies = {one.path for group in equal for one in group[1:]}
    singles = [one for one in readable if one.path not in copies]
    groups = [_group("bytes", group) for group in equal]
    groups += [_group("tensors", group) for group in _groups(singles, lambda one: one.digests.tensors_sha256)]
    return sorted(groups, key=lambda group: -group.wasted_bytes)


def _alike(models: Iterable[Installed]) -> list[Installed]:
    """Those that share the size of their tensors with another one."""
    sizes: dict[int, list[Installed]] = defaultdict(list)
    for one in _once(models):
        with contextlib.suppress(OSError):
            sizes[_tensor_bytes(one)].append(one)
    return [one for group in sizes.values() if len(group) > 1 for one in group]


def _once(models: Iterable[Installed]) -> list[Installed]:
    """A file and the links to it count once, under its own name."""
    inodes: dict[tuple[int, int], Installed] = {}
    for one in sorted(models, key=lambda one: one.path.is_symlink()):
        with contextlib.suppress(OSError):
            status = one.path.stat()
            inodes.setdefault((status.st_dev, status.st_ino), one)
    return list(inodes.values())


def _tensor_bytes(one: Installed) -> int:
    """The file without its header, whose length its first eight bytes say."""
    with one.path.open("rb") as file:
        return one.stamp.size_bytes - 8 - int.from_bytes(file.read(8), "little")


def _hashed(index: Index, one: Installed, progress: Callable[[Installed], None] | None) -> Installed | None:
    if progress and not one.digests.sha256:
        progress(one)
    with contextlib.suppress(FileProblem, StorageProblem):
        return hashed(index, one)
    return None


def _groups(models: Sequence[Installed], key: Callable[[Installed], str]) -> list[list[Installed]]:
    found: dict[str, list[Installed]] = defaultdict(list)
    for one in models:
        if key(one):
            found[key(one)].append(one)
    return [group for group in found.values() if len(group) > 1]


def _group(kind: str, models: Sequence[Installed]) -> Group:
    sizes = sorted(one.stamp.size_bytes for one in models)
    return Group(kind, tuple(one.path for one in models), sum(sizes[:-1]))


def link(group: Group) -> Linked:
    """Replace the files of a group of equal bytes by hard links to the first of them on the same disk.

    Symbolic links stay, and so does what the disk cannot link.

    Raises:
        StorageProblem: the disk refuses otherwise; every file is whole all the same.
    """
    freed, left = 0, []
    firsts: dict[int, Path] = {}  # by disk
    for path in group.paths:
        status = path.stat()
        if path.is_symlink():
            left.append(path)
            continue
        first = firsts.setdefault(status.st_dev, path)
        if first != path and _replaced(path, first):
            freed += status.st_size
        elif path != next(iter(firsts.values())):
            left.append(path)
    return Linked(freed, tuple(left))


def _replaced(path: Path, first: Path) -> bool:
    """Whether a file is a hard link to another one now; not so where the disk has no such links."""
    temporary = path.with_name(f"{HIDDEN}{secrets.token_hex(6)}.tmp")
    try:
        os.link(first, temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in NO_HARD_LINK:
            return False
        reraise(error, path)
    return True
