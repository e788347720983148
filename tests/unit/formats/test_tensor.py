"""Lazy tensors: bytes stay where they are, scalars of every dtype are numbers, odd requests fail."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import ITEM_BYTES, Raw, floats, numbers, random_tensor, write

from hubtool.formats.safetensors import read_safetensors
from hubtool.formats.tensor import FileBytes, LazyTensor, MappedFile, nbytes, scalar_tensor

NUMBERS = ["F16", "BF16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scalar_of_every_plain_dtype_reads_as_the_number_it_was_made_of(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = scalar_tensor(16, dtype, shape)
    assert (tensor.scalar(), tensor.shape, len(tensor.view())) == (16.0, shape, ITEM_BYTES[dtype])


@given(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda value: abs(value) < 3e38))
def test_bf16_scalars_are_rounded_to_the_nearest_even(value: float) -> None:
    import torch

    expected = torch.tensor(value, dtype=torch.float32).to(torch.bfloat16)
    assert scalar_tensor(value, "BF16").scalar() == float(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_what_is_not_finite_stays_what_it_is(value: float, dtype: str) -> None:
    assert str(scalar_tensor(value, dtype).scalar()) == str(value)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "C64"])
def test_a_dtype_without_a_plain_number_has_no_scalar(dtype: str) -> None:
    shape = (2,) if dtype == "F4" else ()
    with pytest.raises(ValueError, match=r"number"):
        LazyTensor(dtype, shape, bytes(nbytes(dtype, shape))).scalar()


@pytest.mark.parametrize("shape", [(4,), (0,), (2, 2)])
def test_several_elements_or_none_are_no_scalar(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one number"):
        LazyTensor("F32", shape, bytes(nbytes("F32", shape))).scalar()


@pytest.mark.parametrize("dtype", ["F32", "F16", "F8_E4M3"])
def test_rows_are_a_range_of_the_same_file(tmp_path: Path, dtype: str) -> None:
    raw = Raw(dtype, (50, 20, 3), floats(np.arange(3000) % 100 / 100, dtype))
    tensor = read_safetensors(write(tmp_path / "x.safetensors", {"w": raw})).tensors["w"]
    cut = tensor.rows(10, 30).rows(5, 6)
    size = 60 * ITEM_BYTES[dtype]
    assert isinstance(cut.data, FileBytes)
    assert (cut.shape, bytes(cut.view())) == ((1, 20, 3), raw.data[15 * size : 16 * size])


def test_rows_of_a_computed_tensor_are_computed_when_looked_at() -> None:
    calls = []
    tensor = LazyTensor("U8", (4, 2), lambda: calls.append(1) or memoryview(b"aabbccdd"))
    cut = tensor.rows(1, 3)
    assert not calls
    assert bytes(cut.view()) == b"bbcc"


def test_a_reshape_to_another_number_of_elements_is_refused() -> None:
    with pytest.raises(ValueError, match="elements"):
        LazyTensor("F32", (2, 3), bytes(24)).reshaped((7,))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 70_000])
def test_a_view_holds_exactly_the_bytes_asked_for_however_few(tmp_path: Path, size: int) -> None:
    data = bytes(i % 251 for i in range(80_000))
    (tmp_path / "x").write_bytes(data)
    assert bytes(MappedFile(tmp_path / "x").view(3, 3 + size)) == data[3 : 3 + size]


def test_an_empty_file_has_an_empty_view(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert bytes(MappedFile(tmp_path / "x").view(0, 0)) == b""


def test_forgotten_pages_are_read_again(tmp_path: Path) -> None:
    raw = random_tensor(1, (300, 300))
    file = read_safetensors(write(tmp_path / "x.safetensors", {"w": raw}))
    before = bytes(file.tensors["w"].view())
    file.file.forget(0, file.size_bytes)
    assert bytes(file.tensors["w"].view()) == before


def test_opening_a_pipe_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    assert MappedFile(tmp_path / "pipe").size == 0


def test_empty_tensors_have_empty_views() -> None:
    for data in (b"", memoryview(b""), lambda: memoryview(b"")):
        assert len(LazyTensor("F32", (0, 5), data).view()) == 0


def test_the_literal_bf16_of_the_tests_reads_back() -> None:
    assert list(numbers(floats([1.0, -2.5], "BF16"), "BF16")) == [1.0, -2.5]
