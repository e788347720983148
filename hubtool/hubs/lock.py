"""One writer per destination: an advisory lock on a file beside the part, by filelock.

The kernel releases it when its holder dies, so nothing can be left locked. Where locks do nothing (some network file
systems) that is noticed, and the caller works under a name of its own; the hash check would catch two writers anyway.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from hubtool.errors import StorageProblem
from hubtool.formats.atomic import reraise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_POLL_S = 0.1


@contextlib.contextmanager
def sole_writer(path: Path, measure: Callable[[], int], patience_s: float) -> Iterator[bool]:
    """Hold the lock file `path` (removed at the end); yields False where the file system has no working locks.

    Waits for another holder as long as `measure` (its bytes so far) changes within `patience_s`.

    Raises:
        StorageProblem: another process holds it and does not move, or the folder cannot be written.
    """
    lock = FileLock(path, mode=0o600, thread_local=False)
    _wait_for(lock, path, measure, patience_s)
    try:
        yield not _taken(FileLock(path, mode=0o600, thread_local=False), path)
    finally:
        # removed while still held: whoever waits sees that its file has no name any more, and begins anew
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()


def _wait_for(lock: FileLock, path: Path, measure: Callable[[], int], patience_s: float) -> None:
    seen, since = measure(), time.monotonic()
    while True:
        if _taken(lock, path):
            if path.exists():
                return
            lock.release()  # its former holder removed it just then
            continue
        now = measure()
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > patience_s:
            raise StorageProblem(path, "another process has been downloading this file and does not move")
        time.sleep(_POLL_S)


def _taken(lock: FileLock, path: Path) -> bool:
    """Take the lock if it is free."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    except OSError as error:
        reraise(error, path)
    return True
