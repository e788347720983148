"""Reader and writer of the safetensors container.

Every rule of the format's specification is checked (huggingface/safetensors README "Format", and
`tensor.rs` 0.8), plus those that the reference parser leaves open: duplicate keys, at most 64 dimensions,
a bound on the number of tensors, and that the path names a regular file. Nothing is read but the header
until a tensor's bytes are asked for.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from hubtool.errors import BadHeader, FileMissing, NotRegularFile, StorageProblem, TruncatedFile
from hubtool.formats.copying import Piece, copy_pieces, reserve
from hubtool.formats.magic import refuse_foreign_bytes
from hubtool.formats.tensor import DTYPE_BITS, FileBytes, LazyTensor, MappedFile, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import IO

#: The format allows 100 MB (tensor.rs MAX_HEADER_SIZE), but that much of a stranger's JSON unpacks to 2.4 GB in 25 s. The
#: longest real headers (millions of tags, thumbnails) are far below this, and those that are not are refused in no time.
MAX_HEADER_BYTES = 32 << 20
_MAX_UNICODE_BYTES = 16 << 20  # one emoji makes Python take four bytes for every character
_LONG_HEADER_BYTES = 2 << 20  # from here on, all but a few MB must be text
_MAX_STRINGS = 1_000_000
_MAX_BARE_BYTES = 4 << 20  # brackets, commas and numbers: 40 bytes a tensor
MAX_TENSORS = 20_000  # LoKr's nine for each of the 1,370 modules of the largest model are 12,330; time grows with it
MAX_DIMENSIONS = 64  # numpy and torch hold no more
_ENTRY_FIELDS = {"dtype", "shape", "data_offsets"}
_U63 = 1 << 63


@dataclass(frozen=True, slots=True, eq=False)
class SafetensorsFile:
    """An open file: its tensors in header order, its metadata, and where the tensor bytes begin."""

    path: Path
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]
    body_start: int  # 8 + header length
    size_bytes: int
    file: MappedFile


def read_safetensors(path: Path) -> SafetensorsFile:
    """Open a file and check its header completely.

    Raises:
        FileMissing, NotRegularFile, StorageProblem: there is no readable file.
        UnsafePickle, UnknownFormat: the bytes are something else.
        TruncatedFile, BadHeader: the header breaks a rule, named in `.rule`.
    """
    file = open_regular(path)
    length = _header_length(file)
    text = _header_text(file, length)
    table = _parse(path, text)
    metadata = _metadata(path, table.pop("__metadata__", {}))
    if len(table) > MAX_TENSORS:
        raise BadHeader(
            path,
            f"{path.name} lists {len(table)} tensors, more than any model has.",
            rule="E_TOO_MANY_TENSORS",
        )
    body = 8 + length
    tensors = {key: _tensor(file, body, key, entry) for key, entry in table.items()}
    _check_layout(file, body, tensors)
    return SafetensorsFile(path, tensors, metadata, body, file.size, file)


def open_regular(path: Path) -> MappedFile:
    """Open a path that must name a regular file, without ever blocking on a pipe or device."""
    try:
        if stat.S_ISREG(path.stat().st_mode):  # opening a device may already do something
            file = MappedFile(path)
            if stat.S_ISREG(os.fstat(file.descriptor).st_mode):
                return file
    except FileNotFoundError as error:
        raise FileMissing(path, f"There is no file {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        if "symbolic links" in reason:
            raise FileMissing(path, f"{path} is a link that leads nowhere.") from error
        raise StorageProblem(path, reason) from error
    raise NotRegularFile(path, f"{path} is not a regular file.")


# ---------------------------------------------------------------- header


def _header_length(file: MappedFile) -> int:
    path, name = file.path, file.path.name
    start = bytes(file.view(0, min(file.size, 512)))
    if not start:
        raise TruncatedFile(path, f"{name} is empty.", rule="E_EMPTY")
    refuse_foreign_bytes(path, start)
    if len(start) < 8:
        raise TruncatedFile(path, f"{name} has only {len(start)} bytes.", rule="E_TRUNCATED_HEADER")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise BadHeader(
            path,
            f"{name} announces a header of {length} bytes; {MAX_HEADER_BYTES} is the limit.",
            rule="E_HEADER_TOO_LARGE",
        )
    if 8 + length > file.size:
        missing = 8 + length - file.size
        raise TruncatedFile(
            path, f"{name} ends inside its header: {missing} bytes are missing.", rule="E_TRUNCATED_HEADER"
        )
    if length < 2 or start[8:9] != b"{":
        raise BadHeader(path, f"The header of {name} does not begin with '{{'.", rule="E_HEADER_JSON")
    return length


def _header_text(file: MappedFile, length: int) -> str:
    raw = os.pread(file.descriptor, length, 8) if hasattr(os, "pread") else bytes(file.view(8, 8 + length))
    if len(raw) > _LONG_HEADER_BYTES:
        _check_bulk(file, raw)
    if raw[1:2] == b"\0":
        raise BadHeader(
            file.path,
            f"The header of {file.path.name} is UTF-16 or UTF-32, not UTF-8.",
            rule="E_HEADER_ENCODING",
        )
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise BadHeader(file.path, f"The header of {file.path.name} is not UTF-8.", rule="E_HEADER_ENCODING") from error


def _check_bulk(file: MappedFile, raw: bytes) -> None:
    """Refuse a long header that would unpack to many times its size; long texts, which do not, pass."""
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"").rstrip()  # no escaped quotes any more
    strings = bare.count(b'"') // 2
    if strings > _MAX_STRINGS or sum(map(len, bare.split(b'"')[::2])) > _MAX_BARE_BYTES:
        problem = "lists more than any model has"
    elif len(raw) > _MAX_UNICODE_BYTES and not raw.isascii():
        problem = f"has more than {_MAX_UNICODE_BYTES} bytes of Unicode text"
    else:
        return
    raise BadHeader(file.path, f"The header of {file.path.name} {problem}.", rule="E_HEADER_TOO_LARGE")


class _Repeated(ValueError):
    """One key twice in one JSON object."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        raise _Repeated(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]  # set.add returns None on purpose
    return table


