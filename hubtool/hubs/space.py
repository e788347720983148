"""Room on the disk, counted over all downloads that are under way."""

from __future__ import annotations

import contextlib
import shutil
import threading
from typing import TYPE_CHECKING

from hubtool.errors import DiskFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MARGIN = 1.05


class Space:
    """What running downloads still have to write, per volume. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[object, tuple[int, Callable[[], int]]] = {}

    @contextlib.contextmanager
    def reserved(self, folder: Path, remaining: Callable[[], int]) -> Iterator[None]:
        """Keep `remaining()` bytes (which shrinks as they are written) free for the block.

        Raises:
            DiskFull: they are not there.
        """
        key, volume = object(), folder.stat().st_dev
        with self._lock:
            wanted = remaining()
            others = sum(rest() for other, rest in self._pending.values() if other == volume)
            free = shutil.disk_usage(folder).free
            if wanted and free - others < wanted * _MARGIN:
                raise DiskFull(folder, f"{wanted} bytes are needed and {max(0, free - others)} are free")
            self._pending[key] = (volume, remaining)
        try:
            yield
        finally:
            with self._lock:
                del self._pending[key]
