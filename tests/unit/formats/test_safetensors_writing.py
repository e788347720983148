"""What our writer puts on disk: renames keep the body, and the reference library reads it all."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.files import ITEM_BYTES, Raw, parsed, random_tensor, write
from support.lazy import written

from hubtool.formats.safetensors import read_safetensors
from hubtool.formats.tensor import DTYPE_BITS, LazyTensor


def test_a_rename_keeps_the_order_and_every_byte_of_the_body(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", {f"k{i}": random_tensor(i, (30, 40 + i)) for i in (5, 1, 4, 0)})
    tensors = read_safetensors(source).tensors
    out = written(
        tmp_path / "out.safetensors",
        {f"renamed.{9 - i}.{key}": tensor for i, (key, tensor) in enumerate(tensors.items())},
    )
    before, after = parsed(source.read_bytes())[0], parsed(out.read_bytes())[0]
    assert list(after.values()) == list(before.values())


@pytest.mark.parametrize("pad", [1, 8, 64, 4096])
def test_a_rename_keeps_the_place_of_the_body_within_its_block(tmp_path: Path, pad: int) -> None:
    source = write(tmp_path / "in.safetensors", {"w": random_tensor(1, (300, 400))}, pad=pad)
    before = read_safetensors(source)
    out = read_safetensors(
        written(tmp_path / "out.safetensors", {"a.much.longer.name.than.before": before.tensors["w"]})
    )
    assert (out.body_start - before.body_start) % 4096 == 0


def test_tensors_of_several_files_and_of_memory_are_mixed_into_one(tmp_path: Path) -> None:
    parts = {key: random_tensor(i, (200, 300 + i)) for i, key in enumerate("abcd")}
    first = write(tmp_path / "1.safetensors", {key: parts[key] for key in "ab"}, pad=1)
    second = write(tmp_path / "2.safetensors", {"c": parts["c"]})
    tensors = {**read_safetensors(first).tensors, **read_safetensors(second).tensors}
    tensors["d"] = LazyTensor(*parts["d"])
    tensors["e"] = LazyTensor("F16", (0, 3), b"")
    found, _ = parsed(written(tmp_path / "out.safetensors", tensors).read_bytes())
    assert found == {**parts, "e": Raw("F16", (0, 3), b"")}


def test_computed_tensors_are_aligned_to_their_widest_dtype(tmp_path: Path) -> None:
    tensors = {"a": LazyTensor("U8", (3,), b"abc"), "b": LazyTensor("F64", (1,), bytes(8))}
    raw = written(tmp_path / "out.safetensors", tensors).read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    row = json.loads(raw[8:start])["b"]["data_offsets"]
    assert (start + row[0]) % 8 == 0


def test_a_tensor_whose_bytes_do_not_match_its_shape_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        written(tmp_path / "out.safetensors", {"w": LazyTensor("F32", (2, 2), b"only twelve.")})


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_we_read_what_the_reference_library_writes(tmp_path: Path, dtype: str) -> None:
    arrays = {"a": np.arange(12).reshape(3, 4).astype(dtype), "b": np.array(1, dtype), "c": np.zeros((0, 5), dtype)}
    save_file(arrays, tmp_path / "x.safetensors", {"k": "v"})
    file = read_safetensors(tmp_path / "x.safetensors")
    assert {key: (t.shape, bytes(t.view())) for key, t in file.tensors.items()} == {
        key: (array.shape, array.tobytes()) for key, array in arrays.items()
    }
    assert dict(file.metadata) == {"k": "v"}


def test_a_rename_is_read_by_the_reference_library_to_equal_values(tmp_path: Path) -> None:
    arrays = {f"w{i}": np.random.default_rng(i).standard_normal((64, 130 + i)).astype("float32") for i in range(5)}
    save_file(arrays, tmp_path / "x.safetensors")
    tensors = read_safetensors(tmp_path / "x.safetensors").tensors
    found = load_file(written(tmp_path / "out.safetensors", {f"new.{key}": tensor for key, tensor in tensors.items()}))
    assert all(np.array_equal(found[f"new.{key}"], array) for key, array in arrays.items())


def test_every_dtype_of_the_format_is_known() -> None:
    assert ITEM_BYTES.keys() <= DTYPE_BITS.keys()
    assert all(DTYPE_BITS[dtype] == 8 * size for dtype, size in ITEM_BYTES.items())
