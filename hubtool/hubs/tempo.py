"""How many connections a file gets: one, and more only as long as each step is seen to pay.

Several help where a server caps each stream, and nowhere else, so that is measured: once the first connection has run
for a while a second one is opened, and kept if both together bring a quarter more; then two further ones likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST = 4  # unless the user names a number
GAIN = 1.25  # the least that a step must bring
SETTLE_S = 1.0  # connections begin slowly
MEASURE_S = 2.0
WORTH_S = 8.0  # what is done sooner than this needs no help


@dataclass(frozen=True, slots=True)
class Figures:
    """Where a transfer is at some moment."""

    at_s: float
    done_bytes: int
    left_bytes: int


class Tempo:
    """The decision for one file. Give it the figures often; it answers with the number of connections to have now."""

    def __init__(self, fixed: int | None = None, learnt: int | None = None) -> None:
        """`fixed` is the user's number; `learnt` what measuring an earlier file of the same host showed."""
        self.connections = fixed or learnt or 1
        self.is_settled = bool(fixed or learnt)  # there is nothing (more) to find out
        self._before = 0.0  # bytes a second of the step before
        self._began_s: float | None = None
        self._from: Figures | None = None  # where the measurement began

    def wish(self, now: Figures) -> int:
        """The number of connections to have."""
        if self.is_settled:
            return self.connections
        if self._began_s is None:
            self._began_s = now.at_s
        elif self._from is None:
            self._from = now if now.at_s - self._began_s >= SETTLE_S else None
        elif now.at_s - self._from.at_s >= MEASURE_S:
            rate = (now.done_bytes - self._from.done_bytes) / (now.at_s - self._from.at_s)
            self._judge(rate, now.left_bytes)
        return self.connections

    def give_up(self) -> None:
        """One connection from now on."""
        self.connections, self.is_settled = 1, True

    def _judge(self, rate: float, left_bytes: int) -> None:
        if self._before and rate < GAIN * self._before:
            self.connections //= 2
            self.is_settled = True
        elif self.connections < MOST and left_bytes > WORTH_S * rate:
            self.connections *= 2
            self._before, self._began_s, self._from = rate, None, None
        else:
            self.is_settled = True
