"""How a file gets into a LoRA folder: prepared beside its place under a hidden name, then named in one step.

A program that scans the folder sees no file or the whole file, and nothing that is there is overwritten unasked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING, Literal

from hubtool.errors import OutputExists, StorageProblem
from hubtool.formats.atomic import reraise, sync_folder
from hubtool.formats.copying import Piece, copy_pieces
from hubtool.formats.safetensors import open_regular
from hubtool.library.litter import HIDDEN, remove_stale

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Way = Literal["own", "copy", "hard", "sym"]
#: What a disk answers that has no hard links, no more of them, or none to another disk.
NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})


@contextlib.contextmanager
def prepared(source: Path, folder: Path, way: Way) -> Iterator[Path]:
    """The file under a temporary name in `folder`, durable and ready for `publish`; removed if that did not happen.

    `own` is for a source that is ours and may be changed together with the result: linked, or copied where `folder` is
    on another disk. The source stays in every case, so that a failure loses nothing.

    Raises:
        DiskFull, StorageProblem: the disk refuses, or cannot make such a link.
    """
    temporary = folder / f"{HIDDEN}{secrets.token_hex(6)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        _bring(source, temporary, way)
        yield temporary
    except OSError as error:
        reraise(error, folder)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish(temporary: Path, path: Path, *, replace: bool = False) -> None:
    """Give a prepared file its name.

    Raises:
        OutputExists: the name is taken, and it was not to be replaced.
        StorageProblem: the disk refuses.
    """
    try:
        if replace:
            temporary.replace(path)
        else:
            _name(temporary, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise OutputExists(path, hint="Use `--force` to replace it, or another name with `--name`.") from error
    except OSError as error:
        reraise(error, path)


def _name(temporary: Path, path: Path) -> None:
    """Rename, failing where the name is taken; a plain rename would not."""
    if not temporary.is_symlink():
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # no hard links here: FAT, some network shares
            pass
        else:
            return
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists", str(path))
    temporary.rename(path)


def _bring(source: Path, temporary: Path, way: Way) -> None:
    if way == "sym":
        temporary.symlink_to(source.resolve(strict=True))
    elif way == "copy" or not _linked(source.resolve(strict=True), temporary):
        if way == "hard":
            reason = (
                "a hard link to it cannot be made from the LoRA folder (another disk, or a file system without them)"
            )
            raise StorageProblem(source, reason)
        _copy(source, temporary)


def _linked(source: Path, temporary: Path) -> bool:
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno in NO_HARD_LINK:
            return False
        raise
    return True


def _copy(source: Path, temporary: Path) -> None:
    file = open_regular(source)
    with temporary.open("xb") as out:
        copy_pieces(out, [Piece(file.descriptor, 0, file.size)])
        out.flush()
        os.fsync(out.fileno())
