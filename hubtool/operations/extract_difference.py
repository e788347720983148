"""Reads two checkpoints' weights strip by strip and takes their difference.

Strips are read into buffers that are used again, not mapped: giving mapped pages back costs more than copying them, and a file
that is cut off meanwhile is an error here, not the end of the process.
"""

from __future__ import annotations

import math
import os
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.tensors import TORCH_DTYPES, to_torch
from hubtool.errors import NonFinite, StorageProblem
from hubtool.formats.tensor import FileBytes, LazyTensor
from hubtool.operations import svd

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from hubtool.operations.extract_pairs import Pair, Rows

_STRIP = 1 << 18  # elements: small enough for the caches, large enough that a system call each does not show


class Workspace:
    """What one worker computes in; buffers are reused, for fresh ones cost more in page faults than the difference itself."""

    def __init__(self) -> None:
        self._exact = self._quick = torch.empty(0)
        self._scratch = torch.empty(_STRIP)
        self._base, self._tuned = Strips(), Strips()

    def difference(self, pair: Pair) -> svd.Matrix | None:
        """ΔW = tuned − base in float32, (out, in · kernel); None if the two are the same bytes.

        Raises:
            NonFinite: a value is NaN or infinite.
            StorageProblem: a file cannot be read to its end.
        """
        if all(self._is_unchanged(rows) for rows in pair.rows):
            return None
        height, columns = pair.shape[0], prod(pair.shape[1:])
        self._fit(height * columns)
        exact = self._exact[: height * columns].view(height, columns)
        quick = exact if self._quick is self._exact else self._quick[: height * columns].view(height, columns)
        step, norm, done = max(1, _STRIP // max(columns, 1)), 0.0, 0
        for rows in pair.rows:
            count = prod(rows.base.tensor.shape) // columns
            for start in range(0, count, step):
                stop = min(start + step, count)
                block = exact[done + start : done + stop]
                self._subtract(block, rows, slice(start * columns, stop * columns))
                norm += svd.squared_norm(block)
                if quick is not exact:
                    quick[done + start : done + stop] = block
            done += count
        if not math.isfinite(norm):
            _report_non_finite(pair)
        return svd.Matrix(exact, quick, norm)

    def _is_unchanged(self, rows: Rows) -> bool:
        return rows.base.scale == rows.tuned.scale and self.is_same(rows.base.tensor, rows.tuned.tensor)

    def is_same(self, first: LazyTensor, second: LazyTensor) -> bool:
        """Whether two tensors hold the same bytes; stops at the first strip that differs."""
        if first.dtype != second.dtype or first.nbytes != second.nbytes:
            return False
        return all(
            torch.equal(_as_numbers(self._base.read(first, part)), _as_numbers(self._tuned.read(second, part)))
            for part in _parts(prod(first.shape))
        )

    def squared_change(self, base: LazyTensor, tuned: LazyTensor) -> float:
        """‖tuned − base‖² of any two tensors of as many elements."""
        if self.is_same(base, tuned):
            return 0.0
        changes = (
            self._tuned.read(tuned, part).float() - self._base.read(base, part).float()
            for part in _parts(prod(base.shape))
        )
        return sum(svd.squared_norm(change[None]) for change in changes)

    def _subtract(self, block: Tensor, rows: Rows, elements: slice) -> None:
        """Fill a block with the difference of these elements."""
        if block.numel() > self._scratch.numel():  # a single row can be longer than a strip
            self._scratch = torch.empty(block.numel())
        other = self._scratch[: block.numel()].view(block.shape)
        block.copy_(self._tuned.read(rows.tuned.tensor, elements).view(block.shape))
        other.copy_(self._base.read(rows.base.tensor, elements).view(block.shape))
        if rows.tuned.scale != 1.0 or rows.base.scale != 1.0:
            block.mul_(rows.tuned.scale)
            other.mul_(rows.base.scale)
        block.sub_(other)

    def _fit(self, elements: int) -> None:
        """Grow to the size needed; shrink where that halves it, which gives the memory back."""
        if elements <= self._exact.numel() <= 2 * elements:
            return
        dtype = svd.quick_dtype()
        self._exact = self._quick = torch.empty(0)  # before the new ones are made
        self._exact = torch.empty(elements)
        self._quick = self._exact if dtype is torch.float32 else torch.empty(elements, dtype=dtype)


class Strips:
    """Reads consecutive elements of tensors into one buffer; what is read is good until the next read."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def read(self, tensor: LazyTensor, elements: slice) -> Tensor:
        """Elements [start, stop) in row-major order, in the tensor's own dtype.

        Raises:
            StorageProblem: the file became shorter, or cannot be read.
        """
        data, dtype = tensor.data, TORCH_DTYPES.get(tensor.dtype)
        if dtype is None or not isinstance(data, FileBytes) or not hasattr(os, "preadv"):
            return to_torch(tensor).reshape(-1)[elements]
        size = (elements.stop - elements.start) * dtype.itemsize
        if size > self._buffer.numel():
            self._buffer = torch.empty(size, dtype=torch.uint8)
        view, done = memoryview(self._buffer[:size].numpy().data), 0
        position = data.start + elements.start * dtype.itemsize
        while done < size:
            try:
                count = os.preadv(data.file.descriptor, [view[done:]], position + done)
            except OSError as error:
                raise StorageProblem(data.file.path, (error.strerror or str(error)).rstrip(".")) from error
            if not count:
                raise StorageProblem(data.file.path, "the file became shorter while it was read")
            done += count
        return self._buffer[:size].view(dtype)


def prefetch(pair: Pair) -> None:
    """Ask the kernel to read ahead; where it can't, the first touch reads."""
    for data in (weight.tensor.data for rows in pair.rows for weight in rows.weights):
        if isinstance(data, FileBytes) and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(data.file.descriptor, data.start, data.stop - data.start, os.POSIX_FADV_WILLNEED)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _STRIP, count)) for start in range(0, count, _STRIP))


def _as_numbers(values: Tensor) -> Tensor:
    """The same bytes as wide integers, which compare quickly and as bytes (float comparison denies NaN)."""
    size = values.numel() * values.element_size()
    return values.reshape(-1).view(torch.int64 if size % 8 == 0 else torch.uint8)


def _report_non_finite(pair: Pair) -> None:
    """Say which file it is.

    Raises:
        NonFinite: always.
    """
    which = "difference"  # finite weights whose squares overflow
    for name, weights in (
        ("base model", [rows.base for rows in pair.rows]),
        ("tuned model", [rows.tuned for rows in pair.rows]),
    ):
        if not all(bool(torch.isfinite(to_torch(weight.tensor).float()).all()) for weight in weights):
            which = name
            break
    path = pair.module.path
    raise NonFinite(path, f"The {which} holds NaN or infinity in {path} ({pair.module.component.value}).")
