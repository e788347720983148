"""Bringing one part to completion over an unreliable network and an untrusted server.

Bytes are appended only where the answer proves where they begin. A signed address is a lease: it is used again after a
broken connection, and renewed when the storage refuses it. What cannot be trusted to continue is fetched anew as a whole.
Where several connections work on a file this is the main stream, which grows and hashes the part's beginning.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hubtool.errors import BadAnswer, NetworkFailure, WrongFile
from hubtool.hubs.client import Terms
from hubtool.hubs.part import Validators
from hubtool.hubs.refusals import problem_of
from hubtool.hubs.retry import Patience, TryAgain
from hubtool.hubs.team import Errand, Team
from hubtool.hubs.tempo import Figures, Tempo
from hubtool.hubs.verify import SNIFF_BYTES, check_start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hubtool.hubs.client import Answer, Client
    from hubtool.hubs.part import Part
    from hubtool.hubs.space import Space
    from hubtool.hubs.verify import Promise

MAX_RENEWALS = 3  # of a signed address, per file
MAX_RESTARTS = 5  # from byte zero, per file
AUTO_BYTES = 64 << 20  # a file of which less is missing gets one connection unless the user says otherwise
_GLANCE_S = 0.1  # between two looks at a helper that is waited for
_EXPIRED = {400, 401, 403, 404, 410}  # what a storage host says to an old signature
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is asked for."""

    url: str
    named: str  # the address that the user gave: redirects lead no further inside than that


@dataclass(frozen=True, slots=True)
class Conduct:
    """How to go about it."""

    space: Space
    folder: Path
    report: Callable[[int, int | None], None]  # bytes there, bytes in all
    least_bytes: int = 1 << 20  # fewer are not worth a connection


@dataclass(frozen=True, slots=True)
class _Span:
    """What an answer's body is: bytes from `start` on, of `total` in all."""

    start: int
    total: int | None


