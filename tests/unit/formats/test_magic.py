"""What a file really is, told by its first bytes."""

import gzip
import io
import pickle
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.files import Raw, packed

from hubtool.formats.magic import foreign, is_pickle, looks_like_safetensors


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 30)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"))
    return out.getvalue()


KINDS = {
    "E_NOT_SAFETENSORS_HTML": [b"<!DOCTYPE html><html>", b"\n\n <html>", b"\xef\xbb\xbf<HTML>", b"<?xml version='1.0'?>"],
    "E_NOT_SAFETENSORS_LFS": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"],
    "E_NOT_SAFETENSORS_GZIP": [gzip.compress(b"anything", mtime=0)],
    "E_NOT_SAFETENSORS_ZIP": [zipped("model.safetensors"), zipped("../evil"), zipped()],
    "E_NOT_SAFETENSORS_TAR": [tarred()],
    "E_NOT_SAFETENSORS_GGUF": [b"GGUF\3\0\0\0" + bytes(40)],
    "E_NOT_SAFETENSORS_EXE": [b"\x7fELF\2\1\1" + bytes(40), b"MZ\x90\0" + bytes(60), b"#!/bin/sh\nrm -rf /\n"],
    "E_NOT_SAFETENSORS_HDF5": [b"\x89HDF\r\n\x1a\n" + bytes(20)],
    "E_NOT_SAFETENSORS_IMAGE": [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\0\0\0\0WEBP"],
    "E_NOT_SAFETENSORS_7Z": [b"7z\xbc\xaf\x27\x1c\0\4"],
    "E_NOT_SAFETENSORS_RAR": [b"Rar!\x1a\7\1\0"],
    "E_NOT_SAFETENSORS": [b'{"error": "Unauthorized"}', b'[{"message": "no"}]'],
    "E_PICKLE": [
        *(pickle.dumps({"a": [1.5, "text"]}, protocol) for protocol in range(2, 6)),
        b"cos\nsystem\n(S'true'\ntR.",
        b"(dp0\nS'state_dict'\np1\ncposix\nsystem\np2\n.",
        b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02",
        zipped("archive/data.pkl", "archive/data/0"),
        zipped("model/data.pkl"),
        zipped("archive/version", "archive/data.pkl2"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("rule", "start"), [(rule, start) for rule, starts in KINDS.items() for start in starts])
def test_another_kind_of_file_is_named(rule: str, start: bytes) -> None:
    found = foreign(start[:512])
    assert found is not None
    assert found[0] == rule


@pytest.mark.parametrize("length", [2, 0x4B50, 0x5A4D, 0x0280, 0x0580, 0x8B1F, 31 << 20])
def test_a_header_length_that_looks_like_another_magic_is_still_safetensors(length: int) -> None:
    start = length.to_bytes(8, "little") + b'{"w":'
    assert looks_like_safetensors(start)
    assert foreign(start) is None


def test_our_own_files_are_no_foreign_ones() -> None:
    assert foreign(packed({"w": Raw("F32", (1,), bytes(4))})[:512]) is None


@given(st.binary(max_size=600))
def test_any_first_bytes_get_an_answer(start: bytes) -> None:
    found = foreign(start)
    assert found is None or found[0].startswith("E_")


@pytest.mark.parametrize("start", [b"", b"\x80", b"PK", b"c", b"(\n\n\n"])
def test_a_few_bytes_are_no_pickle(start: bytes) -> None:
    assert not is_pickle(start)
