"""Further connections for one file, each bringing stretches that lie ahead of the main stream.

They take exactly the bytes that they asked for, from exactly the file that the main stream is reading, or nothing. Whatever
else an answer is, helpers stand down and the main stream decides alone how the download ends: they can make it faster, not fail.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError, RateLimited
from hubtool.hubs.client import Terms
from hubtool.hubs.pieces import Field
from hubtool.hubs.retry import Patience, TryAgain

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubtool.hubs.client import Answer, Client
    from hubtool.hubs.part import Part
    from hubtool.hubs.pieces import Piece

USUAL_BYTES = 64 << 20  # of a stretch at most: so far the hash may lag behind
_ROUNDS = 4  # stretches a connection should get to fetch in a file
IDLE_TRIES = 2  # requests in a row that brought nothing, before a helper stands down
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_JOIN_S = 12.0  # a little more than making a connection may take


@dataclass(frozen=True, slots=True)
class Errand:
    """What helpers fetch, and by what they know it."""

    address: Callable[[], tuple[str, bool]]  # where it is now, and whether that is a lease, which gets no token
    named: str  # the address that the user gave
    total: int  # bytes of the whole file
    etag: str
    least: int  # bytes that are worth a connection
    came: Callable[
        [int], float
    ]  # is told of bytes; waits if there is a limit on the rate, and says for how many seconds


class Team:
    """The helpers of one file. Only the main stream's thread calls its methods."""

    def __init__(self, client: Client, part: Part, errand: Errand) -> None:
        self._client, self._part, self._errand = client, part, errand
        self._wanted, self._usual = 1, 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def is_closed(self) -> bool:
        """Whether a server showed that it is no use to ask it for parts."""
        return self._stop.is_set()

    def resize(self, connections: int) -> None:
        """Have so many connections, the main stream's included; those too many end with the stretch at hand."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._wanted = connections
        if connections > 1 and not self._usual:
            left = (self._errand.total - self._part.present) // (_ROUNDS * connections)
            self._usual = max(self._errand.least, min(USUAL_BYTES, left))
        for _ in range(len(self._threads), connections - 1):
            if self.is_closed:
                return
            self._part.begin_journal()
            thread = threading.Thread(
                target=self._help, args=(len(self._threads) + 2,), name="hubtool-helper", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def lend_a_hand(self) -> bool:
        """Fetch one stretch in the calling thread; False if there is none, or if it cannot be had."""
        piece = None if self.is_closed else self._claim()
        return piece is not None and self._bring(piece)

    def dismiss(self) -> None:
        """End all help. Nothing is written into the part after this, even if a thread should outlive it."""
        self._stop.set()
        self._part.pieces.release_all()
        self._client.hang_up({thread.ident or 0 for thread in self._threads})
        for thread in self._threads:
            thread.join(_JOIN_S)

    # ------------------------------------------------------------ in the helpers' threads

    def _help(self, number: int) -> None:
        while number <= self._wanted and not self.is_closed:
            piece = self._claim()
            if piece is None or not self._bring(piece):
                return

    def _claim(self) -> Piece | None:
        field = Field(self._part.size, self._errand.total, self._usual, self._errand.least)
        return self._part.pieces.claim(field)

    def _bring(self, piece: Piece) -> bool:
        """Fetch a stretch; False if this connection should not try another one."""
        patience, idle = Patience(self._client.settings, stop=self._stop), 0
        try:
            while piece.live and piece.done < piece.end:
                before = piece.done
                try:
                    self._ask(piece, patience)
                    if piece.done == before:
                        return False
                except TryAgain as failure:
                    idle = 0 if piece.done > before else idle + 1
                    if idle >= IDLE_TRIES or self._is_final(failure):
                        return False
                    patience.failed(failure, piece.done)
        except HubtoolError:  # also the disk's: the main stream meets and reports it
            return False
        finally:
            self._part.pieces.release(piece)
        return not self.is_closed

    def _is_final(self, failure: TryAgain) -> bool:
        """A host that has enough to do is not asked for more at once."""
        if isinstance(failure.problem, RateLimited):
            self._stop.set()
        return self.is_closed

    def _ask(self, piece: Piece, patience: Patience) -> None:
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={piece.done}-{piece.end - 1}"}
        headers["If-Range"] = self._errand.etag
        url, leased = self._errand.address()
        if self.is_closed:
            return
        terms = Terms(with_token=not leased, is_extra=True)
        with self._client.open(url, headers, self._errand.named, terms) as answer:
            if not self._fits(answer, piece):
                self._stop.set()
                return
            for chunk in answer.chunks():
                if self._client.stop.is_set() or not self._part.write_ahead(piece, chunk):
                    return
                patience.progress(piece.done)
                patience.paused(self._errand.came(len(chunk)))

    def _fits(self, answer: Answer, piece: Piece) -> bool:
        """Whether the body is what was asked for, to the byte, of the same file."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        return (
            answer.status == 206
            and found is not None
            and int(found[1]) == piece.done
            and int(found[2]) < self._errand.total == int(found[3])
            and answer.headers.get("etag", self._errand.etag) == self._errand.etag
            and answer.headers.get("content-encoding", "identity").strip().lower() in {"", "identity"}
        )
