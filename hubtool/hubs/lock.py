"""One writer per destination, on one machine: an advisory lock on a file beside the part.

The kernel releases it when its holder dies, so nothing can be left locked. Where locks do nothing (some network file
systems) that is noticed, and the caller works under a name of its own; the hash check would catch two writers anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem
from hubtool.formats.atomic import reraise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_S = 0.1
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def sole_writer(path: Path, measure: Callable[[], int], patience_s: float) -> Iterator[bool]:
    """Hold the lock file `path` (removed at the end); yields False where the file system has no working locks.

    Waits for another holder as long as `measure` (its bytes so far) changes within `patience_s`.

    Raises:
        StorageProblem: another process holds it and does not move, or the folder cannot be written.
    """
    descriptor = _waited_for(path, measure, patience_s)
    try:
        yield _works(path)
    finally:
        # removed while still held: whoever waits sees that its file has no name any more, and begins anew
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _waited_for(path: Path, measure: Callable[[], int], patience_s: float) -> int:
    seen, since = measure(), time.monotonic()
    while True:
        descriptor = _opened(path)
        if _try_lock(descriptor) and _is_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())  # for whoever wonders
            return descriptor
        os.close(descriptor)
        now = measure()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise StorageProblem(path, "another process has been downloading this file and does not move")
        time.sleep(_POLL_S)


def _opened(path: Path) -> int:
    try:
        return os.open(path, _FLAGS, 0o600)
    except OSError as error:
        reraise(error, path)


def _works(path: Path) -> bool:
    """Whether a second opening of the held file is refused, as it must be."""
    try:
        second = os.open(path, os.O_RDWR)
    except OSError:
        return True  # Windows refuses even that
    try:
        return not _try_lock(second)
    finally:
        os.close(second)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the locked file still has the name; its former holder may have removed it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno not in _HELD
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        """Take the lock if it is free; a file system without locks always says yes."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _HELD
        return True
