"""The directory of a zip archive whose entries are stored as they are, as torch writes them: names and byte ranges.

APPNOTE.TXT 6.3 (PKWARE), with zip64. Stricter than unzipping: no compression, no encryption, no entry twice, no two entries
in one place, nothing that the local headers and the directory disagree about. So an entry is a byte range of the file, and
no small file can become a large one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hubtool.errors import TruncatedFile, UnsafePickle
from hubtool.formats.tensor import FileBytes

if TYPE_CHECKING:
    from hubtool.formats.tensor import MappedFile

MAX_ENTRIES = 100_000
_MAX_DIRECTORY_BYTES = 32 << 20
_MAX_COMMENT = 0xFFFF
_END = struct.Struct("<4s4H2LH")  # end of central directory
_LOCATOR = struct.Struct("<4sLQL")  # zip64: where its own end record is
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")  # central directory
_LOCAL = struct.Struct("<4s5H3L2H")
_NONE32, _NONE16 = 0xFFFFFFFF, 0xFFFF  # "see the zip64 field"
_ENCRYPTED = 1


class _Directory(NamedTuple):
    start: int
    size: int
    entries: int


class _Entry(NamedTuple):
    """One row of the central directory."""

    name: bytes
    size: int
    header: int  # where its local header begins


def stored_entries(file: MappedFile) -> dict[str, FileBytes]:
    """Name → bytes of every entry.

    Raises:
        TruncatedFile: the directory at the end is missing.
        UnsafePickle: it is not as torch writes it.
    """
    directory = _directory(file)
    if directory.entries > MAX_ENTRIES or directory.size > _MAX_DIRECTORY_BYTES:
        _refuse(file, f"lists {directory.entries} entries, more than any model has")
    if directory.start + directory.size > file.size:
        raise TruncatedFile(file.path, f"{file.path.name} is cut off.", rule="E_TRUNCATED_DATA")
    found: dict[str, FileBytes] = {}
    end = 0
    for entry in sorted(_entries(file, directory), key=lambda entry: entry.header):
        name = entry.name.decode("utf-8", "backslashreplace")
        data = _data(file, entry)
        if name in found:
            _refuse(file, "holds an entry twice")
        if entry.header < end or data.stop > directory.start:
            _refuse(file, "holds entries that overlap")
        found[name], end = data, data.stop
    return found


def _directory(file: MappedFile) -> _Directory:
    start = max(0, file.size - _END.size - _MAX_COMMENT)
    tail = bytes(file.view(start, file.size))
    position = tail.rfind(b"PK\5\6")
    if position < 0 or len(tail) - position < _END.size:
        message = f"{file.path.name} is cut off: the archive's directory, which comes last, is missing."
        raise TruncatedFile(file.path, message, rule="E_TRUNCATED_DATA")
    _, disk, first, _, entries, size, offset, _ = _END.unpack_from(tail, position)
    if disk or first:
        _refuse(file, "is one part of several")
    if _NONE32 not in {size, offset} and entries != _NONE16:
        return _Directory(offset, size, entries)
    return _directory64(file, start + position)


def _directory64(file: MappedFile, end: int) -> _Directory:
    raw = bytes(file.view(max(0, end - _LOCATOR.size), end))
    if len(raw) < _LOCATOR.size or not raw.startswith(b"PK\6\7"):
        _refuse(file, "has no zip64 directory where one should be")
    _, _, position, _ = _LOCATOR.unpack(raw)
    if position + _END64.size > end:
        _refuse(file, "points to a directory beyond its end")
    fields = _END64.unpack(bytes(file.view(position, position + _END64.size)))
    if fields[0] != b"PK\6\6":
        _refuse(file, "has no zip64 directory where one should be")
    return _Directory(start=fields[9], size=fields[8], entries=fields[7])


def _entries(file: MappedFile, directory: _Directory) -> list[_Entry]:
    raw = bytes(file.view(directory.start, directory.start + directory.size))
    found, position = [], 0
    for _ in range(directory.entries):
        if position + _ENTRY.size > len(raw) or raw[position : position + 4] != b"PK\1\2":
            _refuse(file, "has a damaged directory")
        (_, _, _, flags, method, _, _, _, packed, size, name, extra, comment, _, _, _, header) = _ENTRY.unpack_from(
            raw, position
        )
        position += _ENTRY.size
        fields = raw[position + name : position + name + extra]
        if flags & _ENCRYPTED or method:
            _refuse(file, "is compressed or encrypted, which torch's own files are not")
        size, packed, header = _wide(file, fields, (size, packed, header))
        if size != packed:
            _refuse(file, "states two sizes for an entry")
        found.append(_Entry(raw[position : position + name], size, header))
        position += name + extra + comment
    return found


def _wide(file: MappedFile, extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """The sizes and the offset, taken from the zip64 field where they do not fit 32 bits."""
    if _NONE32 not in values:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            numbers = list(struct.unpack_from(f"<{min(length, len(extra) - position - 4) // 8}Q", extra, position + 4))
            wide = [numbers.pop(0) if value == _NONE32 and numbers else value for value in values]
            return wide[0], wide[1], wide[2]
        position += 4 + length
    return _refuse(file, "lacks the zip64 sizes of an entry")


def _data(file: MappedFile, entry: _Entry) -> FileBytes:
    if entry.header + _LOCAL.size > file.size:
        _refuse(file, "points to an entry beyond its end")
    raw = bytes(file.view(entry.header, entry.header + _LOCAL.size))
    signature, _, flags, method, _, _, _, _, _, name, extra = _LOCAL.unpack(raw)
    start = entry.header + _LOCAL.size + name + extra
    if signature != b"PK\3\4" or method or flags & _ENCRYPTED or start + entry.size > file.size:
        _refuse(file, "has entries that are not where its directory says")
    if bytes(file.view(entry.header + _LOCAL.size, entry.header + _LOCAL.size + name)) != entry.name:
        _refuse(file, "gives an entry two names")
    return FileBytes(file, start, start + entry.size)


def _refuse(file: MappedFile, problem: str) -> NoReturn:
    raise UnsafePickle(file.path, f"The archive {file.path.name} {problem}.")
