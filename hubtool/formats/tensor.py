"""A tensor as (dtype, shape, bytes), where the bytes stay in their file until somebody looks at them."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Shape = tuple[int, ...]

#: Bits an element takes, per dtype name of the safetensors format (safetensors 0.8, `Dtype` in tensor.rs).
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

#: How `struct` reads one element; BF16 is the upper half of an F32 and is handled apart.
_SCALARS: Mapping[str, str] = {
    "F16": "<e", "F32": "<f", "F64": "<d", "U8": "<B", "I8": "<b", "BOOL": "<?",
    "I16": "<h", "U16": "<H", "I32": "<i", "U32": "<I", "I64": "<q", "U64": "<Q",
}  # fmt: skip


_FEW = 512  # bytes
#: Without waiting: a pipe that takes the place of a file that was just looked at must not hang us.
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class MappedFile:
    """A read-only file, open for as long as a tensor points into it; mapped on first use."""

    __slots__ = ("_map", "descriptor", "path", "size")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, _READ_ONLY)
        self.size = os.fstat(self.descriptor).st_size
        self._map: mmap.mmap | None = None

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of the file, without copying them unless they are few."""
        if stop - start <= _FEW and hasattr(os, "pread"):  # a page fault would map 64 KiB around each alpha
            return memoryview(os.pread(self.descriptor, stop - start, start))
        if start == stop:  # an empty file cannot be mapped
            return memoryview(b"")
        if self._map is None:
            self._map = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        return memoryview(self._map)[start:stop]

    def blocks(self, start: int, stop: int, size: int) -> Iterator[bytes]:
        """Bytes [start, stop) in copies of `size`: read, not mapped, so that a long pass stays small."""
        for position in range(start, stop, size):
            count = min(size, stop - position)
            if hasattr(os, "pread"):
                yield os.pread(self.descriptor, count, position)
            else:
                yield bytes(self.view(position, position + count))

    def forget(self, start: int, stop: int) -> None:
        """Give the pages of [start, stop) back to the kernel, so that a long pass stays small."""
        if self._map is None or not hasattr(self._map, "madvise"):
            return
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def __del__(self) -> None:
        descriptor, self.descriptor = getattr(self, "descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes [start, stop) of a file."""

    file: MappedFile
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class LazyTensor:
    """A tensor whose elements are read, or computed, only when asked for. Row-major, little-endian."""

    dtype: str
    shape: Shape
    data: FileBytes | bytes | memoryview | Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""
        return nbytes(self.dtype, self.shape)

    def view(self) -> memoryview:
        """The elements as raw bytes, mapped rather than copied where they lie in a file."""
        if isinstance(self.data, FileBytes):
            return self.data.file.view(self.data.start, self.data.stop)
        return (self.data() if callable(self.data) else memoryview(self.data)).cast("B")

    def blocks(self, size: int) -> Iterator[bytes]:
        """The elements as raw bytes, `size` at a time."""
        if isinstance(self.data, FileBytes):
            return self.data.file.blocks(self.data.start, self.data.stop, size)
        view = self.view()
        return (bytes(view[start : start + size]) for start in range(0, len(view), size))

    def reshaped(self, shape: Shape) -> LazyTensor:
        """The same elements under another shape of equal size."""
        if prod(shape) != prod(self.shape):
            raise ValueError(f"{self.shape} has not as many elements as {shape}")
        return replace(self, shape=shape)

    def rows(self, start: int, stop: int) -> LazyTensor:
        """Rows [start, stop) of the first axis; a byte range of the same file."""
        row = nbytes(self.dtype, self.shape[1:])
        shape = (stop - start, *self.shape[1:])
        if isinstance(self.data, FileBytes):
            begin = self.data.start + start * row
            return LazyTensor(self.dtype, shape, FileBytes(self.data.file, begin, begin + (stop - start) * row))
        return LazyTensor(self.dtype, shape, lambda: self.view()[start * row : stop * row])

    def scalar(self) -> float:
        """The value of a one-element tensor.

        Raises:
            ValueError: more than one element, or a dtype that has no plain number.
        """
        if prod(self.shape) != 1:
            raise ValueError(f"not one number but {self.shape}")
        raw = bytes(self.view())
        if self.dtype == "BF16":
            return float(struct.unpack("<f", b"\0\0" + raw)[0])
        if self.dtype not in _SCALARS:
            raise ValueError(f"no number in a {self.dtype}")
        return float(struct.unpack(_SCALARS[self.dtype], raw)[0])


def nbytes(dtype: str, shape: Shape) -> int:
    """Bytes that a tensor takes; sub-byte dtypes are packed.

    >>> nbytes("F16", (320, 4))
    2560
    """
    return prod(shape) * DTYPE_BITS[dtype] // 8


def scalar_tensor(value: float, dtype: str = "F32", shape: Shape = ()) -> LazyTensor:
    """A one-element tensor; integer dtypes take the nearest integer.

    >>> scalar_tensor(8, "BF16").scalar()
    8.0
    """
    if dtype == "BF16":
        # round to nearest even, as torch does
        bits = int.from_bytes(struct.pack("<f", value), "little")
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return LazyTensor(dtype, shape, bits.to_bytes(2, "little"))
    code = _SCALARS[dtype]
    number = round(value) if code[1] in "bBhHiIqQ" else value
    return LazyTensor(dtype, shape, struct.pack(code, number))
