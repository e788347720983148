"""A limit on bytes a second, over everything that shares the object."""

from __future__ import annotations

import threading
import time

_BURST_S = 0.25  # what was not used is lost, but for this much


class Rate:
    """A bucket that fills at `bytes_s` and may be overdrawn: who overdrew it waits. Without a figure nobody waits."""

    def __init__(self, bytes_s: float | None = None) -> None:
        self.bytes_s = bytes_s
        self._lock = threading.Lock()
        self._paid_until = 0.0  # monotonic: when everything taken so far will have been filled up again

    def taken(self, size_bytes: int) -> float:
        """Note that so many bytes came; the seconds to wait before the next ones are taken."""
        if not self.bytes_s:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now - _BURST_S) + size_bytes / self.bytes_s
            return max(0.0, self._paid_until - now)
