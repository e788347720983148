"""An installed LoRA taken away again: what we put there, as we put it there, and nothing else.

A file that somebody put into the folder by hand is `trash`'s business; so is a sidecar that was edited since.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem
from hubtool.formats.atomic import reraise, sync_folder
from hubtool.library.history import SUFFIX as HISTORY
from hubtool.library.marking import copies_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What became of one model."""

    name: str
    path: Path
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]  # changed since, by the user or another program
    status: str = "removed"  # or planned


def uninstall(
    index: Index, model: Installed, *, dry_run: bool = False, leaving: Sequence[Installed] = ()
) -> Uninstalled:
    """Delete what the installation of a model put there and nobody changed since; `leaving` are models that go with it.

    Raises:
        LibraryProblem: the model was not put there by an installation, or changed since, or links to it would be left.
        StorageProblem: the disk refuses.
    """
    placed = index.placed(model.path)
    if model.path not in placed:
        message = f"{model.name} was not put there by `hubtool install`."
        raise LibraryProblem(model.name, message, hint=f"`hubtool trash {shlex.quote(model.name)}` puts it away.")
    if _stamp(model.path) != placed[model.path]:
        message = f"{model.name} is another file than `hubtool install` put there: {model.path}"
        raise LibraryProblem(model.name, message, hint=f"`hubtool trash {shlex.quote(model.name)}` puts it away.")
    _refuse_dangling(index, model, leaving)
    same = [path for path, stamp in placed.items() if _stamp(path) == stamp]
    kept = tuple(path for path in placed if path not in same and path.exists())
    # the model last: while it is there, an interrupted command can be run again
    noted = [] if kept else [model.path.with_name(model.path.stem + HISTORY)]  # what is kept has its history
    order = sorted((path for path in [*same, *noted] if path.exists()), key=lambda path: path == model.path)
    if dry_run:
        return Uninstalled(model.name, model.path, tuple(order), kept, "planned")
    with index.writing():
        for path in order:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                reraise(error, path)
        sync_folder(model.path.parent)
        index.forget_placed(model.path)
        index.mark_missing([str(model.path)])
    return Uninstalled(model.name, model.path, tuple(order), kept)


def uninstall_everywhere(index: Index, model: Installed, *, dry_run: bool = False) -> Uninstalled:
    """Delete a model from every LoRA folder into which an installation put it under this name.

    Raises:
        LibraryProblem: no installation put it anywhere. StorageProblem: the disk refuses.
    """
    copies = [twin for twin in copies_of(index, model) if twin.name == model.name]
    ours = [twin for twin in (model, *copies) if twin.path in index.placed(twin.path)]
    ours.sort(key=lambda twin: not twin.path.is_symlink())  # links before what they lead to
    done = [uninstall(index, twin, dry_run=dry_run, leaving=ours) for twin in ours or [model]]
    removed = tuple(path for one in done for path in one.removed)
    return replace(done[0], removed=removed, kept=tuple(path for one in done for path in one.kept))


def _refuse_dangling(index: Index, model: Installed, leaving: Sequence[Installed]) -> None:
    going = {model.path, *(one.path for one in leaving)}
    links = [one.path for one in index.with_inode(model.stamp.inode) if one.path not in going]
    left = [path for path in links if path.is_symlink() and path.resolve() == model.path]
    if left:
        message = f"{left[0]} is a link to {model.path}, and would lead nowhere."
        raise LibraryProblem(model.name, message, hint="Uninstall that one, too, or first.")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
