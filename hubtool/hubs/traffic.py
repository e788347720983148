"""What every connection of one run knows about the hosts it talks to: who asked for silence, who is down, how fast to ask.

It also knows how fast to fetch, and how many connections a host has been seen to reward.

One object is shared by all hubs and workers of a run, and forgotten with it: a host that was down a minute ago may be up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import NetworkFailure, RateLimited
from hubtool.hubs.rate import Rate
from hubtool.hubs.retry import TryAgain, wished_wait_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FAILURES_IN_A_ROW = 12  # two whole operations; then the host is left alone
REST_S = 30.0
LONGEST_SILENCE_S = 3600.0
_BUSY = {408, 425, 429}


@dataclass(slots=True)
class _Host:
    """What is known about one host."""

    quiet_until: float = 0.0  # monotonic
    failures: int = 0  # in a row
    resting_until: float = 0.0
    next_turn: float = 0.0  # the bucket's own clock: when it would be full again
    files: int = 0  # on their way now
    is_shy: bool = False  # said that it has enough to do
    connections: int | None = None  # of one file that pay, where that was measured
    lock: threading.Lock = field(default_factory=threading.Lock)


class Traffic:
    """Rules of the road; threads share it."""

    def __init__(
        self, rate: Rate | None = None, *, requests_s: float = 5.0, burst: int = 10, rest_s: float = REST_S
    ) -> None:
        """An API is asked `requests_s` times a second, after a pause `burst` times at once. `rate` is that of all files."""
        self.rate = rate or Rate()
        self._interval_s, self._burst, self._rest_s = 1 / requests_s, burst, rest_s
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def admit(self, host: str, *, paced: bool, wait: Callable[[float], object] = time.sleep) -> None:
        """Let a request to `host` go, perhaps after a pause.

        Raises:
            TryAgain: the host asked for silence.
            NetworkFailure: it failed so often that it is left alone for a while.
        """
        known, now = self._host(host), time.monotonic()
        if known.quiet_until > now:
            left = known.quiet_until - now
            raise TryAgain(RateLimited(f"{host} asked for silence.", retry_after_s=left), after_s=left, weight=0)
        if known.resting_until > now:
            raise NetworkFailure(f"{host} failed {known.failures} times in a row and is left alone for a while.")
        if paced:
            wait(self._turn(known, now))

    def answered(self, host: str, status: int, headers: Mapping[str, str]) -> None:
        """Note an answer's header (names in lower case)."""
        known = self._host(host)
        if status == 429:
            wish = wished_wait_s(headers)
            if wish:  # every worker that talks to this host is held back
                known.quiet_until = time.monotonic() + min(wish, LONGEST_SILENCE_S)
        if status in {429, 503}:
            known.is_shy = True
        if status >= 500:
            self.failed(host)
        elif status not in _BUSY:
            known.failures, known.resting_until = 0, 0.0

    def failed(self, host: str) -> None:
        """Note that a host could not be reached, or failed."""
        known = self._host(host)
        with known.lock:
            known.failures += 1
            if known.failures >= FAILURES_IN_A_ROW:
                known.resting_until = time.monotonic() + self._rest_s

    @contextlib.contextmanager
    def carrying(self, host: str) -> Iterator[None]:
        """Count a file that comes from `host` during the block."""
        known = self._host(host)
        with known.lock:
            known.files += 1
        try:
            yield
        finally:
            with known.lock:
                known.files -= 1

    def connections(self, host: str) -> int | None:
        """How many connections to give a file unasked; None if that is to be found out.

        Files that come from one host at the same time are several connections already.
        """
        known = self._host(host)
        return 1 if known.is_shy or known.files > 1 else known.connections

    def learn(self, host: str, connections: int) -> None:
        """Note how many connections paid."""
        self._host(host).connections = connections

    def _host(self, host: str) -> _Host:
        with self._lock:
            return self._hosts.setdefault(host, _Host())

    def _turn(self, known: _Host, now: float) -> float:
        """Seconds until this request's turn in a bucket of `burst` that refills at one an interval."""
        with known.lock:
            known.next_turn = max(known.next_turn, now - self._burst * self._interval_s) + self._interval_s
            return max(0.0, known.next_turn - now)
