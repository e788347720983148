"""The HTTP client: the only place that speaks the protocol, holds the token and decides who gets it.

Redirects are followed by hand. Every hop has headers of its own; the token goes out on the first one only, and only to
the hub's own origins, for storage hosts refuse a request that carries it and others would learn it.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

import hubtool
from hubtool.errors import BadAnswer, HubProblem, NeedsToken, NetworkFailure, NotFound, Offline
from hubtool.hubs.addresses import Reach, literal_reach, next_address, origin, public_url
from hubtool.hubs.answers import Answers
from hubtool.hubs.connection import Connection
from hubtool.hubs.decoding import decoded
from hubtool.hubs.environment import open_http
from hubtool.hubs.failures import translated
from hubtool.hubs.question import Question, Reply
from hubtool.hubs.redaction import redact_logs
from hubtool.hubs.refusals import Refusal, problem_of
from hubtool.hubs.retry import Patience, TryAgain
from hubtool.hubs.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from hubtool.hubs.question import Site
    from hubtool.settings import Settings

USER_AGENT = f"hubtool/{hubtool.__version__} (+https://github.com/hubtool/hubtool)"
MAX_HOPS = 5
_WHOLE_ANSWERS = 10  # × the time to give up: longer than this no small answer may take, however steadily it trickles
_READ_BYTES = 256 << 10  # at once: what stays in the processor's cache
_ERROR_BYTES = 64 << 10  # read of an error's body
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer to a request, its body not yet read."""

    url: str = field(repr=False)  # may be signed: a secret
    status: int
    headers: Mapping[str, str]  # names in lower case
    redirected: bool
    is_own: bool  # by one of the hub's own origins
    token: str = field(repr=False)  # that was sent along, or nothing
    error_s: float  # for how long the body of an error is read
    _response: httpx.Response = field(repr=False)

    @property
    def host(self) -> str:
        """Who answered."""
        return urlsplit(self.url).hostname or ""

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes, nothing decoded.

        Raises:
            TryAgain: the connection broke, or was silent for too long.
        """
        length = self.headers.get("content-length", "") if "transfer-encoding" not in self.headers else ""
        with translated(self.url):
            # without a size: re-chunking costs 40 % of the throughput
            body = self._response.iter_raw()
            first = next(body, b"")
            yield first
            if re.fullmatch(r"[0-9]{1,18}", length):
                yield from self._from_socket(int(length) - len(first))
            else:
                yield from body

    def _from_socket(self, left: int) -> Iterator[bytes]:
        """The rest of a body whose length is known: the parser held nothing back, and costs a third of the time."""
        stream = self._response.extensions["network_stream"]
        while left > 0:
            chunk = stream.read(min(_READ_BYTES, left), timeout=self.error_s)
            if not chunk:
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            left -= len(chunk)
            yield chunk

    def decoded(self) -> Iterator[bytes]:
        """The body as it comes, decompressed in pieces of bounded size.

        Raises:
            BadAnswer: it is damaged, or compressed in a way that was not asked for.
        """
        with translated(self.url):
            yield from decoded(self.chunks(), self.headers.get("content-encoding", ""))

    def refusal(self) -> Refusal:
        """The answer as an error, with as much of its body as comes soon and can be read."""
        body, began = bytearray(), time.monotonic()
        with contextlib.suppress(BadAnswer):  # the refusal counts, not how it is packed
            for chunk in self.decoded():
                body += chunk
                if len(body) >= _ERROR_BYTES or time.monotonic() - began > self.error_s:
                    break
        said = self.without_token(bytes(body))
        return Refusal(self.status, said, self.headers, public_url(self.url), bool(self.token))

    def without_token(self, body: bytes) -> bytes:
        """A body without the token, which some hubs echo; nothing that is shown or kept may hold it."""
        return body.replace(self.token.encode(), b"[your key]") if self.token else body


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a request is made."""

    with_token: bool = True  # the hub's own origins get it
    body: bytes | None = None  # makes it a POST, which is not redirected
    is_extra: bool = False  # one of several for the same file: its failure says nothing about the host


_USUAL = Terms()


