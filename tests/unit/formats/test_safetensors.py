"""The container: every rule of the format refuses what breaks it, and what we write is what others read."""

import gc
import json
import os
import sys
import time
from pathlib import Path

import pytest
from support.files import Raw, container, entry, packed, parsed, random_tensor, write, write_sparse

from hubtool.errors import BadHeader, FileMissing, NotRegularFile, StorageProblem, TruncatedFile
from hubtool.formats.safetensors import MAX_HEADER_BYTES, MAX_TENSORS, read_safetensors

ONE = entry("F32", [2, 2], 0, 16)
BODY = bytes(range(16))


def refusal(folder: Path, raw: bytes) -> BadHeader:
    """The reader's objection to a file of these bytes."""
    path = folder / "x.safetensors"
    path.write_bytes(raw)
    with pytest.raises(BadHeader) as caught:
        read_safetensors(path)
    assert str(caught.value).isprintable()
    return caught.value


def test_a_plain_file_is_read_with_its_bytes_shapes_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(container({"__metadata__": {"a": "b"}, "w": ONE}, BODY))
    file = read_safetensors(tmp_path / "x.safetensors")
    assert dict(file.metadata) == {"a": "b"}
    assert (file.tensors["w"].dtype, file.tensors["w"].shape) == ("F32", (2, 2))
    assert bytes(file.tensors["w"].view()) == BODY


# ---------------------------------------------------------------- the length field and the header's text


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "E_EMPTY"),
        (b"\x02\0\0\0\0\0\0", "E_TRUNCATED_HEADER"),
        (container("{}", length=0), "E_HEADER_JSON"),
        (container("{}", length=1), "E_HEADER_JSON"),
        (container("{}", length=3), "E_TRUNCATED_HEADER"),
        (container("{}", length=MAX_HEADER_BYTES + 1), "E_HEADER_TOO_LARGE"),
        (container("{}", length=2**63), "E_HEADER_TOO_LARGE"),
        (container("{}", length=2**64 - 1), "E_HEADER_TOO_LARGE"),
        ((2).to_bytes(8, "big") + b"{}", "E_HEADER_TOO_LARGE"),
        (container(" {}"), "E_HEADER_JSON"),
        (container(b"\xef\xbb\xbf{}"), "E_HEADER_JSON"),
        (container("{}".encode("utf-16-le")), "E_HEADER_ENCODING"),
        (container("{}".encode("utf-32-le")), "E_HEADER_ENCODING"),
        (container(b'{"\xff\xfe":' + json.dumps(ONE).encode() + b"}", BODY), "E_HEADER_ENCODING"),
        (container('{"\\ud800":' + json.dumps(ONE) + "}", BODY), "E_HEADER_ENCODING"),
        (container('{"__metadata__":{"a":"\\udfff"},"w":' + json.dumps(ONE) + "}", BODY), "E_HEADER_ENCODING"),
        (container('{"__metadata__":{"\\ud800":"a"},"w":' + json.dumps(ONE) + "}", BODY), "E_HEADER_ENCODING"),
        (container("{]"), "E_HEADER_JSON"),
        (container('{"w":' + json.dumps(ONE) + ",}", BODY), "E_HEADER_JSON"),
        (container("{}{}"), "E_HEADER_JSON"),
        (container(b"{}\0\0\0"), "E_HEADER_JSON"),
        (container('{"__metadata__":{"a":NaN}}'), "E_HEADER_JSON"),
        (container('{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,Infinity]}}', BODY), "E_HEADER_JSON"),
        (container('{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[00,016]}}', BODY), "E_HEADER_JSON"),
        (container("{'w':1}"), "E_HEADER_JSON"),
        (container('{"a\nb":1}'), "E_HEADER_JSON"),
        (container('{"a":' + "[" * 50_000 + "]" * 50_000 + "}"), "E_HEADER_DEPTH"),
        (container('{"__metadata__":' + '{"a":' * 50_000 + "0" + "}" * 50_001), "E_HEADER_DEPTH"),
        (container(json.dumps({"w": ONE}).replace("16", "9" * 5000), BODY), "E_OFFSETS"),
    ],
)
def test_a_header_that_is_no_header_breaks_the_rule_that_is_named(tmp_path: Path, raw: bytes, rule: str) -> None:
    assert refusal(tmp_path, raw).rule == rule


