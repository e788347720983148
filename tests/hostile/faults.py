"""What can go wrong between a hub, its storage and us: one fault a row, with how a download may end under it.

`RIGHT` means the right file, verified; anything else is an error code. Where several are named, each is a clean end: what a
resumed download still needs may be less than what the fault spoils.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from contract.faulty_hub import VERSION, Fault, lora

RIGHT = "right"
CONTENT = lora()
SIZE = len(CONTENT)
OTHER = lora(7)
LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>" * 20
XML = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
ONCE = Fault(cut=65_536)  # a reset in the middle, so that a range is asked for next
EVIL = "<script>alert(1)</script>\x1b[2J\x1b]0;owned\x07[/red]\u202egnp"


@dataclass(frozen=True)
class Scenario:
    """One row."""

    id: str
    ends: str | tuple[str, ...]
    always: dict[str, Fault] = field(default_factory=dict)  # api, download or storage → every answer
    first: dict[str, tuple[Fault, ...]] = field(default_factory=dict)  # the same → the first answers
    file: dict[str, object] = field(default_factory=dict)  # of the hub's record
    hops: int = 0
    single_use: bool = False
    timeout_s: float = 0.5


def _storage(
    id: str, ends: str | tuple[str, ...], *faults: Fault, always: Fault | None = None, **more: object
) -> Scenario:
    return Scenario(id, ends, {"storage": always} if always else {}, {"storage": faults}, **more)  # type: ignore[arg-type]


def _download(
    id: str, ends: str | tuple[str, ...], *faults: Fault, always: Fault | None = None, **more: object
) -> Scenario:
    return Scenario(id, ends, {"download": always} if always else {}, {"download": faults}, **more)  # type: ignore[arg-type]


def _api(id: str, ends: str | tuple[str, ...], *faults: Fault, always: Fault | None = None, **more: object) -> Scenario:
    return Scenario(id, ends, {"api": always} if always else {}, {"api": faults}, **more)  # type: ignore[arg-type]


def _redirect(id: str, ends: str | tuple[str, ...], location: str) -> Scenario:
    return _download(id, ends, always=Fault(headers={"Location": location}))


def _changed(position: int, length: int) -> bytes:
    return (
        CONTENT[:position]
        + bytes(byte ^ 0xFF for byte in CONTENT[position : position + length])
        + CONTENT[position + length :]
    )


_GZIP = {"Content-Encoding": "gzip"}
_BUSY = {"Retry-After": "0"}
_SOON = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=1), usegmt=True)

BODIES = [
    _storage("no fault", RIGHT),
    _storage("reset once", RIGHT, ONCE),
    _storage("five resets with progress", RIGHT, *[Fault(cut=30_000)] * 5),
    _storage("reset before the first byte", RIGHT, Fault(cut=0), Fault(cut=0)),
    _storage("reset for ever", ("network", RIGHT), always=Fault(cut=1000)),
    _storage("one byte short", RIGHT, Fault(cut=-1, closes=True)),
    _storage("two bytes a second", "network", always=Fault(drip_s=0.05), timeout_s=0.15),
    _storage("the header drips for ever", "network", always=Fault(head_drip_s=0.05), timeout_s=0.15),
    _storage("silence in the middle once", RIGHT, Fault(pause_s=0.5), timeout_s=0.2),
    _storage("silence in the middle for ever", (RIGHT, "network"), always=Fault(pause_s=0.5), timeout_s=0.1),
    _storage("silence before the header", "network", always=Fault(head_pause_s=0.4), timeout_s=0.1),
    _storage("a slow header", RIGHT, always=Fault(head_drip_s=0.0005)),
    _storage("a length that is too long", (RIGHT, "network"), always=Fault(headers={"Content-Length": str(SIZE + 999)})),
    _storage("a length that is too short", ("hash_mismatch", RIGHT), always=Fault(headers={"Content-Length": str(SIZE - 999)})),
    _storage("no length", RIGHT, always=Fault(without=("Content-Length",))),
    _storage("no length, and cut", ("hash_mismatch", RIGHT), always=Fault(without=("Content-Length",), cut=90_000, closes=True)),
    _storage("chunked", RIGHT, always=Fault(chunked="whole")),
    _storage("chunked, no last chunk", (RIGHT, "network"), always=Fault(chunked="cut")),
    _storage("chunked, a senseless size", (RIGHT, "network"), always=Fault(chunked="bad")),
    _storage("HTTP/1.0", RIGHT, always=Fault(http="1.0", without=("Content-Length",))),
    _storage("two lengths", ("network", "hub", "bad_answer"), always=Fault(lines=b"Content-Length: 5\r\n")),
    _storage("an empty body", "wrong_file", always=Fault(body=b"")),
    _storage("one flipped byte", "hash_mismatch", always=Fault(body=_changed(100_000, 1))),
    _storage("one flipped byte, once", RIGHT, Fault(body=_changed(100_000, 1))),
    _storage("a doubled block", "hash_mismatch", always=Fault(body=(CONTENT[:70_000] + CONTENT[60_000:])[:SIZE])),
    _storage("a doubled block, longer", "hash_mismatch", always=Fault(body=CONTENT[:70_000] + CONTENT[60_000:])),
    _storage("goes on behind its end", "wrong_file", always=Fault(body=CONTENT + bytes(1 << 22), without=("Content-Length",))),
    _storage("cut, well-formed", "hash_mismatch", always=Fault(body=lora(0, 100_000))),
    _storage("a few bytes more", "hash_mismatch", always=Fault(body=CONTENT + b"<html>")),
    _storage("another file of the same size", "hash_mismatch", always=Fault(body=OTHER)),
    _storage("compressed", "wrong_file", always=Fault(body=gzip.compress(CONTENT, 1), headers={"Content-Encoding": "gzip"})),
    _storage("says that it is compressed", "wrong_file", always=Fault(headers={"Content-Encoding": "gzip"})),
    _storage("a bomb", "wrong_file", always=Fault(body=gzip.compress(bytes(1 << 24)), headers={"Content-Encoding": "gzip"})),
    _storage("wrong content type", RIGHT, always=Fault(headers={"Content-Type": "application/json"})),
]  # fmt: skip

RANGES = [
    _storage("200 for a range", RIGHT, ONCE, always=Fault(ignore_range=True)),
    _storage("bytes shifted under a right header", RIGHT, ONCE, always=Fault(shift=512, ranges_only=True)),
    _storage("an earlier range than asked", RIGHT, ONCE, always=Fault(lie=-512)),
    _storage("a later range than asked", RIGHT, ONCE, always=Fault(lie=512)),
    _storage("another total", RIGHT, ONCE, always=Fault(total=99)),
    _storage("416 for every range", RIGHT, ONCE, always=Fault(status=416, ranges_only=True, body=b"<Error/>")),
    _storage("several parts in one body", RIGHT, ONCE, always=Fault(multipart=True)),
    _storage("206 without Content-Range", RIGHT, ONCE, always=Fault(without=("Content-Range",))),
    _storage("a new ETag, the same bytes", RIGHT, ONCE, always=Fault(headers={"ETag": '"new"'})),
    _storage("other bytes after a reset", ("hash_mismatch", RIGHT), ONCE, always=Fault(body=OTHER)),
    _storage("other bytes, If-Range ignored", ("hash_mismatch", RIGHT), ONCE, always=Fault(body=OTHER, ignore_if_range=True)),
    _storage("a new ETag, If-Range ignored", RIGHT, ONCE, always=Fault(headers={"ETag": '"new"'}, ignore_if_range=True)),
    _storage("a weak ETag", RIGHT, ONCE, always=Fault(headers={"ETag": 'W/"x"'})),
    _storage("no ETag", RIGHT, Fault(cut=65_536, without=("ETag",)), always=Fault(without=("ETag",))),
    _storage("no Accept-Ranges", RIGHT, ONCE, always=Fault(without=("Accept-Ranges",))),
]  # fmt: skip

ANSWERS = [
    _storage("a lease that expired", RIGHT, ONCE, Fault(status=403, body=XML)),
    _storage("a lease for one use", RIGHT, ONCE, single_use=True),
    _storage("a lease for one use, no reset", RIGHT, single_use=True),
    _storage("storage refuses for ever", "network", always=Fault(status=403, body=XML)),
    _storage("storage says 400", "network", always=Fault(status=400, body=XML)),
    *(_storage(f"{code} twice", RIGHT, *[Fault(status=code, body=LOGIN)] * 2) for code in (500, 502, 503, 504)),
    *(_download(f"{code} twice by the hub", RIGHT, *[Fault(status=code)] * 2) for code in (500, 502, 503, 504)),
    _storage("503 for ever", "network", always=Fault(status=503)),
    _storage("429 twice", RIGHT, *[Fault(status=429, headers=_BUSY)] * 2),
    _download("429 with seconds", RIGHT, Fault(status=429, headers={"Retry-After": "1"})),
    _download("429 with a date", RIGHT, Fault(status=429, headers={"Retry-After": _SOON})),
    _download("429 with a senseless wish", RIGHT, Fault(status=429, headers={"Retry-After": "soon"})),
    _download("429 with a negative wish", RIGHT, Fault(status=429, headers={"Retry-After": "-5"})),
    _download("429 for ten years", "rate_limited", always=Fault(status=429, headers={"Retry-After": "315360000"})),
    _download("429 for ever", "rate_limited", always=Fault(status=429, headers=_BUSY)),
    _download("a login is needed", "needs_token", always=Fault(status=401, body=b'{"error":"Unauthorized"}')),
    _download("early access", "early_access", always=Fault(status=403, body=b'{"error":"Early Access"}')),
    _download("not there", "not_found", always=Fault(status=404, body=b'{"error":"File not found"}')),
    _download("archived", "not_found", always=Fault(status=410, body=b'{"error":"Model archived"}')),
    _download("the region is blocked", "forbidden", always=Fault(status=451)),
    _storage("a page instead of the file", "wrong_file", always=Fault(body=LOGIN)),
    _storage("a page instead of the file, once", ("wrong_file", RIGHT), Fault(body=LOGIN)),
    _download("a page instead of a redirect", "wrong_file", always=Fault(status=200, body=LOGIN)),
    _download("JSON instead of a redirect", "needs_token", always=Fault(status=200, body=b'{"error":"Unauthorized"}')),
    _storage("an LFS pointer", "wrong_file", always=Fault(body=b"version https://git-lfs.github.com/spec/v1\n")),
    _storage("a pickle", "unsafe_file", always=Fault(body=b"\x80\x02}q\x00." + bytes(600))),
    _storage("not HTTP at all", "network", always=Fault(raw=b"SSH-2.0-OpenSSH_9.9\r\n\0\0garbage\r\n\r\n")),
    _storage("a header of 300 kB", (RIGHT, "network"), always=Fault(headers={"X-Pad": "p" * 300_000})),
    _storage("5000 header lines", (RIGHT, "network"), always=Fault(lines=b"".join(b"X-%d: v\r\n" % n for n in range(5000)))),
    _storage("a header line without colon", (RIGHT, "network"), always=Fault(lines=b"Bad Line\r\nX-Nul: a\0b\r\n")),
    _storage("cookies", RIGHT, always=Fault(lines=b"Set-Cookie: sess=secret; Path=/\r\nSet-Cookie: __Host-x=1; Secure\r\n")),
    _storage("early hints", RIGHT, always=Fault(before=b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n")),
    _storage("keep-alive that is not kept", RIGHT, ONCE, always=Fault(headers={"Connection": "keep-alive"})),
]  # fmt: skip

REDIRECTS = [
    _redirect("in circles", "bad_answer", f"/api/download/models/{VERSION}"),
    _download("to nowhere", "bad_answer", always=Fault(without=("Location",))),
    _redirect("to a file of this machine", "unsafe_address", "file:///etc/passwd"),
    _redirect("with a login", "unsafe_address", "http://user:secret@127.0.0.1:1/x"),
    _redirect("with control bytes", ("unsafe_address", "network", "hub", "bad_answer"), "http://127.0.0.1:1/x\x0b\x1b[2J\ty?a=\x01"),
    _redirect("to the login page", "needs_token", "/login?returnUrl=/model-versions/1&reason=download-auth"),
    Scenario("over three hops", RIGHT, hops=3),
    Scenario("over thirty hops", "bad_answer", hops=30),
]  # fmt: skip

_DISPOSITIONS = [
    'attachment; filename="../../../../tmp/evil.safetensors"', "attachment; filename*=UTF-8''..%2F..%2Fevil.safetensors",
    'attachment; filename="/tmp/evil.safetensors"', 'attachment; filename="C:\\\\Windows\\\\evil.safetensors"',
    'attachment; filename="CON.safetensors"', 'attachment; filename="good.safetensors:evil.exe"', 'attachment; filename=".."',
    'attachment; filename=""', 'attachment; filename=".bashrc"', 'attachment; filename="' + "a" * 4000 + '.safetensors"',
    "attachment; filename*=UTF-8''evil%00.safetensors", "attachment; filename*=UTF-8''%1B%5B2J%07.safetensors",
    "attachment; filename*=UTF-8''%FF%FE%ZZ.safetensors", 'attachment; filename="caf\xe9.safetensors"',
    'attachment; filename="model.pt"', 'attachment; filename="abc.safetensors',
    'attachment; filename="..%2f..%2fevil.safetensors"',
]  # fmt: skip
_NAMES = [
    "../../../tmp/evil.safetensors", "/tmp/evil.safetensors", "..\\..\\evil.safetensors", "C:\\Windows\\evil.safetensors",
    "AUX.safetensors", "evil\0.safetensors", "\x1b[2J\x07.safetensors", "n" * 3000 + ".safetensors", "", ".", "..", None, 12345,
    "lora\u202esrosnetefas.exe", "lora.safetensors.exe", "a\nOK verified.safetensors", "[/red]x.safetensors",
    "lora.safetensors. ",
]  # fmt: skip

NAMES = [
    *(
        _storage(f"the storage's name {number}", RIGHT, always=Fault(headers={"Content-Disposition": text}), file={"name": ""})
        for number, text in enumerate(_DISPOSITIONS)
    ),
    *(Scenario(f"the hub's name {number}", (RIGHT, "bad_answer"), file={"name": name}) for number, name in enumerate(_NAMES)),
    Scenario("a pickle by name", "unsafe_file", file={"name": "lora.pt"}),
]  # fmt: skip

_JSON = ("bad_answer", "not_found", "hub", "network")
RECORDS = [
    _api("half a record", _JSON, always=Fault(body=b'{"id": 1001, "name": "A st')),
    _api("a record of brackets", _JSON, always=Fault(body=b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    _api("a record of 40 MB", _JSON, always=Fault(body=b'{"pad":"' + b"A" * (40 << 20) + b'"}'), timeout_s=2.0),
    _api("a list", _JSON, always=Fault(body=b"[{}]")),
    _api("not a number", _JSON, always=Fault(body=b'{"id":NaN,"big":1e999}')),
    _api("nothing in it", _JSON, always=Fault(body=b"{}")),
    _api("a page instead of a record", _JSON, always=Fault(body=LOGIN)),
    _api("a bomb instead of a record", _JSON, always=Fault(body=gzip.compress(bytes(48 << 20)), headers=_GZIP)),
    _api("500 twice instead of a record", RIGHT, Fault(status=500), Fault(status=500)),
    _api("429 instead of a record", RIGHT, Fault(status=429, headers={"Retry-After": "1"})),
    Scenario("wrong published hashes", "hash_mismatch", file={"hashes": {"SHA256": "0" * 64}}),
    Scenario("no published hashes", "unverified", file={"hashes": {}}),
    Scenario("no size", RIGHT, file={"sizeKB": None}),
    Scenario("another size", "hash_mismatch", file={"sizeKB": SIZE / 1024 + 4}),
    Scenario("fields of other types", (RIGHT, *_JSON), file={"id": "3001", "primary": "yes", "metadata": "x", "sizeKB": "195"}),
    Scenario("a file of this machine", "unsafe_address", file={"downloadUrl": "file:///etc/passwd"}),
    Scenario("no address", (RIGHT, *_JSON), file={"downloadUrl": None}),
    Scenario("texts that mean mischief", RIGHT, file={"pickleScanMessage": EVIL, "type": "Model"}),
]  # fmt: skip

SCENARIOS = [*BODIES, *RANGES, *ANSWERS, *REDIRECTS, *NAMES, *RECORDS]
