"""Answers that are meant to fill the memory, to never end, or to break the reader: each ends in a typed error, soon."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
from contract.small_site import Asked, Page, SmallSite, page

from hubtool.errors import BadAnswer, Forbidden, HubProblem, NetworkFailure, NotFound
from hubtool.hubs.decoding import PIECE_BYTES, BadEncoding, decoded
from hubtool.hubs.opening import open_hub
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.in_process import Run

MODEL = "/api/v1/models/5"
MIB = 1 << 20


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with SmallSite() as running:
        yield running


def settings(address: str, home: Path, timeout_s: float = 0.2) -> Settings:
    return Settings(Directories(home / "c", home / "d", home / "e"), hub=address, timeout_s=timeout_s)


def bomb(layers: int, mib: int = 200) -> bytes:
    body = b""
    engine = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for _ in range(mib):
        body += engine.compress(bytes(MIB))
    body += engine.flush()
    for _ in range(layers - 1):
        body = gzip.compress(body, 9)
    return body


def peak_of(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("status", [200, 403])
def test_a_bomb_is_not_unpacked(site: SmallSite, tmp_path: Path, layers: int, status: int) -> None:
    encoding = ", ".join(["gzip"] * layers)
    site.pages[MODEL] = Page(bomb(layers), status, {"Content-Encoding": encoding, "Content-Type": "application/json"})

    def ask() -> None:
        with pytest.raises(Forbidden if status == 403 else BadAnswer):
            open_hub(settings(site.url, tmp_path, 2)).model(5)

    assert peak_of(ask) < 100 * MIB
    assert len(site.asked) == 1


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "gzip;q=1", "x"])
def test_what_was_not_asked_for_is_not_decoded(site: SmallSite, tmp_path: Path, encoding: str) -> None:
    site.pages[MODEL] = Page(gzip.compress(b'{"id": 5}'), headers={"Content-Encoding": encoding})
    with pytest.raises(BadAnswer, match="damaged compression"):
        open_hub(settings(site.url, tmp_path)).model(5)
    assert {asked.headers["accept-encoding"] for asked in site.asked} == {"gzip"}


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        pytest.param(gzip.compress(b'{"id": 5}'), True, id="right"),
        pytest.param(gzip.compress(b'{"id": 5}') + b"and more", True, id="something behind it"),
        pytest.param(gzip.compress(b'{"id": 5}')[:-9], False, id="cut"),
        pytest.param(b'{"id": 5}', False, id="not compressed"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_compression_is_right_or_a_bad_answer(site: SmallSite, tmp_path: Path, body: bytes, *, fine: bool) -> None:
    site.pages[MODEL] = Page(body, headers={"Content-Encoding": "gzip"})
    hub = open_hub(settings(site.url, tmp_path))
    if fine:
        assert hub.model(5).id == 5
    else:
        with pytest.raises(BadAnswer):
            hub.model(5)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
@pytest.mark.parametrize("step", [1 << 8, 1 << 20])
def test_decompression_gives_every_byte_in_bounded_pieces(size: int, step: int) -> None:
    packed = gzip.compress(b"a" * size)
    pieces = list(decoded([packed[at : at + step] for at in range(0, len(packed), step)], "gzip"))
    assert b"".join(pieces) == b"a" * size
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    with pytest.raises(BadEncoding):
        list(decoded([packed[:-1]], "gzip"))


# ---------------------------------------------------------------- answers without end


class RawSite:
    """Says the same bytes to everybody, again and again, until they hang up."""

    def __init__(self, head: bytes, again: bytes, pause_s: float = 0.0) -> None:
        self._head, self._again, self._pause_s = head, again, pause_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = self.calls = 0

    def __enter__(self) -> RawSite:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            threading.Thread(target=self._talk, args=(caller,), daemon=True).start()

    def _talk(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):
            caller.recv(65536)
            caller.sendall(self._head)
            for _ in range(100_000):
                caller.sendall(self._again)
                self.sent += len(self._again)
                time.sleep(self._pause_s)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"


@pytest.mark.parametrize(
    ("head", "again"),
    [
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK, id="chunked"),
        pytest.param(OK + b"\r\n", b" " * 65536, id="without a length"),
        pytest.param(OK + b"Content-Length: 999999999999\r\n\r\n", b" " * 65536, id="a huge length"),
    ],
)
def test_an_answer_without_end_is_read_to_its_limit(tmp_path: Path, head: bytes, again: bytes) -> None:
    with RawSite(head, again) as site:
        with pytest.raises(BadAnswer, match="32 MiB"):
            open_hub(settings(site.url, tmp_path, 2)).model(5)
        assert site.sent < 64 * MIB
        assert site.calls == 1


def test_an_answer_that_trickles_just_fast_enough_ends_too(tmp_path: Path) -> None:
    """A gain of 64 KiB in each window is progress for a file; a record of some kilobytes has a last moment."""
    with RawSite(OK + b"\r\n", b" " * 40_000, 0.02) as site:
        began = time.monotonic()
        with pytest.raises(NetworkFailure, match="for one answer"):
            open_hub(settings(site.url, tmp_path, 0.1)).model(5)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("head", "again"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X-Pad: " + b"a" * 60_000 + b"\r\n", id="header fields"),
        pytest.param(b"HTTP/1.1 200 ", b"a" * 65536, id="a reason"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", id="hints"),
        pytest.param(b"", b"\r\n", id="blank lines"),
        pytest.param(b"", b"220 ftp.example ready\r\n", id="another protocol"),
    ],
)
def test_a_header_without_end_is_a_network_failure(tmp_path: Path, head: bytes, again: bytes) -> None:
    with RawSite(head, again) as site:
        began = time.monotonic()
        with pytest.raises(NetworkFailure):
            open_hub(settings(site.url, tmp_path, 0.05)).model(5)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("location", ["/api/v1/models/5", "?again", "/api/v1/models/6", "//127.0.0.1:{port}/x"])
def test_redirects_in_a_circle_end(site: SmallSite, tmp_path: Path, location: str) -> None:
    answer = Page(b"", 302, {"Location": location.format(port=site.port)})
    site.pages.update(dict.fromkeys((MODEL, "/api/v1/models/6", "/x"), answer))
    with pytest.raises(BadAnswer, match="redirects more than 5 times"):
        open_hub(settings(site.url, tmp_path)).model(5)
    assert len(site.asked) == 6


# ---------------------------------------------------------------- odd JSON


def nested(depth: int) -> bytes:
    return b'{"id": 5, "name": "deep", "modelVersions": [], "extra": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize("depth", [101, 500, 900, 990, 5_000, 200_000])
def test_what_is_nested_deeper_than_any_record_is_a_bad_answer(site: SmallSite, tmp_path: Path, depth: int) -> None:
    """Parsed it may be; to print, keep or compare it would then fail anywhere."""
    site.pages[MODEL] = Page(nested(depth))
    with pytest.raises(BadAnswer, match="nested too deep"):
        open_hub(settings(site.url, tmp_path)).model(5)


def test_what_is_nested_as_metadata_of_pictures_is_borne(site: SmallSite, tmp_path: Path, run: Run) -> None:
    site.pages[MODEL] = Page(nested(90))
    assert run("info", "5", "--hub", site.url, "--json").document["name"] == "deep"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"id": 5, "score": %s}' % ("9" * 5_000), id="five thousand digits"),
        pytest.param('{"id": 5, "score": -%s}' % ("9" * 3_000_000), id="three million digits"),
        pytest.param('{"id": 5, "score": 1e%s}' % ("9" * 5_000), id="a huge exponent"),
        pytest.param('{"id": 5, "a": -Infinity, "nsfwLevel": NaN}', id="no numbers"),
        pytest.param('{"id": 9, "id": 5, "name": "a", "name": "b"}', id="keys twice"),
        pytest.param('{"id": 5, "\\ud800": "\\udfff"}', id="half characters"),
        pytest.param('{"id": 5, "name": "\\u0000\\u001b[2J\\u009b"}', id="control characters"),
    ],
)
def test_odd_values_are_passed_over(site: SmallSite, tmp_path: Path, run: Run, text: str) -> None:
    began = time.process_time()
    site.pages[MODEL] = Page(text.encode("utf-8", "surrogatepass"))
    ended = run("info", "5", "--hub", site.url, "--json")
    assert (ended.code, ended.document["id"]) == (0, 5)
    assert ended.out.rstrip("\n").isprintable()
    assert run("info", "5", "--hub", site.url).code == 0
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"id": 5, "name": "\xe9"}'.encode("latin-1"), "application/json; charset=utf-7"),
        (b'{"id": 5}', "text/html"),
        (b'{"id": 5}', "application/octet-stream; charset=nonsense"),
        (b'\xef\xbb\xbf{"id": 5}', ""),
    ],
)
def test_the_type_that_an_answer_claims_counts_for_nothing(
    site: SmallSite, tmp_path: Path, body: bytes, kind: str
) -> None:
    site.pages[MODEL] = Page(body, headers={"Content-Type": kind} if kind else {})
    assert open_hub(settings(site.url, tmp_path)).model(5).id == 5


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_alphabet_is_a_bad_answer(site: SmallSite, tmp_path: Path, encoding: str) -> None:
    site.pages[MODEL] = Page('{"id": 5}'.encode(encoding))
    with pytest.raises(BadAnswer):
        open_hub(settings(site.url, tmp_path)).model(5)


@pytest.mark.parametrize("status", [201, 204, 205, 206, 226, 300, 304, 418, 499, 599])
def test_an_unforeseen_status_is_an_error_of_ours(site: SmallSite, tmp_path: Path, status: int) -> None:
    site.pages[MODEL] = Page(b"" if status in {204, 304} else b'{"id": 5}', status)
    with pytest.raises(HubProblem):
        open_hub(settings(site.url, tmp_path, 0.02)).model(5)


# ---------------------------------------------------------------- what is remembered


def test_cookies_are_not_kept(site: SmallSite, tmp_path: Path) -> None:
    cookies = {"Set-Cookie": "session=abc; Path=/"}
    site.pages[MODEL] = Page(b'{"id": 5}', headers=cookies)
    hub = open_hub(settings(site.url, tmp_path))
    for _ in range(2):
        hub.model(5)
    assert not any("cookie" in asked.headers for asked in site.asked)


def test_a_firewalls_page_is_not_taken_for_the_hubs_refusal(site: SmallSite, tmp_path: Path) -> None:
    wall = b"<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>"
    site.pages[MODEL] = Page(wall, 403, {"Content-Type": "text/html"})
    with pytest.raises(BadAnswer, match="Attention Required") as caught:
        open_hub(settings(site.url, tmp_path)).model(5)
    assert "firewall" in caught.value.hint


def test_pages_that_go_on_for_ever_end(site: SmallSite, tmp_path: Path) -> None:
    def more(asked: Asked) -> Page:
        number = int(asked.query.get("cursor", ["0"])[0])
        return page({"items": [], "metadata": {"nextCursor": str(number + 1)}})

    site.pages["/api/v1/models"] = more
    from hubtool.hubs.hub import Query

    assert open_hub(settings(site.url, tmp_path, 2)).search(Query("x")).models == ()
    assert len(site.asked) == 20


def test_an_error_of_many_pages_is_one_sentence(site: SmallSite, tmp_path: Path) -> None:
    site.pages[MODEL] = page({"error": [{"message": "\x1b[31m" + "no " * 100_000}]}, 404)
    with pytest.raises(NotFound) as caught:
        open_hub(settings(site.url, tmp_path)).model(5)
    assert len(str(caught.value)) < 500
    assert json.dumps(str(caught.value)).isprintable()
    assert "\x1b" not in str(caught.value)
