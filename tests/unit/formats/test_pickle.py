"""What torch.save wrote is read as byte ranges, every tensor with its values."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import pytest
import torch

from hubtool.adapters.tensors import to_torch
from hubtool.errors import TruncatedFile, UnknownFormat
from hubtool.formats.pickle import is_torch_file, read_pickle
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import FileBytes

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {
    "matrix": torch.arange(24.0).reshape(4, 6),
    "kernel": torch.arange(54.0).reshape(3, 2, 3, 3).half(),
    "transposed": torch.arange(35.0).reshape(5, 7).t(),
    "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
    "slice": torch.arange(10)[2:5],
    "cut": torch.arange(48.0).reshape(6, 8)[1:4, 2:5],
    "bfloat16": torch.arange(5.0).bfloat16(),
    "scalar": torch.tensor(3.0),
    "flags": torch.tensor([True, False]),
    "nothing": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(2, 2)),
}
FLOAT8 = {"float8": torch.arange(16.0).reshape(4, 4).to(torch.float8_e4m3fn)}
NESTINGS = {
    "bare": lambda tensors: tensors,
    "ordered": OrderedDict,
    "lightning": lambda tensors: {
        "epoch": 3,
        "state_dict": tensors,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}],
    },
    "beside numbers": lambda tensors: {"iteration": 7, **tensors},
}


@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_has_the_values_that_were_saved(tmp_path: Path, nesting: str, zipped: bool) -> None:
    tensors = TENSORS | (FLOAT8 if zipped else {})
    path = tmp_path / "model.ckpt"
    torch.save(NESTINGS[nesting](tensors), path, _use_new_zipfile_serialization=zipped)
    found = read_pickle(path).tensors
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        read = to_torch(found[key])
        assert read.dtype == tensor.dtype
        assert tuple(read.shape) == tuple(tensor.shape)
        assert torch.equal(read.float(), tensor.detach().float()), key


def test_tensors_in_row_order_are_byte_ranges_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"a": torch.randn(300, 200)}, path)
    assert isinstance(read_pickle(path).tensors["a"].data, FileBytes)


def test_a_module_and_its_metadata_are_read_as_its_state(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Conv2d(1, 2, 3))
    torch.save(module.state_dict(), tmp_path / "model.bin")
    assert list(read_pickle(tmp_path / "model.bin").tensors) == list(module.state_dict())


def test_an_archive_of_more_than_four_gigabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.ckpt"
    with path.open("wb") as out:  # sparse: torch writes the elements as they are, and they are zeros
        torch.save({"first": torch.ones(2), "last": torch.full((3,), 7.0)}, out)
    raw = bytearray(path.read_bytes())
    # the central directory moved behind 4 GiB, with the zip64 records that say so
    end = raw.rindex(b"PK\5\6")
    count = int.from_bytes(raw[end + 10 : end + 12], "little")
    size, start = (int.from_bytes(raw[end + at : end + at + 4], "little") for at in (12, 16))
    moved = (1 << 32) + 4096
    record = b"PK\6\6" + (44).to_bytes(8, "little") + bytes(4) + bytes(8)
    record += count.to_bytes(8, "little") * 2 + size.to_bytes(8, "little") + moved.to_bytes(8, "little")
    locator = b"PK\6\7" + bytes(4) + (moved + size).to_bytes(8, "little") + (1).to_bytes(4, "little")
    tail = b"PK\5\6" + bytes(4) + b"\xff\xff" * 2 + b"\xff\xff\xff\xff" * 2 + bytes(2)
    with path.open("r+b") as out:
        out.truncate(start)
        out.seek(moved)
        out.write(bytes(raw[start : start + size]) + record + locator + tail)
    assert to_torch(read_pickle(path).tensors["last"]).tolist() == [7.0] * 3


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off_is_said_to_be(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"a": torch.randn(100, 100)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(TruncatedFile):
        read_pickle(path)


def test_torch_files_are_told_from_safetensors_by_their_bytes(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    with (tmp_path / "b.ckpt").open("wb") as out:
        write_safetensors(out, {}, {})
    assert is_torch_file(tmp_path / "a.safetensors")
    assert not is_torch_file(tmp_path / "b.ckpt")
    (tmp_path / "page.ckpt").write_bytes(b"<!doctype html><title>Log in</title>")
    with pytest.raises(UnknownFormat):
        read_pickle(tmp_path / "page.ckpt")
