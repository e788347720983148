"""A safetensors header taken apart without looking at each tensor: its metadata, and a digest of everything else.

Files of one trainer with the same settings list the same tensors, byte for byte, behind metadata of their own. Who remembers
what was found out about a table of tensors, by its digest, need not parse it again: it is by far the longest part.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from hubtool.formats.magic import looks_like_safetensors
from hubtool.formats.tensor import MappedFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LONGEST = 2 << 20  # longer headers have their own checks; see `hubtool.formats.safetensors`
_METADATA = re.compile(r'\{\s*"__metadata__"\s*:\s*(?=\{)')
_HALF = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder(object_pairs_hook=list)


@dataclass(frozen=True, slots=True)
class HeaderParts:
    """What a header says of the file, and by what to recognise what it says of the tensors."""

    metadata: Mapping[str, str]
    tensors: bytes  # digest of the table of tensors and of how many bytes are behind it


def split_header(path: Path) -> HeaderParts | None:
    """The parts of a file's header; None where that cannot be had this way, and `read_safetensors` has to say why.

    The table of tensors is not checked. Two files whose digests agree are both sound, or both are not.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        file = MappedFile(path)
    except (OSError, ValueError):
        return None
    raw = _header(file)
    return _parts(raw, file.size - 8 - len(raw)) if raw else None


def _header(file: MappedFile) -> bytes:
    """The header's bytes; none where there is no header of usual length."""
    start = bytes(file.view(0, min(file.size, 9)))
    length = int.from_bytes(start[:8], "little")
    if not looks_like_safetensors(start) or length > min(_LONGEST, file.size - 8):
        return b""
    return os.pread(file.descriptor, length, 8) if hasattr(os, "pread") else bytes(file.view(8, 8 + length))


def _parts(raw: bytes, body_bytes: int) -> HeaderParts | None:
    try:
        text = str(raw, "utf-8")
        begin = _METADATA.match(text)
        pairs, stop = _DECODER.raw_decode(text, begin.end()) if begin else ([], 0)
    except (ValueError, RecursionError):
        return None
    rest = text[stop:].rstrip()
    # an escape could spell __metadata__ in a way that is not found
    if not _is_plain(pairs) or "\\" in rest or "__metadata__" in rest:
        return None
    digest = sha256(b"%d " % body_bytes)
    digest.update(rest.encode())
    return HeaderParts(dict(pairs), digest.digest())


def _is_plain(pairs: list[tuple[str, object]]) -> bool:
    """Texts only, no key twice, no halves of characters."""
    if len({key for key, _ in pairs}) < len(pairs) or not all(isinstance(value, str) for _, value in pairs):
        return False
    return all(text.isascii() or not _HALF.search(text) for pair in pairs for text in map(str, pair))