def _no_constants(text: str) -> NoReturn:
    raise json.JSONDecodeError(f"{text} is no JSON value", text, 0)


def _parse(path: Path, text: str) -> dict[str, object]:
    name = path.name
    try:
        table = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constants)
    except RecursionError as error:
        raise BadHeader(path, f"The header of {name} is nested too deep.", rule="E_HEADER_DEPTH") from error
    except _Repeated as error:
        key = str(error)
        raise BadHeader(
            path, f"The header of {name} lists a key twice: {printable(key)}", rule="E_DUPLICATE_KEY", key=key
        ) from error
    except json.JSONDecodeError as error:
        raise BadHeader(path, f"The header of {name} is not valid JSON: {error.msg}.", rule="E_HEADER_JSON") from error
    except ValueError as error:  # an integer of thousands of digits
        raise BadHeader(path, f"The header of {name} holds an absurd number.", rule="E_OFFSETS") from error
    if not isinstance(table, dict):
        raise BadHeader(path, f"The header of {name} is not a JSON object.", rule="E_HEADER_JSON")
    return table


def _metadata(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadHeader(
            path, f"__metadata__ of {path.name} is not an object.", rule="E_METADATA_TYPE", key="__metadata__"
        )
    for key, entry in value.items():
        if not isinstance(entry, str):
            message = f"Metadata of {path.name} must be text, but {printable(key)} is not."
            raise BadHeader(path, message, rule="E_METADATA_TYPE", key=key)
        _check_text(path, key)
        _check_text(path, entry)
    return value


def _check_text(path: Path, text: str) -> None:
    """Lone surrogates pass Python's JSON parser and fail at the first print."""
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadHeader(path, f"The header of {path.name} holds half a character.", rule="E_HEADER_ENCODING") from error


def _tensor(file: MappedFile, body: int, key: str, entry: object) -> LazyTensor:
    _check_text(file.path, key)
    if not isinstance(entry, dict):
        _reject(file, key, "is not described by an object", "E_ENTRY")
    if not entry.keys() <= _ENTRY_FIELDS:
        _reject(file, key, "has fields that the format does not know", "E_ENTRY")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        _reject(file, key, f"has an unknown dtype {printable(str(dtype))[:40]}", "E_DTYPE")
    shape = _shape(file, key, entry.get("shape"))
    start, stop = _offsets(file, key, entry.get("data_offsets"))
    bits = DTYPE_BITS[dtype]
    for side in shape:
        bits *= side
    if bits % 8 or bits // 8 != stop - start:
        _reject(
            file,
            key,
            f"needs {bits // 8} bytes for {dtype} {list(shape)} but has {stop - start}",
            "E_SHAPE_BYTES",
        )
    return LazyTensor(dtype, shape, FileBytes(file, body + start, body + stop))


def _shape(file: MappedFile, key: str, value: object) -> Shape:
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        _reject(file, key, "has no usable shape", "E_SHAPE")
    if not all(type(side) is int and 0 <= side < _U63 for side in value):
        _reject(file, key, "has a shape that is not made of sizes", "E_SHAPE")
    return tuple(value)


def _offsets(file: MappedFile, key: str, value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int for n in value):
        _reject(file, key, "has no pair of integer data_offsets", "E_OFFSETS")
    start, stop = value
    if not 0 <= start <= stop < _U63:
        _reject(file, key, f"has impossible data_offsets {start}, {stop}", "E_OFFSETS")
    return start, stop


def _reject(file: MappedFile, key: str, problem: str, rule: str) -> NoReturn:
    raise BadHeader(file.path, f"Tensor {printable(key)} {problem}.", rule=rule, key=key)


def _check_layout(file: MappedFile, body: int, tensors: Mapping[str, LazyTensor]) -> None:
    """Tensors must tile the rest of the file: no hole, no overlap, nothing after the end."""
    spans = sorted((t.data.start, t.data.stop, key) for key, t in tensors.items() if isinstance(t.data, FileBytes))
    expected = body
    name = file.path.name
    for start, stop, key in spans:
        if stop > file.size:
            message = f"{name} is cut off: tensor {printable(key)} should end at byte {stop}, the file at {file.size}."
            raise TruncatedFile(file.path, message, rule="E_TRUNCATED_DATA", key=key)
        if start != expected:
            word = "overlaps the one before it" if start < expected else "follows a hole"
            raise BadHeader(file.path, f"Tensor {printable(key)} of {name} {word}.", rule="E_OFFSETS", key=key)
        expected = stop
    if expected != file.size:
        raise BadHeader(
            file.path,
            f"{name} has {file.size - expected} bytes after its last tensor.",
            rule="E_TRAILING_DATA",
        )


def printable(text: str, limit: int = 120) -> str:
    """Text from a file, safe to show: control and bidirectional characters replaced, length bounded.

    >>> printable("a\\x1b[2Jb")
    'a�[2Jb'
    """
    if len(text) <= limit and text.isprintable():
        return text
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


# ---------------------------------------------------------------- writing


def write_safetensors(
    out: IO[bytes], tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], order: Sequence[str] | None = None
) -> None:
    """Write a file to an open binary stream, tensors from files being copied byte range by byte range.

    Tensors of one source file keep their order and alignment (so that copies coalesce, and are instant on file
    systems that share extents); others are laid out widest dtype first, then by name, as the reference writer does,
    unless `order` lists the keys.

    Raises:
        OSError: from the output; see `hubtool.formats.atomic`.
    """
    layout, header = order or body_order(tensors), header_bytes(tensors, metadata, order)
    reserve(out, len(header) + sum(tensor.nbytes for tensor in tensors.values()))
    out.write(header)
    copy_pieces(out, (_piece(tensors[key]) for key in layout))


