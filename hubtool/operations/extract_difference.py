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

    from hubtool.adapters.checkpoint import Weight
    from hubtool.operations.extract_pairs import Pair, Rows

_STRIP = 1 << 19  # elements: small enough for the caches, large enough that calls and system calls do not show
_DEVICE_STRIP = 1 << 24  # elements sent to another device at once


class Workspace:
    """What one worker computes in; buffers are reused, for fresh ones cost more in page faults than the difference itself."""

    def __init__(self, device: str = "cpu", seed: int = 0) -> None:
        self._seed = seed
        self._exact = torch.empty(0, device=device)
        self._quick = torch.empty(0, dtype=svd.quick_dtype(device), device=device)
        self._step = _STRIP if device == "cpu" else _DEVICE_STRIP
        self._tuned_block, self._base_block = (torch.empty(self._step, device=device) for _ in range(2))
        self._base, self._tuned = Strips(), Strips()

    def difference(self, pair: Pair) -> svd.Matrix | None:
        """ΔW = tuned − base, (out, in · kernel), good until the next one is asked for; None if the two are the same bytes.

        Kept in the dtype that it is searched in. The float32 values are taken from the files again if they are needed:
        keeping them cost as much as the difference itself, for every module.

        Raises:
            NonFinite: a value is NaN or infinite.
            StorageProblem: a file cannot be read to its end.
        """
        if all(self._is_unchanged(rows) for rows in pair.rows):
            return None
        height, columns = pair.shape[0], prod(pair.shape[1:])
        self._quick = _fitted(self._quick, height * columns)
        norm = self._subtract(pair, self._quick)
        if not math.isfinite(norm):
            _report_non_finite(pair)
        quick = self._quick[: height * columns].view(height, columns)
        return svd.Matrix(quick, norm, lambda: self._recall(pair), self._seed)

    def _recall(self, pair: Pair) -> Tensor:
        """The same in float32."""
        height, columns = pair.shape[0], prod(pair.shape[1:])
        self._exact = _fitted(self._exact, height * columns)
        self._subtract(pair, self._exact)
        return self._exact[: height * columns].view(height, columns)

    def _subtract(self, pair: Pair, out: Tensor) -> float:
        """Fill a buffer with the difference, computed in float32; returns ‖ΔW‖² (strips in float32, their sum in float64)."""
        norm, done = 0.0, 0
        for rows in pair.rows:
            count = prod(rows.base.tensor.shape)
            for part in _parts(count, self._step):
                size = part.stop - part.start
                tuned, base = self._tuned_block[:size], self._base_block[:size]
                tuned.copy_(self._tuned.read(rows.tuned.tensor, part))
                base.copy_(self._base.read(rows.base.tensor, part))
                if rows.tuned.scale != 1.0 or rows.base.scale != 1.0:
                    tuned.mul_(rows.tuned.scale)
                    base.mul_(rows.base.scale)
                tuned.sub_(base)
                out[done : done + size] = tuned
                norm += float(torch.mul(tuned, tuned, out=base).sum())  # not `dot`, which loses 1e-5 of it
                done += size
        return norm

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

    def squared_change(self, base: Weight, tuned: Weight) -> float:
        """‖tuned − base‖² of any two tensors of as many elements."""
        if base.scale == tuned.scale and self.is_same(base.tensor, tuned.tensor):
            return 0.0
        changes = (
            self._tuned.read(tuned.tensor, part).float() * tuned.scale
            - self._base.read(base.tensor, part).float() * base.scale
            for part in _parts(prod(base.tensor.shape))
        )
        return sum(svd.squared_norm(change[None]) for change in changes)


def _fitted(buffer: Tensor, elements: int) -> Tensor:
    """Grown to the size needed; shrunk where that halves it, which gives the memory back."""
    if elements <= buffer.numel() <= 2 * elements:
        return buffer
    dtype, device = buffer.dtype, buffer.device
    del buffer
    return torch.empty(elements, dtype=dtype, device=device)


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


def _parts(count: int, step: int = _STRIP) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


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
