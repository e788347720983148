"""Reader of torch's own files (.ckpt, .pt, .bin): the tensors as byte ranges, and nothing is ever run.

`torch.save` writes a pickle that describes the tensors, and their elements beside it: since torch 1.6 as entries of a zip
archive, before that one after the other behind the pickle (torch/serialization.py, `_save` and `_legacy_save`). The pickle is
read by `hubtool.formats.pickle_machine`, which calls nothing; `torch.load` is not used anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, NoReturn

from hubtool.errors import TruncatedFile, UnsafePickle
from hubtool.formats.magic import is_pickle, refuse_foreign_bytes
from hubtool.formats.pickle_machine import Described, Refused, Storage, read_stream
from hubtool.formats.safetensors import MAX_DIMENSIONS, MAX_TENSORS, SafetensorsFile, open_regular, printable
from hubtool.formats.tensor import DTYPE_BITS, FileBytes, LazyTensor
from hubtool.formats.zip_directory import stored_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hubtool.formats.tensor import MappedFile, Shape

MAX_PICKLE_BYTES = 64 << 20  # describes tensors only; a checkpoint with optimizer states takes about 1 MB
_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py MAGIC_NUMBER
_PROTOCOL = 1001
#: Where trainers put the weights within what they save, most telling first.
_NESTED = ("state_dict", "model_state_dict", "module", "model", "params_ema", "params", "weights", "unet", "lora")
_MAX_GATHERED = 1 << 33  # bytes of a tensor that is not in row order, and so has to be copied


@dataclass(frozen=True, slots=True, eq=False)
class PickleFile(SafetensorsFile):
    """An open file of torch's: the same as a safetensors file to whoever reads it."""

    described: FileBytes  # the pickle


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as torch's do.

    Raises:
        FileMissing, NotRegularFile, StorageProblem: there is no readable file.
    """
    file = open_regular(path)
    return is_pickle(bytes(file.view(0, min(512, file.size))))


def read_pickle(path: Path) -> PickleFile:
    """Open a file that `torch.save` wrote, and take its tensors.

    Raises:
        FileMissing, NotRegularFile, StorageProblem: there is no readable file.
        UnsafePickle: the pickle asks for anything but tensors, or the archive is not as torch writes it.
        TruncatedFile: elements are missing.
        UnknownFormat: the bytes are something else.
    """
    file = open_regular(path)
    start = bytes(file.view(0, min(512, file.size)))
    if not is_pickle(start):
        refuse_foreign_bytes(path, start)
        _refuse(file, "is no file of torch's")
    try:
        return _read_archive(file) if start.startswith(b"PK") else _read_legacy(file)
    except Refused as error:
        hint = "It may hold harmful code. Ask the author for a .safetensors file."
        raise UnsafePickle(
            path, f"The pickle in {path.name} {printable(str(error))}: it was not read.", hint=hint
        ) from error


# ---------------------------------------------------------------- containers


def _read_archive(file: MappedFile) -> PickleFile:
    entries = stored_entries(file)
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        _refuse(file, f"is an archive with {len(pickles)} data.pkl, not one")
    folder, described = pickles[0].removesuffix("data.pkl"), entries[pickles[0]]
    order = entries.get(folder + "byteorder")
    if order is not None and bytes(file.view(order.start, min(order.stop, order.start + 16))).strip() != b"little":
        _refuse(file, "was written on a big-endian machine")
    root = read_stream(_stream(file, described)).value
    return _opened(file, described, root, {key.removeprefix(f"{folder}data/"): data for key, data in entries.items()})


def _read_legacy(file: MappedFile) -> PickleFile:
    stream = _stream(file, FileBytes(file, 0, min(file.size, MAX_PICKLE_BYTES)), whole=False)
    if (read_stream(stream).value, read_stream(stream).value) != (_MAGIC, _PROTOCOL):
        raise Refused("was not written by torch.save")
    read_stream(stream)  # the machine it was written on
    start = stream.tell()
    root = read_stream(stream)
    described = FileBytes(file, start, stream.tell())
    keys = read_stream(stream).value
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Refused("lists no storages")
    return _opened(file, described, root.value, _following(file, stream.tell(), keys, root.storages))


def _following(
    file: MappedFile, position: int, keys: Sequence[str], described: Mapping[str, Storage]
) -> dict[str, FileBytes]:
    """Where the elements of each storage are: after its count, one storage after the other."""
    found: dict[str, FileBytes] = {}
    for key in keys:
        if position + 8 > file.size:
            raise TruncatedFile(file.path, f"{file.path.name} is cut off.", rule="E_TRUNCATED_DATA")
        if key not in described or not described[key].dtype:
            raise Refused("keeps elements that it does not describe")
        count = int.from_bytes(file.view(position, position + 8), "little")
        stop = position + 8 + count * DTYPE_BITS[described[key].dtype] // 8
        found[key] = FileBytes(file, position + 8, stop)
        position = stop
    return found


def _stream(file: MappedFile, part: FileBytes, *, whole: bool = True) -> BytesIO:
    if whole and part.stop - part.start > MAX_PICKLE_BYTES:
        raise Refused(f"takes {part.stop - part.start} bytes, more than any description of tensors")
    return BytesIO(file.view(part.start, part.stop))


# ---------------------------------------------------------------- tensors


def _opened(file: MappedFile, described: FileBytes, root: object, storages: Mapping[str, FileBytes]) -> PickleFile:
    found = _tensors(root)
    if len(found) > MAX_TENSORS:
        raise Refused(f"describes {len(found)} tensors, more than any model has")
    tensors = {key: _tensor(file, key, tensor, storages) for key, tensor in found.items()}
    return PickleFile(file.path, tensors, {}, 0, file.size, file, described)


def _tensors(root: object) -> dict[str, Described]:
    """The weights by name: of the dictionary itself, or of the one in it that holds them."""
    queue: list[object] = [root]
    for _ in range(4):
        candidates = [value for value in queue if isinstance(value, dict)]
        best = max(candidates, key=_wealth, default={})
        if _wealth(best):
            return {key: value for key, value in best.items() if isinstance(key, str) and isinstance(value, Described)}
        queue = [value[name] for value in candidates for name in _NESTED if name in value]
    return {}


def _wealth(table: Mapping[object, object]) -> int:
    return sum(isinstance(value, Described) for value in table.values())


def _tensor(file: MappedFile, key: str, tensor: Described, storages: Mapping[str, FileBytes]) -> LazyTensor:
    data = storages.get(tensor.storage.key)
    if data is None or data.stop > file.size:
        message = f"{file.path.name} is cut off: the elements of {printable(key)} are missing."
        raise TruncatedFile(file.path, message, rule="E_TRUNCATED_DATA", key=key)
    size = DTYPE_BITS[tensor.dtype] // 8
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise Refused(f"gives {key} an impossible shape")
    stated = tensor.storage.count * (DTYPE_BITS[tensor.storage.dtype] // 8 if tensor.storage.dtype else 1)
    if stated != data.stop - data.start:
        raise Refused(f"states another size for the elements of {key} than they have")
    extent = 0 if 0 in shape else 1 + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    begin = data.start + tensor.offset * size
    if begin + extent * size > data.stop:
        raise Refused(f"lets {key} reach beyond its elements")
    if _is_row_major(shape, strides) or prod(shape) <= 1:
        return LazyTensor(tensor.dtype, shape, FileBytes(file, begin, begin + prod(shape) * size))
    if any(stride == 0 < side - 1 for side, stride in zip(shape, strides, strict=True)) or (
        prod(shape) * size > min(_MAX_GATHERED, data.stop - data.start)
    ):
        raise Refused(f"lets {key} use its elements more than once")
    return LazyTensor(
        tensor.dtype, shape, _gathered(FileBytes(file, begin, begin + extent * size), shape, strides, size)
    )


def _is_row_major(shape: Shape, strides: Sequence[int]) -> bool:
    """Whether the elements lie one after the other (strides of sides of one element say nothing)."""
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True


def _gathered(data: FileBytes, shape: Shape, strides: Sequence[int], size: int) -> Callable[[], memoryview]:
    """The elements of a transposed or cut tensor in row order, when they are asked for."""

    def gather() -> memoryview:
        elements = _cast(data.file.view(data.start, data.stop), size)
        rows = [0]
        for side, stride in zip(shape[:-1], strides[:-1], strict=True):
            rows = [row + index * stride for row in rows for index in range(side)]
        step, last = strides[-1], (shape[-1] - 1) * strides[-1] + 1
        return memoryview(b"".join(elements[row : row + last : step].tobytes() for row in rows))

    return gather


def _cast(view: memoryview, size: int) -> memoryview:
    """The same bytes as elements of this size."""
    if size == 8:
        return view.cast("Q")
    if size == 4:
        return view.cast("I")
    return view.cast("H") if size == 2 else view


def _refuse(file: MappedFile, problem: str) -> NoReturn:
    raise UnsafePickle(file.path, f"{file.path.name} {problem}.")