def header_bytes(
    tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], order: Sequence[str] | None = None
) -> bytes:
    """Everything that `write_safetensors` puts in front of the tensors' bytes."""
    layout = order or body_order(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key in layout:
        tensor = tensors[key]
        header[key] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * _padding(8 + len(text), [tensors[key] for key in layout], ordered=order is not None)
    return len(text).to_bytes(8, "little") + text


def body_order(tensors: Mapping[str, LazyTensor]) -> list[str]:
    """The keys in the order in which `write_safetensors` lays their tensors out."""
    sources = {tensor.data.file for tensor in tensors.values() if isinstance(tensor.data, FileBytes)}
    if len(sources) == 1 and all(isinstance(tensor.data, FileBytes) for tensor in tensors.values()):
        return sorted(tensors, key=lambda key: (_start(tensors[key]), key))
    return sorted(tensors, key=lambda key: (-DTYPE_BITS[tensors[key].dtype], key))


def _start(tensor: LazyTensor) -> int:
    return tensor.data.start if isinstance(tensor.data, FileBytes) else 0


def _padding(unpadded: int, layout: Sequence[LazyTensor], *, ordered: bool) -> int:
    """Spaces after the header: copies stand at the same offset within a block as in the source, else at a multiple of 8."""
    position = unpadded
    for tensor in layout if ordered else layout[:1]:
        if isinstance(tensor.data, FileBytes):
            return (tensor.data.start - position) % 4096
        position += tensor.nbytes
    return -unpadded % 8


def _piece(tensor: LazyTensor) -> Piece:
    if isinstance(tensor.data, FileBytes):
        return Piece(tensor.data.file.descriptor, tensor.data.start, tensor.data.stop)
    view = tensor.view()
    if len(view) != tensor.nbytes:  # a bug of ours, caught before it becomes a broken file
        raise ValueError(f"{tensor.dtype} {tensor.shape} takes {tensor.nbytes} bytes, not {len(view)}")
    return Piece(None, 0, tensor.nbytes, view)