class Fetch:
    """One file on its way; `run` returns when the server says that it is all there."""

    def __init__(self, client: Client, source: Source, part: Part, promise: Promise, conduct: Conduct) -> None:
        self._client, self._source, self._part = client, source, part
        self._promise, self._conduct = promise, conduct
        self._patience = Patience(client.settings, stop=client.stop)
        self._team: Team | None = None
        self._tempo, self._host = Tempo(1), ""
        self._lease = ""
        self._renewals = self._restarts = 0
        self._may_range, self._is_alone = True, False
        self.has_ended = False  # all that the server has for this file is in the part, right or wrong
        self.offered_names: tuple[str, str] = ("", "")  # the storage's Content-Disposition and (secret) address

    def run(self) -> None:
        """Fetch until the body ended as announced or the part has the promised hash.

        Raises:
            HubProblem: it cannot be had; the part holds what came, if that is worth keeping.
            StorageProblem: the disk refused.
        """
        try:
            while not self._is_complete():
                try:
                    self._step()
                except TryAgain as failure:
                    if not self._is_complete():
                        self._patience.failed(failure, self._part.present)
        finally:
            self._dismiss()

    def start_over(self) -> None:
        """Begin at zero with a fresh address, after a complete file turned out to be wrong."""
        self._lease, self.has_ended, self._may_range = "", False, False
        self._restart()

    def _is_complete(self) -> bool:
        """The hash alone decides where there is one: a server that announces too many bytes never ends its body."""
        return self.has_ended or bool(self._part.size and self._part.sha256 == self._promise.sha256)

    def _step(self) -> None:
        """Bring the beginning forward: by what helpers brought, else by another request."""
        self._part.join()
        held = self._part.pieces.holder(self._part.size)
        if self._is_complete():
            return
        if held is None or self._team is None:
            self._attempt()
        elif not self._team.lend_a_hand() and held.live:
            self._client.stop.wait(_GLANCE_S)
            self._refuse_interrupted()
            self._patience.progress(self._part.present)

    def _attempt(self) -> None:
        url, leased = self._lease or self._source.url, bool(self._lease)
        with self._client.open(url, self._headers(), self._source.named, Terms(with_token=not leased)) as answer:
            if answer.status in {200, 206}:
                self._lease = answer.url if answer.redirected else self._lease
                self._receive(answer)
            elif answer.status == 416 and self._part.size:
                self._out_of_range(answer)
            elif answer.status in _EXPIRED and (leased or (answer.redirected and not answer.is_own)):
                self._renew(answer)
            else:
                raise problem_of(answer.refusal())

    def _headers(self) -> dict[str, str]:
        """A range only where something can prove that it fits: a strong validator, or the hash at the end."""
        part, headers = self._part, {"Accept-Encoding": "identity"}
        if part.size and not (self._may_range and (part.validators.if_range or self._promise.sha256)):
            self._restart()
        if part.size:
            room = part.pieces.room(part.size)
            headers["Range"] = f"bytes={part.size}-{'' if room is None else part.size + room - 1}"
            if part.validators.if_range:
                headers["If-Range"] = part.validators.if_range
        return headers

    # ------------------------------------------------------------ answers

    def _receive(self, answer: Answer) -> None:
        encoding = answer.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise WrongFile(f"{answer.host} sends {self._promise.name} compressed although that was declined.")
        span = self._span(answer)
        validators = _validators(answer, span.total)
        if span.start and not self._continues(span, validators):
            raise self._distrust(f"{answer.host} sends another part of the file than was asked for.")
        body, start = answer.chunks(), b""
        if not span.start:
            # before anything is thrown away: an error page must not cost what was fetched before
            start = self._first(body)
            check_start(start, self._promise, span.total)
        limit = self._promise.check_total(span.total)
        if not span.start and (self._part.size or (self._part.present and not self._continues(span, validators))):
            self._restart()
        self.offered_names = (answer.headers.get("content-disposition", ""), answer.url)
        size = span.total if span.total is not None else self._promise.size_bytes
        with self._conduct.space.reserved(self._conduct.folder, lambda: max(0, (size or 0) - self._part.present)):
            self._part.remember(validators)
            with self._client.traffic.carrying(urlsplit(answer.url).netloc):
                self._gather(answer, span)
                before = self._part.size
                self._store(chain([start], body), limit, size)
        self.has_ended = span.total is None or self._part.size >= span.total
        if not self.has_ended and self._part.size == before:
            raise TryAgain(NetworkFailure(f"{answer.host} sends nothing of what it announces."))

    def _span(self, answer: Answer) -> _Span:
        """What the body is, by its Content-Range rather than by its status: some servers honour a range with 200.

        Raises:
            TryAgain: an answer that cannot be placed; the next try asks for the whole file.
        """
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if match:
            return _Span(int(match[1]), None if match[3] == "*" else int(match[3]))
        if answer.status == 206:  # no Content-Range, or several parts in one body
            raise self._distrust(f"{answer.host} sends a part of the file without saying which.")
        length = answer.headers.get("content-length", "")
        return _Span(0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None)

    def _continues(self, span: _Span, new: Validators) -> bool:
        """Whether a partial body goes on exactly where the part ends, in the same file."""
        old = self._part.validators
        return (
            span.start == self._part.size
            and (old.total is None or span.total == old.total)
            and (not old.etag or not new.etag or old.etag == new.etag)
        )

    def _distrust(self, message: str) -> TryAgain:
        """The failure of a partial answer that does not fit; ranges are not asked for again."""
        if not self._may_range:
            raise BadAnswer(message)
        self._may_range = False
        return TryAgain(NetworkFailure(message))

    def _out_of_range(self, answer: Answer) -> None:
        """The storage says that the part is as long as the file, or longer."""
        total = answer.headers.get("content-range", "").strip().removeprefix("bytes */")
        if total == str(self._part.size):
            self.has_ended = True
        else:
            self._may_range = False
            self._restart()

    def _renew(self, answer: Answer) -> None:
        """An address that the storage no longer takes: ask the hub for a new one, and go on at the same byte."""
        refusal = answer.refusal()
        self._renewals += 1
        if self._renewals > MAX_RENEWALS:
            said = f": {refusal.says}" if refusal.says else "."
            raise NetworkFailure(
                f"The storage of {self._promise.name} refuses it ({refusal.status}){said}", url=refusal.url
            )
        self._lease = ""

    # ------------------------------------------------------------ bytes

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise NetworkFailure(f"{self._promise.name} was begun {MAX_RESTARTS} times and never came to its end.")
        self._dismiss()
        self._is_alone = True  # whatever made this necessary, it needs no more to go wrong
        self._part.restart()
        self._patience.restart()

    def _first(self, body: Iterator[bytes]) -> bytes:
        """The first chunks, held back until it is seen that they are of the right kind."""
        held = b""
        for chunk in body:
            held += chunk
            self._patience.progress(len(held))
            if len(held) >= SNIFF_BYTES:
                break
        return held

    def _store(self, chunks: Iterable[bytes], limit: int, size: int | None) -> None:
        part = self._part
        for chunk in chunks:
            self._refuse_interrupted()
            room = part.pieces.room(part.size, len(chunk))
            if room is not None and len(chunk) >= room:
                part.write(chunk[:room])
                return  # what follows is there, or on its way
            if part.size + len(chunk) > limit:
                self.has_ended = True
                raise WrongFile(f"{self._promise.name} does not end at the {limit} bytes that it should have.")
            part.write(chunk)
            self._patience.progress(part.present)
            self._conduct.report(part.present, size)
            self._patience.paused(self._came(len(chunk)))
            if self._team is not None and not self._tempo.is_settled:
                self._adjust(self._team)

    def _refuse_interrupted(self) -> None:
        if self._client.stop.is_set():
            raise NetworkFailure("The download was interrupted.")

    def _came(self, size_bytes: int) -> float:
        """Take the time that a limit on the rate asks for; the seconds it took."""
        wait_s = self._client.traffic.rate.taken(size_bytes)
        if wait_s:
            self._client.stop.wait(wait_s)
        return wait_s

    # ------------------------------------------------------------ several connections

    def _gather(self, answer: Answer, span: _Span) -> None:
        """Get help, where it is wanted and everything is there by which the pieces can be known to belong together."""
        etag = self._part.validators.etag
        takes_ranges = answer.status == 206 or "bytes" in answer.headers.get("accept-ranges", "")
        if self._team is None and not self._is_alone and span.total and takes_ranges and etag and self._promise.sha256:
            host = urlsplit(answer.url).netloc
            self._tempo, self._host = self._tempo_for(host, span.total - self._part.present), host
            if self._tempo.connections > 1 or not self._tempo.is_settled:
                self._team = Team(self._client, self._part, self._errand(span.total, etag))
        if self._team is not None:
            self._team.resize(self._tempo.connections)

    def _tempo_for(self, host: str, left_bytes: int) -> Tempo:
        """The user's number if there is one; else what was or is to be measured."""
        fixed, traffic = self._client.settings.connections, self._client.traffic
        if left_bytes < 2 * self._conduct.least_bytes:
            return Tempo(1)
        if fixed or left_bytes < AUTO_BYTES or traffic.rate.bytes_s:
            return Tempo(fixed or 1)
        return Tempo(learnt=traffic.connections(host))

    def _errand(self, total: int, etag: str) -> Errand:
        return Errand(
            address=lambda: (self._lease or self._source.url, bool(self._lease)),
            named=self._source.named,
            total=total,
            etag=etag,
            least=self._conduct.least_bytes,
            came=self._helped,
        )

    def _helped(self, size_bytes: int) -> float:
        """Take note of what a helper brought, in its thread."""
        self._conduct.report(self._part.present, self._part.validators.total)
        return self._came(size_bytes)

    def _adjust(self, team: Team) -> None:
        """Have as many connections as the measurement says by now."""
        tempo, traffic, before = self._tempo, self._client.traffic, self._tempo.connections
        if traffic.connections(self._host) == 1:  # it complained, or another file comes from there meanwhile
            tempo.give_up()
        else:
            present, total = self._part.present, self._part.validators.total or 0
            tempo.wish(Figures(time.monotonic(), present, total - present))
            if tempo.is_settled:
                traffic.learn(self._host, tempo.connections)
        if tempo.connections != before:
            team.resize(tempo.connections)

    def _dismiss(self) -> None:
        if self._team is not None:
            self._team.dismiss()
            self._team = None


def _validators(answer: Answer, total: int | None) -> Validators:
    etag = answer.headers.get("etag", "")
    strong = etag if etag.startswith('"') else ""
    return Validators(strong, answer.headers.get("last-modified", ""), total)
