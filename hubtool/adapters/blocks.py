"""Rows and columns of stored matrices, by their bytes: stacking, cutting, and finding a block-diagonal `up`.

No arithmetic happens here, so no torch is needed; results are computed when their bytes are asked for.
"""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from hubtool.formats.tensor import DTYPE_BITS, LazyTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def item_size(tensor: LazyTensor) -> int:
    """Bytes of one element."""
    return DTYPE_BITS[tensor.dtype] // 8


def stacked(tensors: Sequence[LazyTensor]) -> LazyTensor:
    """Rows of all tensors, one after the other."""
    first = tensors[0]
    rows = sum(tensor.shape[0] for tensor in tensors)
    return _later(first, (rows, *first.shape[1:]), lambda: b"".join(bytes(tensor.view()) for tensor in tensors))


def halves_swapped(tensor: LazyTensor) -> LazyTensor:
    """The second half of the rows before the first."""
    half = tensor.shape[0] // 2
    return stacked([tensor.rows(half, tensor.shape[0]), tensor.rows(0, half)])


def zeros(like: LazyTensor, rows: int) -> LazyTensor:
    """Rows of zeros, as wide as `like`."""
    shape = (rows, *like.shape[1:])
    return _later(like, shape, lambda: bytes(prod(shape) * item_size(like)))


def columns(tensor: LazyTensor, start: int, stop: int) -> LazyTensor:
    """Columns [start, stop) of an (out, rank) matrix."""
    size, width = item_size(tensor), tensor.shape[1]

    def cut() -> bytes:
        raw = bytes(tensor.view())
        row, a, b = width * size, start * size, stop * size
        return b"".join(raw[i + a : i + b] for i in range(0, len(raw), row))

    return _later(tensor, (tensor.shape[0], stop - start, *tensor.shape[2:]), cut)


def block_diagonal(blocks: Sequence[LazyTensor]) -> LazyTensor:
    """(Σ outᵢ, Σ rankᵢ) with each block in its own rows and columns and zeros elsewhere."""
    first, size = blocks[0], item_size(blocks[0])
    ranks = [block.shape[1] for block in blocks]
    starts = [0, *accumulate(ranks)]

    def build() -> bytes:
        pieces: list[bytes] = []
        for block, start in zip(blocks, starts, strict=False):
            raw, row = bytes(block.view()), block.shape[1] * size
            left, right = bytes(start * size), bytes((starts[-1] - start - block.shape[1]) * size)
            if not row:
                pieces.append(bytes(block.shape[0] * starts[-1] * size))
                continue
            for i in range(0, len(raw), row):
                pieces += (left, raw[i : i + row], right)
        return b"".join(pieces)

    shape = (sum(block.shape[0] for block in blocks), starts[-1], *first.shape[2:])
    return _later(first, shape, build)


def same_bytes(tensors: Sequence[LazyTensor]) -> bool:
    """Whether all tensors are bit for bit equal."""
    first = tensors[0]
    return all(
        tensor.data is first.data
        or (tensor.dtype == first.dtype and tensor.shape == first.shape and tensor.view() == first.view())
        for tensor in tensors[1:]
    )


def find_partition(up: LazyTensor, rows: Sequence[int], known: Sequence[int] | None = None) -> list[int] | None:
    """The ranks of the parts if `up` (Σ rows, rank) is block-diagonal over them, else None (dense).

    A recorded partition (`known`) is taken if the zeros allow it; then equal parts, as trainers write them; then whatever parts
    the zeros show, where a part without any column has rank 0. An all-zero `up` is block-diagonal in equal parts.
    """
    rank = up.shape[1]
    used = _used_columns(up, rows)
    if used is None:
        return None
    tries = [list(known)] if known is not None and sum(known) == rank and len(known) == len(rows) else []
    if rank % len(rows) == 0:
        tries.append([rank // len(rows)] * len(rows))
    tries.append(_spans(used, rank))
    return next((parts for parts in tries if sum(parts) == rank and _within(used, parts)), None)


def _used_columns(up: LazyTensor, rows: Sequence[int]) -> list[set[int]] | None:
    """For each part's rows, the columns that hold a non-zero byte; None as soon as two parts share one."""
    size, width = item_size(up), up.shape[1] * item_size(up)
    if any(
        not first.isdisjoint(second)
        for first, second in _pairs([_columns_of(up, r, r + 1, size) for r in _starts(rows)])
    ):
        return None
    used: list[set[int]] = []
    for start, count in zip(_starts(rows), rows, strict=True):
        found = _columns_of(up, start, start + count, size) if width else set()
        if any(not found.isdisjoint(other) for other in used):
            return None
        used.append(found)
    return used


def _starts(rows: Sequence[int]) -> list[int]:
    return [0, *accumulate(rows)][:-1]


def _pairs(sets: Sequence[set[int]]) -> list[tuple[set[int], set[int]]]:
    return [(a, b) for i, a in enumerate(sets) for b in sets[i + 1 :]]


def _columns_of(up: LazyTensor, start: int, stop: int, size: int) -> set[int]:
    """Columns with a non-zero byte in these rows: all rows OR-ed together as long integers."""
    raw, width, seen = bytes(up.rows(start, stop).view()), up.shape[1] * size, 0
    for i in range(0, len(raw), width or 1):
        seen |= int.from_bytes(raw[i : i + width], "little")
    flags = seen.to_bytes(width, "little")
    return {column for column in range(up.shape[1]) if any(flags[column * size : (column + 1) * size])}


def _spans(used: Sequence[set[int]], rank: int) -> list[int]:
    """Ranks where each part reaches from its first column to the next part's first; a part without columns has none."""
    filled = [(min(columns), index) for index, columns in enumerate(used) if columns]
    if not filled or filled != sorted(filled):
        return [0] * len(used)
    ranks = [0] * len(used)
    bounds = [0, *(first for first, _ in filled[1:]), rank]
    for (_, index), start, stop in zip(filled, bounds, bounds[1:], strict=False):
        ranks[index] = stop - start
    return ranks


def _within(used: Sequence[set[int]], parts: Sequence[int]) -> bool:
    starts = _starts(parts)
    return all(columns <= set(range(a, a + n)) for columns, a, n in zip(used, starts, parts, strict=True))


def _later(like: LazyTensor, shape: tuple[int, ...], build: Callable[[], bytes]) -> LazyTensor:
    return LazyTensor(like.dtype, shape, lambda: memoryview(build()))
