"""Preview pictures drawn by code: a pattern between two colours, as a PNG with a palette.

PNG: W3C Portable Network Graphics, third edition; one IDAT chunk, colour type 3, 8 bits a pixel.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Colour = tuple[int, int, int]  # red, green, blue
WIDTH, HEIGHT = 192, 288  # pixels

#: What is drawn: position (both from 0 to 1) → how far from the first colour to the second.
_PATTERNS: Mapping[str, Callable[[float, float], float]] = {
    "dusk": lambda x, y: y * 0.9 + 0.1 * math.sin(9 * x),
    "meadow": lambda x, y: (int(12 * x) * 7 + int(18 * y) * 11) % 13 / 13,
    "rings": lambda x, y: 0.5 + 0.5 * math.cos(40 * math.hypot(x - 0.5, 1.5 * (y - 0.4))),
    "waves": lambda x, y: 0.5 + 0.5 * math.sin(14 * y + 4 * math.sin(5 * x)),
    "weave": lambda x, y: 0.5 + 0.5 * math.sin(60 * x) * math.sin(90 * y),
    "leaves": lambda x, y: abs(math.sin(8 * x + 5 * y)) * abs(math.cos(7 * y - 3 * x)),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A preview and its colours."""

    pattern: str
    dark: Colour
    light: Colour


def png(picture: Picture) -> bytes:
    """The picture as the bytes of a PNG file."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", _palette(picture)),
        (b"IDAT", zlib.compress(_rows(picture.pattern))),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _palette(picture: Picture) -> bytes:
    shades = (
        round(dark + (light - dark) * step / 255)
        for step in range(256)
        for dark, light in zip(picture.dark, picture.light, strict=True)
    )
    return bytes(shades)


def _rows(pattern: str) -> bytes:
    """Each row of palette indices after the byte that says how it is filtered (0: not)."""
    value = _PATTERNS[pattern]
    return b"".join(
        b"\0" + bytes(min(255, max(0, round(255 * value(x / WIDTH, y / HEIGHT)))) for x in range(WIDTH))
        for y in range(HEIGHT)
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
