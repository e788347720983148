"""A header is taken apart the quick way only where that says the same as reading it in full."""

import json
import os
from pathlib import Path

import pytest
from support.files import Raw, container, packed, write

from hubtool.formats.header import split_header

TENSORS = {"a.lora_up.weight": Raw("F16", (2, 1), bytes(4)), "b": Raw("F32", (1,), bytes(4))}


def split(path: Path, data: bytes):
    path.write_bytes(data)
    return split_header(path)


def test_metadata_change_nothing_of_the_digest_and_tensors_do(tmp_path: Path) -> None:
    one = split_header(write(tmp_path / "one", TENSORS, {"title": "große Burg \U0001f3f0", "x": '{"y": "\\n"}'}))
    two = split_header(write(tmp_path / "two", TENSORS, {"title": "other"}))
    assert one.metadata == {"title": "große Burg \U0001f3f0", "x": '{"y": "\\n"}'}
    assert one.tensors == two.tensors
    other = {**TENSORS, "b": Raw("F32", (1, 1), bytes(4))}
    assert split_header(write(tmp_path / "three", other, {"title": "other"})).tensors != one.tensors


def test_a_file_that_is_longer_or_shorter_than_its_twin_has_another_digest(tmp_path: Path) -> None:
    whole = packed(TENSORS, {"a": "b"})
    digests = {split(tmp_path / "x", data).tensors for data in (whole, whole[:-1], whole + b"\0")}
    assert len(digests) == 3


def test_no_metadata_are_fine(tmp_path: Path) -> None:
    assert split(tmp_path / "x", packed(TENSORS)).metadata == {}


@pytest.mark.parametrize(
    "header",
    [
        '{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"late":"1"}}',
        '{"__metadata__":{"a":"1","a":"2"}}',
        '{"__metadata__":{"a":1}}',
        '{"__metadata__":{"a":"\\ud800"}}',
        '{"__metadata__":{"a":"1"},"\\u005f_metadata__":{"b":"2"}}',
        '{"__metadata__":{"a":"1"},"__metadata__":{"b":"2"}}',
        '{"__metadata__":' + "[" * 100_000,
        '{"__metadata__":{"a":"1"',
        "[]",
    ],
)
def test_what_needs_a_closer_look_gets_it(tmp_path: Path, header: str) -> None:
    assert split(tmp_path / "x", container(header)) is None


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02}q\0.", (1 << 40).to_bytes(8, "little") + b"{}"])
def test_other_files_have_no_parts(tmp_path: Path, data: bytes) -> None:
    assert split(tmp_path / "x", data) is None


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert split_header(tmp_path / "pipe") is None
    assert split_header(tmp_path / "nothing") is None


def test_blanks_between_tokens_are_allowed(tmp_path: Path) -> None:
    text = json.dumps(
        {"__metadata__": {"a": "b"}, "b": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, indent=1
    )
    assert split(tmp_path / "x", container(text, bytes(4))).metadata == {"a": "b"}
