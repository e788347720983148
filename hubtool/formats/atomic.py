"""Output appears whole or not at all: a temporary file beside its place, synced, renamed.

Written to the target's own folder so that the rename stays on one file system; dot-prefixed and without a
model extension so that no UI that scans the folder picks it up half-written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import IO, TYPE_CHECKING, NoReturn

from hubtool.errors import DiskFull, OutputExists, StorageProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def atomic_output(path: Path, *, force: bool = False) -> Iterator[IO[bytes]]:
    """A binary file that takes the name `path` when the block ends without an error.

    On any error, Ctrl-C included, nothing is left behind and an older file at `path` stays as it was.

    Raises:
        OutputExists: something is at `path` and `force` is false.
        DiskFull: no space left.
        StorageProblem: any other refusal of the file system, or a folder, pipe or device is at `path`.
    """
    if not force and os.path.lexists(path):
        raise OutputExists(path)
    temporary = path.parent / f".hubtool-{os.urandom(6).hex()}.tmp"
    try:
        if path.exists() and not path.is_file():  # --force as root could replace /dev/null by a file
            raise StorageProblem(path, "not a regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb", buffering=1 << 18) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path, force=force)
        sync_folder(path.parent)
    except OSError as error:
        reraise(error, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _publish(temporary: Path, path: Path, *, force: bool) -> None:
    """Rename; without `force`, never over something that came into being meanwhile."""
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # fails if the name is taken, which rename would not
    except FileExistsError as error:
        raise OutputExists(path) from error
    except OSError:  # no hard links here (FAT, some network shares)
        if os.path.lexists(path):
            raise OutputExists(path) from None
        temporary.replace(path)


def write_text(path: Path, text: str, *, force: bool = False) -> None:
    """Write a small UTF-8 file atomically."""
    with atomic_output(path, force=force) as file:
        file.write(text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power loss (POSIX; elsewhere there is nothing to do)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def reraise(error: OSError, path: Path) -> NoReturn:
    """Turn an `OSError` about `path` into ours, as one sentence.

    Raises:
        DiskFull: no space, quota or file-size limit.
        StorageProblem: anything else.
    """
    reason = (error.strerror or str(error)).rstrip(".")
    if error.errno in _FULL:
        raise DiskFull(path, reason) from error
    raise StorageProblem(path, reason) from error
