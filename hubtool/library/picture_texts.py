"""The texts inside a picture: PNG text chunks, EXIF of JPEG, WebP, PNG, AVIF and JPEG XL. Nothing is decoded but texts.

Sources: the PNG specification (tEXt, zTXt, iTXt, eXIf), JFIF and EXIF 2.3 (APP1, COM; UserComment has eight bytes for its
encoding before it), the WebP container (EXIF chunk).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from hubtool.library.box_texts import exif_of_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT = 16 << 20  # bytes of one text; the largest workflows seen have 2 MB
_MAX_ALL = 4 * MAX_TEXT  # of all texts of a picture together
_PARTS = 1 << 17  # chunks and segments that are looked at; the largest pictures have a tenth of that
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_TAGS = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x927C: "MakerNote",
    0x9286: "UserComment",
}
_TEXTUAL = frozenset({b"tEXt", b"zTXt", b"iTXt", b"eXIf"})
_EXIF_FOLDER = 0x8769
_ENTRIES = 4096  # of one EXIF folder; real ones have dozens


def picture_texts(body: bytes) -> dict[str, str]:
    """Keyword → text, of a PNG, JPEG, WebP, AVIF or JPEG XL; empty for anything else. Broken parts are passed over.

    EXIF tags have their standard names (`UserComment`); the first text of a name counts.
    """
    found: dict[str, str] = {}
    left = _MAX_ALL
    for name, text in _texts(body):
        left -= len(text)
        if left < 0:
            break
        found.setdefault(name, text)
    return found


def _texts(body: bytes) -> Iterator[tuple[str, str]]:
    if body.startswith(_PNG):
        yield from _png(body)
    elif body.startswith(_JPEG):
        yield from _jpeg(body)
    elif body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        for kind, data in _riff(body):
            if kind == b"EXIF":
                yield from _exif(data.removeprefix(b"Exif\0\0"))
    else:
        for data in exif_of_boxes(body):
            yield from _exif(data.removeprefix(b"Exif\0\0"))


def _png(body: bytes) -> Iterator[tuple[str, str]]:
    at = len(_PNG)
    for _ in range(_PARTS):
        if at + 12 > len(body):
            return
        size, kind = struct.unpack_from(">I4s", body, at)
        data = body[at + 8 : at + 8 + size] if kind in _TEXTUAL and size <= MAX_TEXT else b""
        at += 12 + size
        if kind == b"eXIf":
            yield from _exif(data)
        elif data:
            keyword, _, rest = data.partition(b"\0")
            text = _png_text(kind, rest)
            if text is not None:
                yield keyword.decode("latin-1"), text


def _png_text(kind: bytes, rest: bytes) -> str | None:
    if kind == b"tEXt":
        return _plain(rest)
    if kind == b"zTXt":
        unpacked = _inflated(rest[1:])
        return None if unpacked is None else _plain(unpacked)
    packed, parts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None
    raw = _inflated(parts[2]) if packed else parts[2]
    return None if raw is None else raw.decode("utf-8", "replace")


def _plain(raw: bytes) -> str:
    """Latin-1 says the specification; several programs write UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _inflated(packed: bytes) -> bytes | None:
    """At most `MAX_TEXT` bytes, so that a small picture cannot fill the memory."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_TEXT)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else text


def _jpeg(body: bytes) -> Iterator[tuple[str, str]]:
    at = 2
    for _ in range(_PARTS):
        if at + 4 > len(body) or body[at] != 0xFF:
            return
        marker, size = body[at + 1], int.from_bytes(body[at + 2 : at + 4], "big")
        data = body[at + 4 : at + 2 + size]
        if marker in {0xD9, 0xDA}:  # the picture itself begins, or all is over
            return
        if marker == 0xE1 and data.startswith(b"Exif\0\0"):
            yield from _exif(data[6:])
        elif marker == 0xFE:
            yield "Comment", _plain(data)
        at += 2 + max(size, 2)


def _riff(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    for _ in range(_PARTS):
        if at + 8 > len(body):
            return
        kind, size = struct.unpack_from("<4sI", body, at)
        yield kind, body[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)


def _exif(data: bytes) -> Iterator[tuple[str, str]]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return
    folders = [int(struct.unpack_from(f"{order}I", data, 4)[0])]
    visited: set[int] = set()
    while folders:
        start = folders.pop()
        if start in visited or start + 2 > len(data):
            continue
        visited.add(start)
        count = min(struct.unpack_from(f"{order}H", data, start)[0], _ENTRIES)
        for number in range(count):
            at = start + 2 + 12 * number
            if at + 12 > len(data):
                break
            tag, kind, size, value = struct.unpack_from(f"{order}HHII", data, at)
            if tag == _EXIF_FOLDER:
                folders.append(value)
            elif tag in _TAGS and kind in {1, 2, 7} and size <= MAX_TEXT:  # bytes, ASCII, undefined
                raw = data[at + 8 : at + 8 + size] if size <= 4 else data[value : value + size]
                yield _TAGS[tag], _exif_text(raw, order, is_comment=tag == 0x9286)


def _exif_text(raw: bytes, order: str, *, is_comment: bool) -> str:
    if is_comment and raw[:8] in {b"UNICODE\0", b"ASCII\0\0\0", bytes(8)}:
        code, raw = raw[:8], raw[8:]
        if code == b"UNICODE\0":
            return _utf16(raw, order)
    return _plain(raw).rstrip("\0")


def _utf16(raw: bytes, order: str) -> str:
    """UTF-16 in the order that makes text: some programs ignore the file's own."""
    mark = raw[:2]
    if mark in {b"\xff\xfe", b"\xfe\xff"}:
        return raw.decode("utf-16", "replace").rstrip("\0")
    likely = "utf-16-be" if raw[0:1] == b"\0" else "utf-16-le" if raw[1:2] == b"\0" else ""
    return raw.decode(likely or ("utf-16-le" if order == "<" else "utf-16-be"), "replace").rstrip("\0")