@pytest.mark.parametrize("text", ["[]", "null", '"w"', "12"])
def test_a_header_that_is_another_json_value_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, container(text)).rule == "E_HEADER_JSON"


def test_the_message_of_a_truncated_header_counts_the_missing_bytes(tmp_path: Path) -> None:
    found = refusal(tmp_path, packed({"w": Raw("F32", (2, 2), BODY)})[:20])
    assert isinstance(found, TruncatedFile)
    assert "bytes are missing" in str(found)


# ---------------------------------------------------------------- duplicates, entries, metadata


@pytest.mark.parametrize(
    "text",
    [
        f'{{"w":{json.dumps(ONE)},"w":{json.dumps(ONE)}}}',
        f'{{"w":{json.dumps(ONE)},"\\u0077":{json.dumps(ONE)}}}',
        f'{{"__metadata__":{{"a":"1","a":"2"}},"w":{json.dumps(ONE)}}}',
        f'{{"__metadata__":{{}},"__metadata__":{{}},"w":{json.dumps(ONE)}}}',
        '{"w":{"dtype":"F32","dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}',
    ],
)
def test_one_name_twice_in_one_object_is_refused_wherever_it_is(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, container(text, BODY)).rule == "E_DUPLICATE_KEY"


@pytest.mark.parametrize("value", ["F32", None, [], 3, True, {**ONE, "extra": 1}])
def test_a_tensor_that_is_not_described_by_the_three_fields_is_refused(tmp_path: Path, value: object) -> None:
    assert refusal(tmp_path, container({"w": value}, BODY)).rule == "E_ENTRY"


@pytest.mark.parametrize("value", ["text", None, [], 1, {"a": 1}, {"a": None}, {"a": {}}, {"a": ["b"]}, {"a": True}])
def test_metadata_that_is_no_object_of_strings_is_refused(tmp_path: Path, value: object) -> None:
    assert refusal(tmp_path, container({"__metadata__": value, "w": ONE}, BODY)).rule == "E_METADATA_TYPE"


@pytest.mark.parametrize("dtype", ["f32", "F128", "torch.float32", "", 11, None, [], {}, True, "F32 "])
def test_a_dtype_that_the_format_does_not_know_is_refused(tmp_path: Path, dtype: object) -> None:
    row = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 16]}
    assert refusal(tmp_path, container({"w": row}, BODY)).rule == "E_DTYPE"


@pytest.mark.parametrize(
    "shape",
    [None, 4, "4", {}, [-2, -2], [2.0, 2.0], ["2", 2], [True, 4], [None], [[2, 2]], [0, 2**64 - 1], [2**63], [1] * 65],
)
def test_a_shape_that_no_tensor_can_have_is_refused(tmp_path: Path, shape: object) -> None:
    row = {"dtype": "F32", "shape": shape, "data_offsets": [0, 16]}
    assert refusal(tmp_path, container({"w": row}, BODY)).rule == "E_SHAPE"


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("F32", [3, 3]), ("F32", [2, 1]), ("F16", [2, 2]), ("F32", [2**32, 2**32]), ("F32", [2**62 + 4]), ("F32", [0])],
)
def test_a_shape_that_needs_another_number_of_bytes_is_refused(tmp_path: Path, dtype: str, shape: list[int]) -> None:
    row = {"dtype": dtype, "shape": shape, "data_offsets": [0, 16]}
    assert refusal(tmp_path, container({"w": row}, BODY)).rule == "E_SHAPE_BYTES"


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_packed_elements_that_end_inside_a_byte_are_refused(tmp_path: Path, dtype: str) -> None:
    assert refusal(tmp_path, container({"w": entry(dtype, [3], 0, 2)}, b"ab")).rule == "E_SHAPE_BYTES"


