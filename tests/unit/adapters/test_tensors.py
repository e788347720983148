"""Tensors cross the border to torch and back unchanged, sharing memory."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hubtool.adapters.tensors import TORCH_DTYPES, from_torch, to_torch
from hubtool.errors import AdapterProblem
from hubtool.formats.safetensors import read_safetensors, write_safetensors
from hubtool.formats.tensor import DTYPE_BITS, LazyTensor


@pytest.mark.parametrize("dtype", sorted(TORCH_DTYPES))
def test_every_dtype_survives_the_way_to_torch_and_back(dtype: str) -> None:
    raw = bytes(i % 2 for i in range(6 * DTYPE_BITS[dtype] // 8))
    tensor = to_torch(LazyTensor(dtype, (2, 3), raw))
    assert tuple(tensor.shape) == (2, 3)
    back = from_torch(tensor)
    assert (back.dtype, back.shape, bytes(back.view())) == (dtype, (2, 3), raw)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F8_E4M3", "F8_E5M2"])
def test_values_are_those_that_the_reference_library_reads(tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file, save_file

    values = torch.linspace(-3, 3, 12).reshape(3, 4).to(TORCH_DTYPES[dtype])
    save_file({"x": values}, tmp_path / "x.safetensors")
    ours = to_torch(read_safetensors(tmp_path / "x.safetensors").tensors["x"])
    assert torch.equal(ours.float(), values.float())
    with (tmp_path / "y.safetensors").open("wb") as out:
        write_safetensors(out, {"x": from_torch(values)}, {})
    assert torch.equal(load_file(tmp_path / "y.safetensors")["x"].float(), values.float())


def test_a_tensor_of_a_file_shares_its_mapping_and_keeps_it_open(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as out:
        write_safetensors(out, {"x": from_torch(torch.arange(4096.0))}, {})
    file = read_safetensors(path)
    tensor, twin = to_torch(file.tensors["x"]), to_torch(file.tensors["x"])
    assert tensor.data_ptr() == twin.data_ptr()
    del file, twin
    gc.collect()
    assert float(tensor[-1]) == 4095.0


def test_a_torch_tensor_is_not_copied_when_contiguous() -> None:
    tensor = torch.zeros(3)
    lazy = from_torch(tensor)
    tensor[0] = 1.0
    assert to_torch(lazy).tolist() == [1.0, 0.0, 0.0]


def test_empty_scalar_and_transposed_tensors_keep_their_shape_and_order() -> None:
    assert to_torch(LazyTensor("F16", (0, 4), b"")).shape == (0, 4)
    assert from_torch(torch.tensor(2.5)).shape == ()
    assert to_torch(from_torch(torch.tensor(2.5))).item() == 2.5
    matrix = torch.arange(6).reshape(2, 3).T
    assert torch.equal(to_torch(from_torch(matrix)), matrix)


def test_elements_at_an_odd_address_are_read_correctly() -> None:
    raw = b"\0" + torch.tensor([1.5, -2.0]).numpy().tobytes()
    assert to_torch(LazyTensor("F32", (2,), memoryview(raw)[1:])).tolist() == [1.5, -2.0]


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3"])
def test_packed_dtypes_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(AdapterProblem, match=dtype):
        to_torch(LazyTensor(dtype, (8,), bytes(8 * DTYPE_BITS[dtype] // 8)))


def test_without_torch_the_import_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('absent')")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import hubtool.adapters.tensors"
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "MissingExtra" in run.stderr
    assert "torch" in run.stderr.splitlines()[-1]
