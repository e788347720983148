"""An installed LoRA taken away again: what we put there, as we put it there, and nothing else.

A file that somebody put into the folder by hand is `trash`'s business; so is a sidecar that was edited since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem
from hubtool.formats.atomic import reraise, sync_folder

if TYPE_CHECKING:
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


def uninstall(index: Index, model: Installed, *, dry_run: bool = False) -> Uninstalled:
    """Delete what the installation of a model put there and nobody changed since.

    Raises:
        LibraryProblem: the model was not put there by an installation. StorageProblem: the disk refuses.
    """
    placed = index.placed(model.path)
    if model.path not in placed:
        message = f"{model.name} was not put there by `hubtool install`."
        raise LibraryProblem(model.name, message, hint=f"`hubtool trash {model.name}` puts it away.")
    same = [path for path, stamp in placed.items() if _stamp(path) == stamp or path == model.path]
    kept = tuple(path for path in placed if path not in same and path.exists())
    # the model last: while it is there, an interrupted command can be run again
    order = sorted((path for path in same if path.exists()), key=lambda path: path == model.path)
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


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
