"""EXIF inside files that are made of boxes: AVIF (and HEIF), where a table says at which bytes it lies, and JPEG XL.

Sources: ISO/IEC 14496-12 (meta, iinf, infe, iloc), 23008-12 (the item of type Exif), 18181-2 (JPEG XL's Exif box). Both put a
number before the TIFF data that says how many bytes to pass over.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JXL = b"\0\0\0\x0cJXL \r\n\x87\n"
_ENTRIES = {2: (">H", 8), 3: (">I", 10)}  # version of `infe` → form of its number, place of its type
_BOXES = 1 << 16  # of a file; real ones have five
_ITEMS = 4096  # entries of a table that are looked at; real files have five


def exif_of_boxes(body: bytes) -> Iterator[bytes]:
    """The TIFF data of every EXIF in such a file; none in any other. Broken boxes are passed over."""
    try:
        if body.startswith(_JXL):
            yield from (_tiff(data) for kind, data in _boxes(body) if kind == b"Exif")
        elif body[4:8] == b"ftyp":
            for kind, data in _boxes(body):
                if kind == b"meta":
                    yield from _items(body, data[4:])
    except (struct.error, IndexError):  # it ends where something should follow
        return


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    for _ in range(_BOXES):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:  # a longer size follows
            size = struct.unpack_from(">Q", data, start)[0]
            start += 8
        stop = at + size if size else len(data)
        if stop < start:
            return
        yield kind, data[start:stop]
        at = stop


def _tiff(data: bytes) -> bytes:
    return data[4 + struct.unpack_from(">I", data)[0] :]


def _items(body: bytes, meta: bytes) -> Iterator[bytes]:
    inside = dict(_boxes(meta))
    wanted = set(_exif_ids(inside.get(b"iinf", b"")))
    if not wanted or b"iloc" not in inside:
        return
    for item, start, length in _places(inside[b"iloc"]):
        if item in wanted:
            yield _tiff(body[start : start + length])


def _exif_ids(table: bytes) -> Iterator[int]:
    """`iinf`: one `infe` box for each item, with its number and type."""
    if not table:
        return
    for kind, entry in _boxes(table[6 if table[0] == 0 else 8 :]):
        form, type_at = _ENTRIES.get(entry[0] if kind == b"infe" else 0, ("", 0))
        if form and entry[type_at : type_at + 4] == b"Exif":
            yield struct.unpack_from(form, entry, 4)[0]


def _places(table: bytes) -> Iterator[tuple[int, int, int]]:
    """`iloc`: (item, start, length) of the first extent of each item that lies in the file itself."""
    reader = _Reader(table)
    version = reader.take(1)
    reader.take(3)
    sizes = reader.take(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(min(reader.take(2 if version < 2 else 4), _ITEMS)):
        item = reader.take(2 if version < 2 else 4)
        method = reader.take(2) & 15 if version else 0
        reader.take(2)
        start = reader.take(base)
        for extent in range(min(reader.take(2), _ITEMS)):
            reader.take(index if version else 0)
            at, size = start + reader.take(offset), reader.take(length)
            if extent == 0 and method == 0:
                yield item, at, size


class _Reader:
    """Numbers of given sizes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> int:
        """The next number of so many bytes.

        Raises:
            IndexError: the data ends before.
        """
        stop = self._at + size
        if stop > len(self._data):
            raise IndexError(stop)
        number = int.from_bytes(self._data[self._at : stop], "big")
        self._at = stop
        return number
