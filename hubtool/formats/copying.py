"""Copies byte ranges from files into a file: shared extents where the file system has them, else a small reused buffer.

Measured on ext4, 1 GB from the page cache, fsync included: 256 KiB buffer 0.66 s, `copy_file_range` 0.79 s, `cp` 0.69 s.
Sharing extents (XFS, btrfs) takes milliseconds and no disk space, whatever the size.
"""

from __future__ import annotations

import errno
import io
import os
import struct
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # tested before every use

_BUFFER = 1 << 18  # fits the second-level cache; 1 MiB and more were slower
_BLOCK = 4096  # file system blocks: shared ranges must begin and end on them
_WORTH_SHARING = 1 << 20
_FICLONERANGE = 0x4020940D  # linux/fs.h: _IOW(0x94, 13, struct file_clone_range)


class Piece(NamedTuple):
    """Bytes [start, stop) of an open file, or a buffer when `descriptor` is None."""

    descriptor: int | None
    start: int
    stop: int
    buffer: memoryview | None = None


def copy_pieces(out: IO[bytes], pieces: Iterable[Piece]) -> None:
    """Append the pieces to `out` in order; neighbouring ranges of one file become one copy.

    Raises:
        OSError: from either file, also when the source has become shorter.
    """
    buffer = bytearray(_BUFFER)
    for piece in _joined(pieces):
        if piece.descriptor is None:
            out.write(piece.buffer or b"")
        else:
            _copy_range(out, piece, buffer)
    out.flush()


def reserve(out: IO[bytes], size_bytes: int) -> None:
    """Have the file system find the space now: a full disk is known at once, and the copy is quicker.

    Raises:
        OSError: no space left.
    """
    if not hasattr(os, "posix_fallocate") or not size_bytes:
        return
    try:
        os.posix_fallocate(out.fileno(), 0, size_bytes)
    except io.UnsupportedOperation:
        return  # no file of the operating system: a buffer in memory
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    pending: Piece | None = None
    for piece in pieces:
        if piece.start == piece.stop:
            continue
        if pending and piece.descriptor is not None and _follows(piece, pending):
            pending = pending._replace(stop=piece.stop)
            continue
        if pending:
            yield pending
        pending = piece
        if piece.descriptor is None:  # written before the next one is made: memory holds one
            yield piece
            pending = None
    if pending:
        yield pending


def _follows(piece: Piece, pending: Piece) -> bool:
    return (piece.descriptor, piece.start) == (pending.descriptor, pending.stop)


def _copy_range(out: IO[bytes], piece: Piece, buffer: bytearray) -> None:
    """A few bytes up to a block border, whole blocks shared if that can be, the rest by hand."""
    start = piece.start
    if piece.stop - piece.start >= _WORTH_SHARING and (out.tell() - start) % _BLOCK == 0:
        border = -(-start // _BLOCK) * _BLOCK
        _copy_by_hand(out, piece._replace(stop=border), buffer)
        out.flush()
        start = border + _shared(out, piece._replace(start=border, stop=piece.stop // _BLOCK * _BLOCK))
    _copy_by_hand(out, piece._replace(start=start), buffer)


def _shared(out: IO[bytes], piece: Piece) -> int:
    """Let the output share the source's blocks; returns how many bytes that was, 0 where it cannot be done."""
    size, target = piece.stop - piece.start, out.tell()
    if fcntl is None:
        return 0
    request = struct.pack("=qQQQ", piece.descriptor, piece.start, size, target)
    try:
        fcntl.ioctl(out.fileno(), _FICLONERANGE, request)
    except io.UnsupportedOperation:
        return 0
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        return 0  # another file system, or one without shared extents
    out.seek(target + size)
    return size


def _copy_by_hand(out: IO[bytes], piece: Piece, buffer: bytearray) -> None:
    assert piece.descriptor is not None  # noqa: S101  # buffers never come here
    position, view = piece.start, memoryview(buffer)
    while position < piece.stop:
        count = _read_into(piece.descriptor, view[: piece.stop - position], position)
        if not count:
            raise OSError(errno.EIO, "the source file became shorter while it was copied")
        out.write(view[:count])
        position += count


def _read_into(descriptor: int, view: memoryview, position: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], position)
    os.lseek(descriptor, position, os.SEEK_SET)  # Windows
    block = os.read(descriptor, len(view))
    view[: len(block)] = block
    return len(block)