class Client:
    """Connections to one hub and to the storage it points to. Threads may share it."""

    def __init__(self, site: Site, settings: Settings, traffic: Traffic | None = None) -> None:
        """`traffic` is what all clients of one run share."""
        self.site = site
        self.settings = settings
        self.answers = Answers(settings.directories.data / "answers")
        self.traffic = traffic or Traffic()
        self._lines: set[Connection] = set()
        self._seen: dict[str, Reach] = {}  # where hosts were really met
        self.stop = threading.Event()
        redact_logs()

    @cached_property
    def _http(self) -> httpx.Client:
        # this machine is reached without any proxy
        is_here = literal_reach(urlsplit(self.site.base).hostname or "") is Reach.LOCAL
        return open_http(self.settings.timeout_s, proxies=not is_here)

    def get_json(
        self, path: str, parameters: Sequence[tuple[str, str]] = (), refusal: Callable[[object], str] = lambda _: ""
    ) -> object:
        """What the hub's API answers, parsed; offline, what it answered last.

        `refusal` says in words what an answer with status 200 has against the question, where a hub refuses so.

        Raises:
            HubProblem: any refusal, as its own type; NetworkFailure when all tries failed; BadAnswer if it is no JSON;
                Offline if it was never asked this.
        """
        return self.get_reply(path, parameters, refusal).value(self.url(path, parameters))

    def get_reply(
        self, path: str, parameters: Sequence[tuple[str, str]] = (), refusal: Callable[[object], str] = lambda _: ""
    ) -> Reply:
        """As `get_json`, unparsed and with the answer's header. Alternate addresses are asked when the first one fails."""
        url = self.url(path, parameters)
        if self.settings.offline:
            kept = self.answers.latest(url)
            if kept is None:
                self.refuse_offline(url)
            return Reply(kept.body if kept else b"")
        try:
            reply = self._first_reply([Question(self._url(base, path, parameters)) for base in self._bases], refusal)
        except NotFound as error:
            kept = self.answers.latest(url)
            if kept is not None:
                error.hint = f"It was there on {kept.at[:10]}: `--offline` shows what was known then."
            raise
        # only now: what an outage or a deletion answers must not take the place of what was known
        self.answers.keep(url, reply.body)
        return reply

    @property
    def _bases(self) -> list[str]:
        return [self.site.base, *self.site.alternates]

    def _first_reply(self, questions: Sequence[Question], refusal: Callable[[object], str] = lambda _: "") -> Reply:
        """The answer in JSON of the first address that has one; if none has, what the first one said."""
        first: HubProblem | None = None
        for question in questions:
            try:
                return self._sound_reply(question, refusal)
            except (NotFound, NetworkFailure, BadAnswer) as error:
                first = first or error
        raise first or NetworkFailure("There is no address to ask.")

    def _sound_reply(self, question: Question, refusal: Callable[[object], str]) -> Reply:
        reply = self.ask(question)
        said = refusal(reply.value(question.url))
        if said:
            raise NotFound(f"{urlsplit(question.url).hostname} answered: {said}", url=public_url(question.url))
        return reply

    def url(self, path: str, parameters: Sequence[tuple[str, str]] = ()) -> str:
        """The address of a path of this hub."""
        return self._url(self.site.base, path, parameters)

    @staticmethod
    def _url(base: str, path: str, parameters: Sequence[tuple[str, str]]) -> str:
        return str(httpx.URL(base + path, params=list(parameters)) if parameters else base + path)

    def post_json(self, path: str, value: object) -> object:
        """What the hub's API answers to a JSON body. As `get_json`, but nothing is kept."""
        headers, body = {"Content-Type": "application/json"}, json.dumps(value).encode()
        questions = [Question(base + path, headers=headers, body=body) for base in self._bases]
        return self._first_reply(questions).value(self.url(path))

    def get_bytes(self, url: str, limit: int) -> bytes:
        """A small file (a picture) that the hub's answer names; never with the token.

        Raises:
            HubProblem: it cannot be had, or is larger than `limit` bytes.
        """
        target = next_address(f"{self.site.base}/", url, self.site.base)
        return self.ask(Question(target, limit, with_token=False)).body

    def get_range(self, url: str, first: int, length: int) -> bytes:
        """`length` bytes of a file from `first` on, or fewer at its end.

        Raises:
            BadAnswer: the storage sends whole files only.
        """
        headers = {"Range": f"bytes={first}-{first + length - 1}", "Accept-Encoding": "identity"}
        reply = self.ask(Question(url, length, headers=headers, statuses=frozenset({206})))
        if not reply.headers.get("content-range", "").startswith(f"bytes {first}-"):
            raise BadAnswer(f"{origin(url)} sends another part of the file than was asked for.", url=public_url(url))
        return reply.body

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str], named: str, terms: Terms = _USUAL) -> Iterator[Answer]:
        """Ask for a URL and follow redirects by hand to the answer that is none.

        `named` is the address that the user gave: redirects lead no further inside than that. The answer may have any
        status but those of redirects.

        Raises:
            TryAgain: no connection, or it broke.
            UnsafeAddress: a redirect leads where it must not.
            BadAnswer: more than MAX_HOPS redirects, or one that leads nowhere.
            Offline: the settings forbid any connection.
        """
        self.refuse_offline(url)
        if self.stop.is_set():
            raise NetworkFailure("The transfer was interrupted.", url=public_url(url))
        target, first = url, True
        for _ in range(MAX_HOPS + 1):
            is_own = origin(target) in self.site.origins
            token = self.site.token if first and terms.with_token and is_own else ""
            with self._send(_Request(target, headers, token, terms), named) as response:
                if response.status_code not in _REDIRECTS:
                    plain = {name.lower(): value for name, value in response.headers.items()}
                    limit_s, status = self.settings.timeout_s, response.status_code
                    yield Answer(target, status, plain, not first, is_own, token, limit_s, response)
                    return
                location = response.headers.get("location")
            if not location or terms.body is not None:
                raise BadAnswer(f"{origin(target)} redirects without saying where to.", url=public_url(target))
            onward = next_address(target, location, named)
            if urlsplit(onward).path.rstrip("/") == "/login":
                raise NeedsToken(f"{origin(url)} wants a login for this file.", url=public_url(url))
            target, first = onward, False
        raise BadAnswer(f"{origin(url)} redirects more than {MAX_HOPS} times.", url=public_url(url))

    def refuse_offline(self, url: str) -> None:
        """Raise if the settings forbid any connection.

        Raises:
            Offline: they do.
        """
        if self.settings.offline:
            raise Offline(f"{origin(url)} was not asked because of `--offline`.", url=public_url(url))

    def hang_up(self, threads: Collection[int]) -> None:
        """Make what these threads have open fail at once, from another thread."""
        for line in list(self._lines):
            if line.thread in threads:
                line.hang_up()

    def abort(self) -> None:
        """Make every transfer in progress fail at once, from another thread."""
        self.stop.set()
        for line in list(self._lines):
            line.hang_up()

    @contextlib.contextmanager
    def _send(self, request: _Request, named: str) -> Iterator[httpx.Response]:
        url = request.url
        with translated(url):
            host = httpx.URL(url).raw_host.decode("ascii")  # as it is connected to
        place, paced = origin(url).partition("://")[2], origin(url) in self.site.origins and literal_reach(host) is None
        self.traffic.admit(place, paced=paced, wait=self.stop.wait)
        line = Connection(host, named, self._seen, self.settings.give_up_s)
        self._lines.add(line)
        began = False
        try:
            body, sent = request.terms.body, request.sent_headers()
            with (
                translated(url, line),
                self._http.stream(
                    "GET" if body is None else "POST", url, headers=sent, content=body, extensions={"trace": line}
                ) as response,
            ):
                began = True
                lower = {name.lower(): value for name, value in response.headers.items()}
                self.traffic.answered(place, response.status_code, lower)
                yield response
        except TryAgain:
            if not began and not request.terms.is_extra:
                self.traffic.failed(place)
            raise
        finally:
            line.hang_up()
            self._lines.discard(line)

    def ask(self, question: Question) -> Reply:
        """A whole small body, retried as Patience allows.

        Raises:
            HubProblem: any refusal, as its own type; NetworkFailure when all tries failed.
        """
        patience = Patience(self.settings, stop=self.stop)
        headers = {"Accept-Encoding": "gzip", **question.headers}
        while True:
            try:
                terms = Terms(with_token=question.with_token, body=question.body)
                with self.open(question.url, headers, self.site.base, terms) as answer:
                    longest_s = self.settings.give_up_s * _WHOLE_ANSWERS
                    return Reply(_checked_body(answer, question, patience, longest_s), answer.headers)
            except TryAgain as failure:
                patience.failed(failure)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent on one hop."""

    url: str = field(repr=False)
    headers: Mapping[str, str]
    token: str = field(repr=False)
    terms: Terms

    def sent_headers(self) -> dict[str, str]:
        """The header, with the token where there is one."""
        own = {"User-Agent": USER_AGENT, "Accept": "*/*", **self.headers}
        return own | ({"Authorization": f"Bearer {self.token}"} if self.token else {})


def _checked_body(answer: Answer, question: Question, patience: Patience, longest_s: float) -> bytes:
    if answer.status == 200 and 200 not in question.statuses:
        raise BadAnswer(f"{answer.host} sends the whole file where a part was asked for.", url=public_url(answer.url))
    if answer.status not in question.statuses:
        raise problem_of(answer.refusal())
    limit = question.limit
    body, began = bytearray(), time.monotonic()
    for chunk in answer.decoded():
        body += chunk
        patience.progress(len(body))
        if time.monotonic() - began > longest_s:
            raise NetworkFailure(f"{answer.host} took more than {longest_s:.0f} s for one answer.")
        if len(body) > limit:
            size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
            raise BadAnswer(f"{answer.host} answered with more than {size}.", url=public_url(answer.url))
    # a part of a file stays as it is: it is shown to nobody
    return bytes(body) if answer.status == 206 else answer.without_token(bytes(body))
