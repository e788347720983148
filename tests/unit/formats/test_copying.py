"""Byte ranges are copied in order and whole, in the kernel or by hand."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.errors import StorageProblem
from hubtool.formats.atomic import atomic_output
from hubtool.formats.copying import Piece, copy_pieces
from hubtool.formats.tensor import MappedFile

DATA = bytes(i * 7 % 251 for i in range(400_000))


@pytest.fixture
def source(tmp_path: Path) -> MappedFile:
    (tmp_path / "source").write_bytes(DATA)
    return MappedFile(tmp_path / "source")


def copied(folder: Path, pieces: list[Piece], start: bytes = b"") -> bytes:
    with (folder / "out").open("wb") as out:
        out.write(start)
        copy_pieces(out, pieces)
        out.write(b"end")
    return (folder / "out").read_bytes()


_RANGES = st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 400_000)).map(sorted), max_size=8)


@given(ranges=_RANGES)
def test_ranges_of_one_file_arrive_in_the_order_given(
    tmp_path: Path, source: MappedFile, ranges: list[list[int]]
) -> None:
    pieces = [Piece(source.descriptor, start, stop) for start, stop in ranges]
    assert copied(tmp_path, pieces, b"start") == b"start" + b"".join(DATA[a:b] for a, b in ranges) + b"end"


def test_buffers_and_large_ranges_keep_their_places(tmp_path: Path, source: MappedFile) -> None:
    pieces = [
        Piece(None, 0, 3, memoryview(b"abc")),
        Piece(source.descriptor, 0, 200_000),
        Piece(None, 0, 0, memoryview(b"")),
        Piece(None, 0, 1, memoryview(b"-")),
        Piece(source.descriptor, 200_000, 200_010),
        Piece(source.descriptor, 200_010, 400_000),
    ]
    assert copied(tmp_path, pieces) == b"abc" + DATA[:200_000] + b"-" + DATA[200_000:] + b"end"


def test_a_system_without_copies_in_the_kernel_copies_by_hand(
    tmp_path: Path, source: MappedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    assert copied(tmp_path, [Piece(source.descriptor, 5, 300_000)]) == DATA[5:300_000] + b"end"


def test_a_kernel_that_gives_up_half_way_is_helped_out(
    tmp_path: Path, source: MappedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread

    def copy_some(descriptor: int, out: int, count: int, position: int) -> int:
        if position >= 100_000:
            raise OSError(18, "Invalid cross-device link")
        return os.write(out, real(descriptor, min(count, 40_000), position))

    monkeypatch.setattr(os, "copy_file_range", copy_some, raising=False)
    assert copied(tmp_path, [Piece(source.descriptor, 0, 400_000)], b"x") == b"x" + DATA + b"end"


@pytest.mark.parametrize("kernel", [True, False])
def test_a_source_that_shrinks_meanwhile_fails_and_leaves_nothing(
    tmp_path: Path, source: MappedFile, monkeypatch: pytest.MonkeyPatch, kernel: bool
) -> None:
    if not kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    os.truncate(source.path, 100_000)
    with pytest.raises(StorageProblem, match="shorter"), atomic_output(tmp_path / "out") as out:
        copy_pieces(out, [Piece(source.descriptor, 0, 400_000)])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
