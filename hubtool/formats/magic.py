"""What a file really is, by its first bytes; extensions decide nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from hubtool.errors import UnknownFormat, UnsafePickle

if TYPE_CHECKING:
    from pathlib import Path


class Foreign(NamedTuple):
    """Bytes that begin a file which is not safetensors."""

    rule: str
    name: str
    starts: tuple[bytes, ...]
    offset: int = 0


FOREIGN = (
    Foreign("E_NOT_SAFETENSORS_ZIP", "a zip archive", (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")),
    Foreign("E_NOT_SAFETENSORS_GZIP", "gzip-compressed", (b"\x1f\x8b\x08",)),
    Foreign("E_NOT_SAFETENSORS_GGUF", "a GGUF model", (b"GGUF",)),
    Foreign(
        "E_NOT_SAFETENSORS_EXE",
        "a program",
        (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!"),
    ),
    Foreign("E_NOT_SAFETENSORS_HDF5", "an HDF5 file", (b"\x89HDF\r\n\x1a\n",)),
    Foreign("E_NOT_SAFETENSORS_7Z", "a 7-Zip archive", (b"7z\xbc\xaf\x27\x1c",)),
    Foreign("E_NOT_SAFETENSORS_RAR", "a RAR archive", (b"Rar!\x1a\x07",)),
    Foreign("E_NOT_SAFETENSORS_IMAGE", "a picture", (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")),
    Foreign("E_NOT_SAFETENSORS_TAR", "a tar archive", (b"ustar",), offset=257),
    Foreign("E_NOT_SAFETENSORS_LFS", "a Git LFS pointer, not the file itself", (b"version https://git-lfs",)),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<error", b"<script")
_LEGACY_TORCH = bytes.fromhex("8a0a6cfc9c46f9206aa85019")  # LONG1 with torch's magic number 0x1950a86a20f9469cfc6c
_PROTOCOL_0 = b"(lcidSIVFNpg]}0t"  # opcodes that open a text pickle


def refuse_foreign_bytes(path: Path, start: bytes) -> None:
    """Raise if the first bytes (512 suffice) belong to another kind of file.

    Raises:
        UnsafePickle: a pickle, bare or in torch's zip container.
        UnknownFormat: a web page, archive, program …; `rule` says which.
    """
    found = foreign(start)
    if found is None:
        return
    rule, what = found
    if rule == "E_PICKLE":
        raise UnsafePickle(path, f"{path.name} is {what}, whatever its name says; loading it could run code.")
    raise UnknownFormat(path, f"{path.name} is {what}, not a safetensors file.", rule=rule)


def foreign(start: bytes) -> tuple[str, str] | None:
    """(rule, description) if these first bytes are not the beginning of a safetensors file."""
    if looks_like_safetensors(start):
        return None
    if is_pickle(start):
        return "E_PICKLE", "a Python pickle (a .ckpt or .pt file)"
    for kind in FOREIGN:
        if any(start[kind.offset :].startswith(magic) for magic in kind.starts):
            return kind.rule, kind.name
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGES):
        return "E_NOT_SAFETENSORS_HTML", "a web page (often a login or error page)"
    return _text_answer(start, text)


def looks_like_safetensors(start: bytes) -> bool:
    """A plausible length and then `{`: what every safetensors file begins with."""
    return len(start) >= 9 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= 100_000_000


def is_pickle(start: bytes) -> bool:
    """A pickle stream, or a zip that torch wrote around one; a safetensors file whose length looks like the first is none."""
    if looks_like_safetensors(start):
        return False
    if start.startswith(b"\x80") and len(start) > 1 and 1 <= start[1] <= 5:
        return True
    if start.startswith(_LEGACY_TORCH):
        return True
    if start.startswith(b"PK\x03\x04"):
        return b"data.pkl" in start or b"/data/" in start[:200] or b"archive/" in start[:200]
    return _is_text_pickle(start)


def _is_text_pickle(start: bytes) -> bool:
    """Protocol 0: a `c` (GLOBAL) opcode with module and name lines near the beginning."""
    if not start or start[0] not in _PROTOCOL_0:
        return False
    lines = start[:200].split(b"\n")
    return len(lines) >= 3 and any(
        b"c" in line and lines[i + 1].isascii() and lines[i + 1].strip().isalnum()
        for i, line in enumerate(lines[:4])
        if i + 1 < len(lines)
    )


def _text_answer(start: bytes, text: bytes) -> tuple[str, str] | None:
    if text.startswith((b"{", b"[")) and start[:1] in b"{[ \t\r\n\xef":
        try:
            json.loads(start.decode("utf-8"))
        except (ValueError, RecursionError):
            return ("E_NOT_SAFETENSORS", "JSON text") if b'"' in text[:40] else None
        return "E_NOT_SAFETENSORS", "JSON text (perhaps an error message)"
    return None
