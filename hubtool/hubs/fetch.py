"""Bringing one part to completion over an unreliable network and an untrusted server.

Bytes are appended only where the answer proves where they begin. A signed address is a lease: it is used again after a
broken connection, and renewed when the storage refuses it. What cannot be trusted to continue is fetched anew as a whole.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from hubtool.errors import BadAnswer, NetworkFailure, WrongFile
from hubtool.hubs.part import Validators
from hubtool.hubs.refusals import problem_of
from hubtool.hubs.retry import FLOOR_BYTES, Patience, TryAgain
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
    limit_bytes_s: float | None = None


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
        floor = min(FLOOR_BYTES, int((conduct.limit_bytes_s or FLOOR_BYTES) * client.settings.give_up_s / 2))
        self._patience = Patience(client.settings, stop=client.stop, floor_bytes=floor)
        self._lease = ""
        self._renewals = self._restarts = 0
        self._may_range = True
        self._ended = False
        self.offered_names: tuple[str, str] = ("", "")  # the storage's Content-Disposition and (secret) address

    def run(self) -> None:
        """Fetch until the body ended as announced or the part has the promised hash.

        Raises:
            HubProblem: it cannot be had; the part holds what came, if that is worth keeping.
            StorageProblem: the disk refused.
        """
        while not self._is_complete():
            try:
                self._attempt()
            except TryAgain as failure:
                if not self._is_complete():
                    self._patience.failed(failure, self._part.size)

    def start_over(self) -> None:
        """Begin at zero with a fresh address, after a complete file turned out to be wrong."""
        self._lease, self._ended, self._may_range = "", False, False
        self._restart()

    def _is_complete(self) -> bool:
        """The hash alone decides where there is one: a server that announces too many bytes never ends its body."""
        return self._ended or bool(self._part.size and self._part.sha256 == self._promise.sha256)

    def _attempt(self) -> None:
        url, leased = self._lease or self._source.url, bool(self._lease)
        with self._client.open(url, self._headers(), self._source.named, with_token=not leased) as answer:
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
            headers["Range"] = f"bytes={part.size}-"
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
        if not span.start and self._part.size:
            self._restart()
        self.offered_names = (answer.headers.get("content-disposition", ""), answer.url)
        body = answer.chunks()
        start = b"" if self._part.size else self._first(body)
        if not self._part.size:
            check_start(start, self._promise, span.total)
        limit = self._promise.check_total(span.total)
        size = span.total if span.total is not None else self._promise.size_bytes
        with self._conduct.space.reserved(self._conduct.folder, lambda: max(0, (size or 0) - self._part.size)):
            self._part.remember(validators)
            self._store(chain([start], body), limit, size)
        self._ended = True

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
            self._ended = True
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
        part, began, before = self._part, time.monotonic(), self._part.size
        for chunk in chunks:
            if self._client.stop.is_set():
                raise NetworkFailure("The download was interrupted.")
            if part.size + len(chunk) > limit:
                raise WrongFile(f"{self._promise.name} does not end at the {limit} bytes that it should have.")
            part.write(chunk)
            self._patience.progress(part.size)
            self._conduct.report(part.size, size)
            if self._conduct.limit_bytes_s:
                due = began + (part.size - before) / self._conduct.limit_bytes_s
                self._client.stop.wait(max(0.0, due - time.monotonic()))


def _validators(answer: Answer, total: int | None) -> Validators:
    etag = answer.headers.get("etag", "")
    strong = etag if etag.startswith('"') else ""
    return Validators(strong, answer.headers.get("last-modified", ""), total)
