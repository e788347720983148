"""Safetensors files built from literal bytes, so that the code under test has no part in making its own input."""

from __future__ import annotations

import json
import struct
import zlib
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: Bytes of one element; the packed dtypes (F4, F6) are left out, they have no element of whole bytes.
ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


class Raw(NamedTuple):
    """One tensor as the container stores it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __repr__(self) -> str:
        """Without the bytes, which fill pages when a test fails."""
        return f"Raw({self.dtype}, {self.shape}, {zlib.crc32(self.data):08x})"


def container(header: object, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Length field, header, body. A header that is no `bytes` or `str` becomes JSON; `length` makes the field lie."""
    text = header if isinstance(header, (bytes, str)) else json.dumps(header)
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def packed(tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None, *, pad: int = 8) -> bytes:
    """A sound file with the tensors in the order given; `pad` is what the header's end is aligned to."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for key, tensor in tensors.items():
        header[key] = entry(tensor.dtype, tensor.shape, position, position + len(tensor.data))
        position += len(tensor.data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % pad)
    return container(text, b"".join(tensor.data for tensor in tensors.values()))


def entry(dtype: object, shape: object, start: int, stop: int) -> dict[str, object]:
    """A tensor's row in the header."""
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, stop]}


def write(path: Path, tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None, *, pad: int = 8) -> Path:
    """A sound file on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(tensors, metadata, pad=pad))
    return path


def write_sparse(path: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A file whose tensors are holes (zeros) and take no room, however large; key → (dtype, shape)."""
    header: dict[str, object] = {}
    position = 0
    for key, (dtype, shape) in shapes.items():
        size = prod(shape) * ITEM_BYTES[dtype]
        header[key] = entry(dtype, shape, position, position + size)
        position += size
    with path.open("wb") as out:
        out.write(container(json.dumps(header)))
        out.truncate(out.tell() + position)
    return path


# ---------------------------------------------------------------- values


def floats(values: Iterable[float] | np.ndarray, dtype: str) -> bytes:
    """Numbers as little-endian elements; BF16 by cutting F32, F8 by multiplying out its few bits."""
    array = np.asarray(values, dtype=np.float64)
    if dtype == "BF16":
        return (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    if dtype.startswith("F8"):
        return (np.abs(array * 1000).astype("<u4") % 0x70).astype("u1").tobytes()
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I8": "<i1", "U8": "<u1"}
    return array.astype(kinds[dtype]).tobytes()


def numbers(raw: bytes, dtype: str) -> np.ndarray:
    """The reverse of `floats` for the plain dtypes, as float64."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}
    return np.frombuffer(raw, kinds[dtype]).astype(np.float64)


def random_tensor(seed: int, shape: tuple[int, ...], dtype: str = "F16", scale: float = 0.05) -> Raw:
    """Normally distributed values, the same for the same seed."""
    values = np.random.default_rng(seed).standard_normal(prod(shape)) * scale
    return Raw(dtype, shape, floats(values, dtype))


def number(value: float, dtype: str = "F32", shape: tuple[int, ...] = ()) -> Raw:
    """A tensor of equal elements, one if no shape is given."""
    return Raw(dtype, shape, floats([value] * prod(shape), dtype))


def parsed(raw: bytes) -> tuple[dict[str, Raw], dict[str, str]]:
    """Tensors and metadata of a sound file, read in the most literal way."""
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    body = memoryview(raw)[8 + length :]
    tensors = {}
    for key, row in header.items():
        start, stop = row["data_offsets"]
        tensors[key] = Raw(row["dtype"], tuple(row["shape"]), bytes(body[start:stop]))
    return tensors, metadata
