"""Stretches ahead of a part's beginning: nobody fetches a byte twice, and a journal says what is there after a kill."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from hubtool.hubs.part import Part, Validators
from hubtool.hubs.pieces import Field, Pieces

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 64  # 16 KiB


def opened(folder: Path) -> Part:
    part = Part(folder, "x")
    part.open(resume=True)
    return part


def with_stretches(folder: Path, *, frontier: int = 1000) -> Part:
    """A part with a beginning and two stretches further on, of which the second is unfinished."""
    part = opened(folder)
    part.write(DATA[:frontier])
    part.remember(Validators('"e"', "", len(DATA)))
    part.begin_journal()
    for length in (2048, 700):
        piece = part.pieces.claim(Field(part.size, len(DATA), 2048, 512))
        assert piece is not None
        part.write_ahead(piece, DATA[piece.start : piece.start + length])
    return part


def test_claimed_stretches_do_not_overlap_and_leave_the_main_stream_some(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "journal")
    pieces.open(0)
    found = []
    while (piece := pieces.claim(Field(100, 20_000, 4000, 500))) is not None:
        found.append(piece)
    spans = sorted((piece.start, piece.end) for piece in found)
    assert spans[0][0] >= 600
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spans[-1][1] == 20_000


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 900)), max_size=40), st.integers(0, 5000))
def test_however_many_work_at_it_every_byte_is_somebodys(steps: list[tuple[int, int]], frontier: int) -> None:
    """Random claims, progress and releases; what nobody has is exactly what the next claims and the main stream get."""
    pieces = Pieces(os.devnull)  # type: ignore[arg-type]  # nothing is written
    pieces._note = lambda *_: None  # type: ignore[method-assign]
    whole, live = Field(frontier, 10_000, 1500, 200), []
    for kind, amount in steps:
        if kind == 0 and (piece := pieces.claim(whole)) is not None:
            live.append(piece)
        elif live and kind == 1:
            live[0].done = min(live[0].end, live[0].done + amount)
        elif live and kind == 2:
            pieces.release(live.pop())
    spans = sorted((piece.start, piece.end) for piece in pieces._pieces)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert all(frontier <= start <= end <= 10_000 for start, end in spans)


def test_what_was_noted_is_known_to_the_next_run_to_the_byte(tmp_path: Path) -> None:
    with_stretches(tmp_path).close()
    part = opened(tmp_path)
    assert (part.size, part.present, part.resumed_from) == (1000, 3748, 3748)
    assert part.validators.etag == '"e"'
    assert part.pieces.room(part.size) == 2048


def test_a_kill_loses_nothing_that_was_noted(tmp_path: Path) -> None:
    with_stretches(tmp_path)  # and never closed
    assert opened(tmp_path).present == 3748


def test_a_kill_before_the_first_line_of_the_journal_loses_nothing(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.write(DATA)
    part.begin_journal()
    next(tmp_path.glob("*.pieces")).write_bytes(b"")
    assert opened(tmp_path).size == len(DATA)


def test_the_beginning_grows_over_stretches_by_hashing_them_from_disk(tmp_path: Path) -> None:
    part = with_stretches(tmp_path)
    part.pieces.release_all()
    while (room := part.pieces.room(part.size)) is not None:
        part.write(DATA[part.size : part.size + room])
        part.join()
    part.write(DATA[part.size :])
    assert part.sha256 == hashlib.sha256(DATA).hexdigest()
    assert part.publish([tmp_path / "final"]) == (tmp_path / "final", True)
    assert (tmp_path / "final").read_bytes() == DATA
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_part_without_journal_is_as_long_as_its_file(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.write(DATA)
    part.close()
    assert not list(tmp_path.glob("*.pieces"))
    assert opened(tmp_path).size == len(DATA)


def test_lines_that_were_cut_or_lie_count_for_no_more_than_the_file_has(tmp_path: Path) -> None:
    with_stretches(tmp_path).close()
    journal = next(tmp_path.glob("*.pieces"))
    lines = journal.read_bytes()
    journal.write_bytes(lines[:42] + b"?" * 42 + b"%020d %020d\n" % (9000, 10**15) + lines[:17])
    part = opened(tmp_path)
    size = part.path.stat().st_size
    assert (part.size, part.present) == (1000, 1000 + max(0, size - 9000))


def test_a_journal_beside_an_empty_part_is_worth_nothing(tmp_path: Path) -> None:
    with_stretches(tmp_path).close()
    path = next(tmp_path.glob("*.part"))
    path.write_bytes(b"")
    assert (opened(tmp_path).present, list(tmp_path.glob("*.pieces"))) == (0, [])


def test_nothing_is_written_once_help_has_been_dismissed(tmp_path: Path) -> None:
    part = with_stretches(tmp_path)
    late = part.pieces.claim(Field(part.size, len(DATA), 2048, 512))
    assert late is not None
    part.pieces.release_all()
    before = part.path.read_bytes()
    assert part.write_ahead(late, b"late") is False
    assert part.path.read_bytes() == before


def test_a_stretch_that_has_not_begun_gives_way_to_the_main_stream(tmp_path: Path) -> None:
    part = opened(tmp_path)
    part.begin_journal()
    idle = part.pieces.claim(Field(0, len(DATA), 2048, 512))
    assert idle is not None
    assert part.pieces.room(0, idle.start + 1) is None
    assert part.write_ahead(idle, b"late") is False
