"""Decompression in bounded pieces, of the one encoding that is asked for.

The decoders of the HTTP library inflate whatever comes as a whole, and one layer after the other where an answer claims
several: 64 KiB of a bomb in a bomb would be gigabytes in memory before anyone could count them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIECE_BYTES = 1 << 18


class BadEncoding(ValueError):  # never leaves this package
    """The body is not compressed as it says, or in a way that was not asked for."""


def decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body as it comes, decompressed.

    >>> import gzip
    >>> b"".join(decoded([gzip.compress(b"abc")], "gzip"))
    b'abc'

    Raises:
        BadEncoding: it is damaged, cut short, or of another encoding than gzip.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        yield from chunks
    elif name in {"gzip", "x-gzip"}:
        yield from _inflated(chunks)
    else:
        raise BadEncoding(name)


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    engine = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for chunk in chunks:
            rest, piece = chunk, b"\0" * PIECE_BYTES
            # a full piece may have left something behind inside the engine
            while (rest or len(piece) == PIECE_BYTES) and not engine.eof:
                piece = engine.decompress(rest, PIECE_BYTES)
                rest = engine.unconsumed_tail
                if piece:
                    yield piece
            if engine.eof:  # what follows belongs to nobody
                return
    except zlib.error as error:
        raise BadEncoding("damaged") from error
    raise BadEncoding("cut short")