@pytest.mark.parametrize(
    "offsets",
    [None, [], [0], [0, 16, 16], "0,16", [0.0, 16.0], ["0", "16"], [False, True], [None, 16], [-16, 0], [16, 0],
     [0, 2**64 + 16], {"0": 16}, [[0], [16]]],
)  # fmt: skip
def test_offsets_that_are_no_pair_of_positions_are_refused(tmp_path: Path, offsets: object) -> None:
    row = {"dtype": "F32", "shape": [2, 2], "data_offsets": offsets}
    assert refusal(tmp_path, container({"w": row}, BODY)).rule == "E_OFFSETS"


# ---------------------------------------------------------------- layout


def two(first: tuple[int, int], second: tuple[int, int], body: int) -> bytes:
    """Two byte tensors at these places in a body of this size."""
    rows = {key: entry("U8", [stop - start], start, stop) for key, (start, stop) in {"a": first, "b": second}.items()}
    return container(rows, bytes(body))


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (two((0, 8), (4, 12), 12), "E_OFFSETS"),
        (two((0, 8), (0, 8), 8), "E_OFFSETS"),
        (two((0, 8), (12, 20), 20), "E_OFFSETS"),
        (two((4, 8), (8, 12), 12), "E_OFFSETS"),
        (two((8, 16), (0, 4), 16), "E_OFFSETS"),
        (two((0, 8), (8, 16), 15), "E_TRUNCATED_DATA"),
        (two((0, 8), (8, 16), 0), "E_TRUNCATED_DATA"),
        (two((0, 8), (8, 16), 17), "E_TRAILING_DATA"),
        (container("{}", b"x"), "E_TRAILING_DATA"),
    ],
)
def test_tensors_must_tile_the_rest_of_the_file(tmp_path: Path, raw: bytes, rule: str) -> None:
    assert refusal(tmp_path, raw).rule == rule


def test_a_file_written_twice_or_followed_by_an_archive_is_refused(tmp_path: Path) -> None:
    good = packed({"w": Raw("F32", (2, 2), BODY)})
    assert refusal(tmp_path, good + good).rule == "E_TRAILING_DATA"
    assert refusal(tmp_path, good + b"PK\x03\x04rest").rule == "E_TRAILING_DATA"


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    rows = {f"t{i}": entry("U8", [0], 0, 0) for i in range(MAX_TENSORS + 1)}
    assert refusal(tmp_path, container(rows)).rule == "E_TOO_MANY_TENSORS"


@pytest.mark.parametrize(
    "text",
    [
        '{"w":[' + "{}," * 1_500_000 + "{}]}",
        '{"w":{"dtype":"F32","shape":[' + "1000," * 900_000 + '1],"data_offsets":[0,4]}}',
        '{"__metadata__":{' + ",".join(f'"{i:x}":""' for i in range(600_000)) + "}}",
        '{"__metadata__":{"a":"\\\\"' + ',"":""' * 600_000 + "}}",
        "{" + " " * 5_000_000 + "}",
        '{"__metadata__":{"a":"😀' + "x" * (17 << 20) + '"}}',
    ],
    ids=["objects", "numbers", "strings", "escapes", "spaces", "unicode"],
)
def test_a_long_header_that_would_unpack_to_many_times_its_size_is_refused(tmp_path: Path, text: str) -> None:
    started = time.process_time()
    assert refusal(tmp_path, container(text, b"1234")).rule == "E_HEADER_TOO_LARGE"
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["tag, " * 4_000_000, '"a": 1, \\ ' * 1_000_000, "[{,}]" * 1_000_000])
def test_a_long_text_in_the_metadata_is_no_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(container(json.dumps({"__metadata__": {"ss_tag_frequency": text}, "w": ONE}) + " " * 5000, BODY))
    assert read_safetensors(path).metadata["ss_tag_frequency"] == text


