"""No pickle runs anything here, and none that does more than describe tensors is read."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import time
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch

from hubtool.errors import FileProblem, UnsafePickle
from hubtool.formats.pickle import read_pickle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
#: A good tensor of four floats in storage "0", as torch writes it.
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00K\x04\x85K\x01\x85\x89}tR"


def described(tensor: bytes = TENSOR, before: bytes = b"", after: bytes = b"") -> bytes:
    """A pickle of {"w": tensor} with something around it."""
    return b"\x80\x02" + before + b"}X\x01\x00\x00\x00w" + tensor + b"s" + after + b"."


def archive(path: Path, stream: bytes, elements: bytes = bytes(16), **options: int) -> Path:
    """A zip as torch writes it."""
    with zipfile.ZipFile(path, "w", **options) as out:  # type: ignore[arg-type]  # compression only
        out.writestr("archive/data.pkl", stream)
        out.writestr("archive/byteorder", b"little")
        out.writestr("archive/data/0", elements)
    return path


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    return opening * levels + closing * levels


MARKER = "pickle-was-run"
HARMFUL: dict[str, Callable[[], bytes]] = {
    "os.system": lambda: pickle.dumps({"w": Call(os.system, f"touch {MARKER}")}, 2),
    "os.system, protocol 0": lambda: pickle.dumps({"w": Call(os.system, f"touch {MARKER}")}, 0),
    "os.system, protocol 4": lambda: pickle.dumps({"w": Call(os.system, f"touch {MARKER}")}, 4),
    "eval": lambda: pickle.dumps({"w": Call(eval, f"open({MARKER!r}, 'w')")}, 2),
    "Popen": lambda: pickle.dumps({"w": Call(subprocess.Popen, ["touch", MARKER])}, 2),
    "as a key": lambda: b"\x80\x02}" + pickle.dumps(Call(os.system, f"touch {MARKER}"), 2)[2:-1] + b"K\x01s.",
    "beside a good tensor": lambda: described(after=b"X\x01\x00\x00\x00xcos\nsystem\nX\x01\x00\x00\x00w\x85Rs"),
    "before it, then dropped": lambda: described(before=b"cos\nsystem\nX\x04\x00\x00\x00true\x85R0"),
    "as its hooks": lambda: described(TENSOR.replace(b"\x89}tR", b"\x89cos\nsystem\nX\x01\x00\x00\x00w\x85RtR")),
    "a name from the stack": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "a name put together": lambda: b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x02os\x85R\x8c\x06system\x93.",
    "a dotted name": lambda: b"\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93\x8c\x06system\x86R.",
    "a name that is no text": lambda: b"\x80\x04}K\x01\x93.",
    "torch.load": lambda: b"\x80\x02ctorch\nload\nX\x05\x00\x00\x00x.ptq\x00\x85R.",
    "an allowed name called with it": lambda: b"\x80\x02ccollections\nOrderedDict\ncos\nsystem\n\x85R.",
    "an instance": lambda: b"\x80\x02(X\x04\x00\x00\x00trueios\nsystem\n.",
    "an object": lambda: b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "an extension code": lambda: b"\x80\x02\x82\x01.",
    "a state that sets attributes": lambda: b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00xcos\nsystem\nsb.",
    "a state of a name": lambda: described(after=b"0ccollections\nOrderedDict\nN}X\x03\x00\x00\x00popK\x01s\x86b"),
    "a new object": lambda: b"\x80\x02csubprocess\nPopen\n]X\x04\x00\x00\x00truea\x85\x81.",
    "a call of a tensor": lambda: described(TENSOR + b")R"),
    "a module as storage": lambda: described().replace(b"FloatStorage", b"FloatTensor\x20"),
    "another kind of reference": lambda: described().replace(b"storagectorch", b"module_ctorch"),
    "a reference as text": lambda: b"\x80\x02Pstorage\n.",
    "a buffer from outside": lambda: b"\x80\x05\x97.",
    "a memo of millions": lambda: b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b"j\xff\xff\xff\x7e.",
    "a key nested without end": lambda: b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "marks without end": lambda: b"\x80\x02" + b"(" * 500_000 + b".",
    "more instructions than any model": lambda: b"\x80\x02" + b"N0" * 1_500_000 + b"N.",
    "a text longer than the file": lambda: b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "a number longer than the file": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "a number of many digits": lambda: b"L" + b"9" * 100_000 + b"L\n.",
    "an empty stack": lambda: b"\x80\x02R.",
    "nothing": lambda: b"\x80\x02.",
    "no end": lambda: b"\x80\x02}",
    "an unknown instruction": lambda: b"\x80\x02\xfe.",
}
LYING: dict[str, Callable[[], bytes]] = {
    "a tensor larger than its storage": lambda: described(TENSOR.replace(b"K\x04\x85K\x01\x85", b"K\x05\x85K\x01\x85")),
    "an offset beyond it": lambda: described(TENSOR.replace(b"K\x00K\x04", b"K\x02K\x04")),
    "a stride beyond it": lambda: described(TENSOR.replace(b"K\x01\x85", b"K\x7f\x85")),
    "a stride of nothing": lambda: described(TENSOR.replace(b"K\x04\x85K\x01\x85", b"J\x00\x00\x00\x7f\x85K\x00\x85")),
    "elements used twice": lambda: described(TENSOR.replace(b"K\x04\x85K\x01\x85", b"K\x03K\x02\x86K\x01K\x01\x86")),
    "a negative side": lambda: described(TENSOR.replace(b"K\x04\x85", b"J\xff\xff\xff\xff\x85")),
    "a side that is no number": lambda: described(
        TENSOR.replace(b"K\x04\x85", b"G\x40\x10\x00\x00\x00\x00\x00\x00\x85")
    ),
    "fewer strides than sides": lambda: described(TENSOR.replace(b"K\x01\x85\x89", b")\x89")),
    "another count than the storage": lambda: described(TENSOR.replace(b"cpuK\x04", b"cpuK\x03")),
    "an impossible count": lambda: described(TENSOR.replace(b"cpuK\x04", b"cpu\x8a\x09" + b"\xff" * 8 + b"\x00")),
    "a storage that is not there": lambda: described(TENSOR.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x009")),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", HARMFUL)
def test_a_pickle_that_asks_for_more_than_tensors_is_refused_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.ckpt"
    if zipped:
        archive(path, HARMFUL[name]())
    else:
        path.write_bytes(legacy(HARMFUL[name]()))
    started = time.process_time()
    with pytest.raises(FileProblem):
        read_pickle(path)
    assert time.process_time() - started < 12
    assert not (tmp_path / MARKER).exists()


def legacy(stream: bytes) -> bytes:
    """The same in the format of before torch 1.6."""
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + stream + pickle.dumps(["0"], 2) + (4).to_bytes(8, "little") + bytes(16)


def test_a_bare_pickle_is_no_file_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps({"w": [1.0]}, 2))
    with pytest.raises(UnsafePickle):
        read_pickle(path)


def test_the_good_pickle_that_the_bad_ones_are_made_from_is_read(tmp_path: Path) -> None:
    assert read_pickle(archive(tmp_path / "a.ckpt", described())).tensors["w"].shape == (4,)
    (tmp_path / "b.ckpt").write_bytes(legacy(described()))
    assert read_pickle(tmp_path / "b.ckpt").tensors["w"].shape == (4,)


@pytest.mark.parametrize("name", LYING)
def test_a_tensor_that_reaches_beyond_its_elements_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileProblem):
        read_pickle(archive(tmp_path / "model.ckpt", LYING[name]()))


class Edit(NamedTuple):
    """A change of a good archive's bytes."""

    old: bytes
    new: bytes
    last: bool = False  # of the last occurrence only


