"""Reads a pickle without running anything: a stack machine that knows which objects describe tensors, and makes only those.

Python's own unpickler calls whatever the stream names. This one follows the opcodes (`pickletools` splits the stream into
them), keeps every name as a name, and answers a call by looking the name up in the tables below: a tensor becomes a record of
where its elements are, a few things that trainers leave in checkpoints become a placeholder, and everything else is refused.
There is no class to be made and no function to be called, so there is nothing to be tricked into.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import BytesIO

MAX_OPERATIONS = 2_000_000  # a full checkpoint with its optimizer takes a tenth of that


class Refused(Exception):  # a verdict, turned into UnsafePickle by the caller, who knows the file
    """The stream asks for something that no file of tensors needs."""


class Name(NamedTuple):
    """A module and a name in it: what a pickle calls, never what it is."""

    module: str
    name: str


class Opaque:
    """Something that is no tensor and is not needed."""

    __slots__ = ()


OPAQUE = Opaque()


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements somewhere in the file."""

    dtype: str  # of safetensors; "" if only the tensor says it
    key: str
    count: int  # elements; bytes if the dtype is not known


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as the pickle describes it; nothing here was checked against the file."""

    storage: Storage
    dtype: str
    offset: int  # of the first element
    shape: tuple[int, ...]
    strides: tuple[int, ...]


#: torch's storage classes → dtype.
STORAGES: Mapping[str, str] = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "UntypedStorage": "",
}  # fmt: skip

#: torch's dtypes, as tensors of newer files name them.
DTYPES: Mapping[str, str] = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "uint32": "U32", "uint64": "U64",
}  # fmt: skip

#: What trainers leave beside the weights: scores, callbacks, devices. None of it is made.
_IGNORED = frozenset(
    {
        Name("torch", "device"), Name("torch.serialization", "_get_layout"), Name("torch", "strided"),
        Name("_codecs", "encode"), Name("numpy", "dtype"), Name("numpy", "ndarray"),
        Name("numpy.core.multiarray", "scalar"), Name("numpy._core.multiarray", "scalar"),
        Name("numpy.core.multiarray", "_reconstruct"), Name("numpy._core.multiarray", "_reconstruct"),
        Name("__builtin__", "set"), Name("builtins", "set"), Name("torch.nn.modules.container", "ParameterDict"),
        Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    }
)  # fmt: skip


def _ordered(arguments: tuple[object, ...]) -> object:
    pairs = arguments[0] if arguments else []
    if not isinstance(pairs, list) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise Refused("fills a dictionary in a way of its own")
    return {_key(key): value for key, value in pairs}


def _tensor(arguments: tuple[object, ...]) -> object:
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or not storage.dtype:
        raise Refused("describes a tensor without elements")
    return Described(storage, storage.dtype, _count(offset), _counts(shape), _counts(strides))


def _typed_tensor(arguments: tuple[object, ...]) -> object:
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    known = DTYPES.get(dtype.name) if isinstance(dtype, Name) and dtype.module == "torch" else None
    if not isinstance(storage, Storage) or storage.dtype or known is None:
        raise Refused("describes a tensor without elements")
    return Described(storage, known, _count(offset), _counts(shape), _counts(strides))


def _first(arguments: tuple[object, ...]) -> object:
    return arguments[0]


#: What a call means.
_CALLS: Mapping[Name, Callable[[tuple[object, ...]], object]] = {
    Name("collections", "OrderedDict"): _ordered,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    Name("torch._utils", "_rebuild_parameter"): _first,
    Name("torch._tensor", "_rebuild_parameter"): _first,
    Name("torch", "Size"): _first,
}


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise Refused("describes a tensor of impossible size")
    return value


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 64:
        raise Refused("describes a tensor of impossible size")
    return tuple(_count(value) for value in values)


def _key(key: object) -> object:
    """Only what is hashed at once: a tuple nested a million times would end the process."""
    if key is None or isinstance(key, (str, bytes, int, float, Name, Opaque)):
        return key
    raise Refused("uses a key that is no name")


class Content(NamedTuple):
    """What a pickle holds."""

    value: object  # dicts, lists, tuples, numbers, texts, `Described` and `Opaque`
    storages: Mapping[str, Storage]  # all that were mentioned, by key


def read_stream(stream: BytesIO) -> Content:
    """The object that a pickle describes.

    The stream is left behind the pickle's end.

    Raises:
        Refused: it asks for anything else, or is no sound pickle.
    """
    machine = _Machine()
    try:
        for done, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if done > MAX_OPERATIONS:
                raise Refused("is longer than any checkpoint's")
            if opcode.name == "STOP":
                return Content(machine.pop(), machine.storages)
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Refused("is damaged") from error
    raise Refused("has no end")  # pragma: no cover  # genops says so itself


class _Machine:
    """A pickle's stack and memo."""

    def __init__(self) -> None:
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}

    def pop(self) -> object:
        return self._stack.pop()

    def step(self, opcode: str, argument: object) -> None:
        """One opcode.

        Raises:
            Refused: it is none that a file of tensors needs.
        """
        if opcode in _VALUES:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _NOTHING:
            raise Refused(f"uses the instruction {opcode}")

    def mark(self, _: object) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _items(self) -> list[object]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def drop(self, _: object) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def drop_items(self, _: object) -> None:
        self._items()

    def again(self, _: object) -> None:
        self._stack.append(self._stack[-1])

    def remember(self, argument: object) -> None:
        index = len(self._memo) if argument is None else argument
        if not isinstance(index, int):
            raise TypeError(index)
        self._memo[index] = self._stack[-1]

    def recall(self, argument: object) -> None:
        self._stack.append(self._memo[argument])  # type: ignore[index]  # genops makes it a number

    def tuple_of_items(self, _: object) -> None:
        items = self._items()
        self._stack.append(tuple(items))

    def list_of_items(self, _: object) -> None:
        items = self._items()
        self._stack.append(items)

    def dict_of_items(self, _: object) -> None:
        items = self._items()
        self._stack.append({})
        self._fill(items)

    def tuple_of(self, count: int) -> None:
        items = self._stack[-count:]
        if len(items) < count:
            raise IndexError(count)
        self._stack[-count:] = [tuple(items)]

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def extend(self, _: object) -> None:
        self._extend(self._items())

    def _extend(self, items: list[object]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif target is not OPAQUE:
            raise Refused("adds to what is no list")

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def set_items(self, _: object) -> None:
        self._fill(self._items())

    def _fill(self, items: list[object]) -> None:
        target = self._stack[-1]
        if len(items) % 2 or not (isinstance(target, dict) or target is OPAQUE):
            raise Refused("adds to what is no dictionary")
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def name(self, argument: object) -> None:
        module, _, name = str(argument).partition(" ")
        self._named(module, name)

    def name_from_stack(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Refused("hides a name")
        self._named(module, name)

    def _named(self, module: str, name: str) -> None:
        found = Name(module, name)
        of_torch = (module == "torch" and (name in STORAGES or name in DTYPES)) or (
            module == "torch.storage" and name in STORAGES
        )
        if not (found in _CALLS or found in _IGNORED or of_torch):
            raise Refused(f"names {module[:60]}.{name[:60]}")
        self._stack.append(found)

    def call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if isinstance(function, Name) and isinstance(arguments, tuple) and function in _CALLS:
            self._stack.append(_CALLS[function](arguments))
        elif isinstance(function, Name) and function in _IGNORED:
            self._stack.append(OPAQUE)
        else:
            raise Refused("calls what is no function")

    def state(self, _: object) -> None:
        """State of an object: none of ours has any (torch leaves `_metadata` at its dictionaries)."""
        self._stack.pop()
        if isinstance(self._stack[-1], Name):
            raise Refused("sets attributes of what it names")

    def persistent(self, _: object) -> None:
        """A storage, by torch's own notation: ("storage", class, key, device, count) and, in old files, a view."""
        found = self._stack.pop()
        if not isinstance(found, tuple) or len(found) not in {5, 6} or found[0] != "storage" or any(found[5:]):
            raise Refused("refers to something outside")
        kind, key, count = found[1], found[2], _count(found[4])
        if not isinstance(kind, Name) or kind.name not in STORAGES or not isinstance(key, str):
            raise Refused("refers to something outside")
        self.storages[key] = Storage(STORAGES[kind.name], key, count)
        self._stack.append(self.storages[key])


#: Opcodes that push what follows them.
_VALUES = frozenset(
    {
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8",
    }
)  # fmt: skip
_CONSTANTS: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple, "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}  # fmt: skip
_NOTHING = frozenset({"PROTO", "FRAME"})
_STEPS: Mapping[str, Callable[[_Machine, object], None]] = {
    "MARK": _Machine.mark, "POP": _Machine.drop, "POP_MARK": _Machine.drop_items, "DUP": _Machine.again,
    "PUT": _Machine.remember, "BINPUT": _Machine.remember, "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember, "GET": _Machine.recall, "BINGET": _Machine.recall, "LONG_BINGET": _Machine.recall,
    "TUPLE": _Machine.tuple_of_items, "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2), "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_of_items, "DICT": _Machine.dict_of_items, "APPEND": _Machine.append,
    "APPENDS": _Machine.extend, "SETITEM": _Machine.set_item, "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name, "STACK_GLOBAL": _Machine.name_from_stack, "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call, "BUILD": _Machine.state, "BINPERSID": _Machine.persistent,
}  # fmt: skip
