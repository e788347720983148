"""Hashes against a computation that shares nothing with ours but the definitions."""

import hashlib
import json
import threading
import zlib

import blake3
import pytest

from hubtool.errors import FileMissing, NotRegularFile
from hubtool.formats import hashing
from hubtool.formats.hashing import embedded_hash, hash_file, is_empty_hash


def safetensors_bytes(body: bytes) -> bytes:
    header = json.dumps({"x": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}).encode()
    return len(header).to_bytes(8, "little") + header + body


@pytest.mark.parametrize("size", [0, 10, 0x100000 - 70, 0x10FFF0, 0x110000 + 12_345, 3 << 20])
def test_all_hashes_equal_their_definitions(tmp_path, size):
    body = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000 + 1)
    data = safetensors_bytes(body[:size])
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    length = int.from_bytes(data[:8], "little")
    found = hash_file(path)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.autov1 == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
    assert found.autov2 == found.sha256[:10]
    assert found.tensors_sha256 == hashlib.sha256(data[8 + length :]).hexdigest()
    assert found.autov3 == found.tensors_sha256[:12]
    assert found.crc32 == format(zlib.crc32(data), "08x")
    assert found.blake3 == blake3.blake3(data).hexdigest()


def test_a_file_that_is_not_safetensors_has_no_tensor_hash(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello")
    found = hash_file(path)
    assert (found.autov3, found.tensors_sha256) == (None, None)
    assert found.sha256 == hashlib.sha256(b"hello").hexdigest()


def test_an_empty_file_is_hashed_like_any_other(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    assert hash_file(tmp_path / "x").crc32 == "00000000"


def test_sha256_is_the_accelerated_one():
    assert type(hashing.sha256()).__module__ == "_hashlib"  # OpenSSL; the built-in one is five times slower


def test_what_is_no_regular_file_is_named(tmp_path):
    with pytest.raises(FileMissing):
        hash_file(tmp_path / "absent")
    with pytest.raises(NotRegularFile):
        hash_file(tmp_path)


def test_no_thread_outlives_the_call(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 5_000_000)
    before = threading.active_count()
    hash_file(tmp_path / "x")
    assert threading.active_count() == before


def test_the_embedded_hash_loses_its_prefix_and_case():
    digest = "AB" * 32
    assert embedded_hash({"modelspec.hash_sha256": f"0x{digest}"}) == digest.lower()


@pytest.mark.parametrize("value", ["", "0x", "e3b0c44298fc", hashlib.sha256().hexdigest(), "not hex at all", "ab" * 40])
def test_an_embedded_hash_that_names_nothing_is_ignored(value):
    assert embedded_hash({"sshs_model_hash": value}) is None


def test_kohyas_hash_wins_over_the_model_specification():
    assert embedded_hash({"sshs_model_hash": "aa" * 32, "modelspec.hash_sha256": "bb" * 32}) == "aa" * 32


def test_a_bogus_hash_does_not_hide_the_good_one():
    assert embedded_hash({"sshs_model_hash": "e3b0c44298fc", "modelspec.hash_sha256": "bb" * 32}) == "bb" * 32


def test_the_hash_of_nothing_is_known_at_any_length():
    assert is_empty_hash("E3B0C44298FC")
    assert not is_empty_hash("e3")