@pytest.mark.parametrize(
    "raw",
    [
        container("{}"),
        container('{"__metadata__":{}}'),
        container({"w": ONE}, BODY),  # a header whose length is no multiple of 8
        container(json.dumps({"w": ONE}) + " " * 4096, BODY),
        container(json.dumps({"w": ONE}) + "\n\t\r ", BODY),
        two((8, 16), (0, 8), 16),  # the header's order is not the body's
        container({"w": entry("F32", [], 0, 4)}, b"1234"),
        container({"w": entry("F32", [0, 768], 0, 0)}),
        container({"w": entry("F4", [2, 3], 0, 3)}, b"123"),
        container({"w": entry("F6_E2M3", [4], 0, 3)}, b"123"),
        container({"w": entry("F32", [1] * 64, 0, 4)}, b"1234"),
        container({"a": entry("U8", [4], 0, 4), "b": entry("U8", [0], 4, 4), "c": entry("U8", [4], 4, 8)}, bytes(8)),
        container({"\u0000": ONE}, BODY),
        container({"": ONE}, BODY),
        container({"__metadata__ ": ONE}, BODY),
        container('{"__metadata__":{"title":"\\ud83d\\ude00 \u732b"},"w":' + json.dumps(ONE) + "}", BODY),
    ],
)
def test_what_the_format_allows_is_read(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw)
    tensors, metadata = parsed(raw)
    file = read_safetensors(tmp_path / "x.safetensors")
    assert dict(file.metadata) == metadata
    found = {key: Raw(t.dtype, t.shape, bytes(t.view())) for key, t in file.tensors.items()}
    assert found == tensors


@pytest.mark.parametrize(
    "raw", [container({"w": entry("F32", [0], 2, 2), "v": ONE}, BODY), container({"w": entry("U8", [0], 9, 9)}, b"")]
)
def test_an_empty_tensor_must_lie_where_another_one_ends(tmp_path: Path, raw: bytes) -> None:
    assert refusal(tmp_path, raw).rule in {"E_OFFSETS", "E_TRUNCATED_DATA"}


# ---------------------------------------------------------------- what is no file


def test_a_missing_path_a_folder_and_a_loop_of_links_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name, expected in {
        "gone": FileMissing,
        "nowhere": FileMissing,
        "loop": FileMissing,
        ".": NotRegularFile,
    }.items():
        with pytest.raises(expected):
            read_safetensors(tmp_path / name)


def test_a_pipe_and_a_device_are_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(NotRegularFile):
            read_safetensors(tmp_path / name)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_path_that_the_system_cannot_have_is_an_error_of_ours(tmp_path: Path, name: str) -> None:
    with pytest.raises((StorageProblem, FileMissing)):
        read_safetensors(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"w": Raw("F32", (2, 2), BODY)})
    path.chmod(0)
    with pytest.raises(StorageProblem):
        read_safetensors(path)


def test_a_file_stays_readable_through_its_tensors_after_it_was_deleted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"w": random_tensor(1, (40, 40))})
    expected = path.read_bytes()[-3200:]
    tensor = read_safetensors(path).tensors["w"]
    path.unlink()
    assert bytes(tensor.view()) == expected


def test_a_file_is_closed_when_its_last_tensor_is_gone(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"w": random_tensor(1, (40, 40))})
    before = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0
    file = read_safetensors(path)
    bytes(file.tensors["w"].view())
    del file
    gc.collect()
    assert not before or len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_sparse_file_of_8_gb_is_opened_without_reading_it(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "x.safetensors", {"w": ("F32", (2, 1 << 30))})
    assert read_safetensors(path).tensors["w"].nbytes == 8 << 30