EDITS = {
    "two names for an entry": Edit(b"archive/data/0", b"archive/data/1"),
    "a stated size": Edit(struct.pack("<2L", 16, 16), struct.pack("<2L", 16, 1 << 31), last=True),
    "a size beyond the end": Edit(struct.pack("<2L", 16, 16), struct.pack("<2L", 1 << 31, 1 << 31), last=True),
    "one of several disks": Edit(b"PK\5\6\0\0", b"PK\5\6\1\0"),
    "encrypted": Edit(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
    "a damaged directory": Edit(b"PK\1\2", b"PK\1\3"),
    "no local header": Edit(b"PK\3\4", b"PK\3\5", last=True),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_archive_whose_directory_lies_is_refused(tmp_path: Path, name: str) -> None:
    path, edit = archive(tmp_path / "model.ckpt", described()), EDITS[name]
    raw = path.read_bytes()
    assert edit.old in raw
    at = raw.rindex(edit.old) if edit.last else raw.index(edit.old)
    path.write_bytes(raw[:at] + edit.new + raw[at + len(edit.old) :])
    with pytest.raises(FileProblem):
        read_pickle(path)


def test_a_zip_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.ckpt", described(), bytes(50 << 20), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UnsafePickle, match="compressed"):
        read_pickle(path)


@pytest.mark.parametrize("entry", ["archive/data.pkl", "archive/data/0", "other/data.pkl"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_twice_is_refused(tmp_path: Path, entry: str) -> None:
    path = archive(tmp_path / "model.ckpt", described())
    with zipfile.ZipFile(path, "a") as out:
        out.writestr(entry, HARMFUL["os.system"]())
    with pytest.raises(UnsafePickle):
        read_pickle(path)


def test_entries_in_one_place_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.ckpt", described())
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\1\2")
    third = raw.rindex(b"PK\1\2")
    raw[third + 42 : third + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)
    with pytest.raises(FileProblem):
        read_pickle(path)


@pytest.mark.parametrize("size", [0, 1, 4, 30, 100, 400])
def test_any_beginning_of_a_file_is_refused(tmp_path: Path, size: int) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(4)}, buffer)
    path = tmp_path / "model.ckpt"
    path.write_bytes(buffer.getvalue()[:size])
    with pytest.raises(FileProblem):
        read_pickle(path)


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("archive/data.pkl", described())
        out.writestr("archive/byteorder", b"big")
        out.writestr("archive/data/0", bytes(16))
    with pytest.raises(UnsafePickle, match="big-endian"):
        read_pickle(path)


def test_random_damage_never_ends_in_anything_but_a_verdict(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": {f"layer.{i}.weight": torch.randn(4, 4) for i in range(3)}}, buffer)
    good = buffer.getvalue()
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "model.ckpt"
    for _ in range(300):
        raw = bytearray(good)
        for at in torch.randint(0, len(raw), (3,), generator=generator).tolist():
            raw[at] = int(torch.randint(0, 256, (1,), generator=generator))
        path.write_bytes(raw)
        try:
            tensors = read_pickle(path).tensors
        except FileProblem:
            continue
        assert all(len(tensor.view()) == tensor.nbytes for tensor in tensors.values())
