"""How long to keep trying: which failures pass, how long to wait between tries, and when to give up."""

from __future__ import annotations

import random
import re
import threading
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from hubtool.errors import NetworkFailure, RateLimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.errors import HubProblem
    from hubtool.settings import Settings

TRIES = 5  # failures in a row that are borne; the sixth is final
GAIN_BYTES = 1 << 20  # so much new data makes the count start again
FLOOR_BYTES = 64 << 10  # less than this in `give_up_s` is no progress
LONGEST_WAIT_S = 300.0  # of all waits that servers asked for together


class TryAgain(Exception):  # never leaves this package: Patience turns it into `problem`
    """A failure that may pass; `problem` is what to report if it does not."""

    def __init__(self, problem: HubProblem, *, after_s: float | None = None, weight: int = 1) -> None:
        super().__init__(str(problem))
        self.problem = problem
        self.after_s = after_s  # the server's own wish
        self.weight = weight  # how many of TRIES it uses up


class Patience:
    """The budget of one operation (one JSON answer, one file). Give it every failure and every progress."""

    def __init__(self, settings: Settings, *, stop: threading.Event | None = None) -> None:
        self._unit_s = settings.timeout_s / 20  # 1 s by default
        self._give_up_s = settings.give_up_s
        self._stop = stop or threading.Event()
        self._failures = self._idle_failures = 0
        self._counted = self._best = 0  # bytes at the last restart of the count; the most so far
        self._failed_at = 0  # bytes at the last failure
        self._waited_s = 0.0
        self._window_start, self._window_bytes = time.monotonic(), 0

    def progress(self, done: int) -> None:
        """Note that `done` bytes are there.

        Raises:
            NetworkFailure: less than FLOOR_BYTES arrived in the time after which to give up.
        """
        self._best = max(self._best, done)
        if self._best - self._window_bytes >= FLOOR_BYTES:
            self._window_start, self._window_bytes = time.monotonic(), self._best
        elif time.monotonic() - self._window_start > self._give_up_s:
            got = self._best - self._window_bytes
            raise NetworkFailure(f"The transfer stalled: {got} bytes in {self._give_up_s:.0f} s.")

    def paused(self, seconds: float) -> None:
        """Note that nothing was asked for during the last `seconds`, for a limit on the rate."""
        self._window_start += seconds

    def restart(self) -> None:
        """Note that everything begins at zero bytes again."""
        self._best = self._counted = self._failed_at = self._window_bytes = 0
        self._window_start = time.monotonic()

    def failed(self, failure: TryAgain, done: int = 0) -> None:
        """Wait as long as is sensible after a failure, or raise if that was the last try.

        Raises:
            HubProblem: the failure's own, or NetworkFailure for a transfer that does not move.
        """
        idle, self._failed_at = done <= self._failed_at, done
        self.progress(done)
        if self._best - self._counted >= GAIN_BYTES:
            self._counted, self._failures = self._best, 0
        # who was there a moment ago may come back: a network that drops is not a wrong address
        self._failures += min(failure.weight, 1) if self._best else failure.weight
        self._idle_failures = self._idle_failures + (failure.weight > 0) if idle else 0
        wish = failure.after_s or 0.0
        if self._failures > TRIES or self._waited_s + wish > LONGEST_WAIT_S:
            raise failure.problem from failure
        self._waited_s += wish
        # full jitter: many clients that failed together must not come back together
        jitter = random.uniform(0, self._unit_s * min(30, 2 ** max(0, self._idle_failures - 1)))  # noqa: S311  # no secret
        started = time.monotonic()
        self._stop.wait(max(wish, jitter))
        self._window_start += time.monotonic() - started


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number or a date; None if it is absent or nonsense.

    >>> retry_after_s("2"), retry_after_s("-5"), retry_after_s("soon")
    (2.0, None, None)
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 16:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def wished_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait: Retry-After, or what is left of Hugging Face's `RateLimit` window.

    >>> wished_wait_s({"ratelimit": '"api";r=0;t=55'})
    56.0
    """
    stated = retry_after_s(headers.get("retry-after"))
    if stated is not None:
        return stated
    window = re.search(r";\s*t=(\d{1,6})\b", headers.get("ratelimit", ""), re.ASCII)
    return float(window[1]) + 1 if window else None


def busy(status: int, message: str, url: str, after_s: float | None) -> TryAgain:
    """The failure of an answer that asks to come back later (408, 425, 429, 5xx)."""
    if status == 429:
        return TryAgain(RateLimited(message, url=url, retry_after_s=after_s), after_s=after_s)
    return TryAgain(NetworkFailure(message, url=url), after_s=after_s)
