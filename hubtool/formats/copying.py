"""Copies byte ranges from files into a file, in the kernel where the platform can."""

from __future__ import annotations

import errno
import os
from typing import IO, TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLOCK = 1 << 20  # 1 MiB was the quickest read/write size measured
_SMALL = 1 << 16  # below this a plain write beats a system call per range
_NOT_HERE = {
    errno.EXDEV,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}


class Piece(NamedTuple):
    """Bytes [start, stop) of an open file, or a buffer when `descriptor` is None."""

    descriptor: int | None
    start: int
    stop: int
    buffer: memoryview | None = None


def copy_pieces(out: IO[bytes], pieces: Iterable[Piece]) -> None:
    """Append the pieces to `out` in order; neighbouring ranges of one file become one copy."""
    for piece in _joined(pieces):
        if piece.descriptor is None:
            out.write(piece.buffer or b"")
        elif piece.stop - piece.start < _SMALL:
            _copy_by_hand(out, piece)
        else:
            out.flush()
            _copy_in_kernel(out, piece)
    out.flush()


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    pending: Piece | None = None
    for piece in pieces:
        if piece.start == piece.stop:
            continue
        if (
            pending
            and piece.descriptor is not None
            and (piece.descriptor, piece.start) == (pending.descriptor, pending.stop)
        ):
            pending = pending._replace(stop=piece.stop)
            continue
        if pending:
            yield pending
        pending = piece
    if pending:
        yield pending


def _copy_in_kernel(out: IO[bytes], piece: Piece) -> None:
    """`copy_file_range`, which shares extents on XFS and btrfs; by hand for what it cannot do."""
    copy = getattr(os, "copy_file_range", None)
    position = piece.start
    while copy and position < piece.stop:
        try:
            copied = copy(piece.descriptor, out.fileno(), piece.stop - position, position)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            break
        if not copied:
            break
        position += copied
    if position < piece.stop:
        out.seek(0, os.SEEK_CUR)
        _copy_by_hand(out, piece._replace(start=position))


def _copy_by_hand(out: IO[bytes], piece: Piece) -> None:
    assert piece.descriptor is not None  # noqa: S101  # buffers never come here
    position = piece.start
    while position < piece.stop:
        block = _read(piece.descriptor, min(_BLOCK, piece.stop - position), position)
        if not block:
            raise OSError(errno.EIO, "the source file became shorter while it was copied")
        out.write(block)
        position += len(block)


def _read(descriptor: int, size: int, position: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, position)
    os.lseek(descriptor, position, os.SEEK_SET)  # Windows
    return os.read(descriptor, size)
