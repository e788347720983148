"""Several files renamed together: all of them in the end, even if the process is killed between two.

What is to be done is written down first; whoever opens the library next completes it. Nothing is ever overwritten. Both is done
under the library's lock (`Index.writing`), so that no note is completed while its writer is at work.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import OutputExists, StorageProblem
from hubtool.formats.atomic import reraise, sync_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Move:
    """One file's way."""

    source: Path
    target: Path


def carry_out(folder: Path, moves: Sequence[Move]) -> None:
    """Rename every file; `folder` is where the note of it lies meanwhile.

    Raises:
        OutputExists: a target is there already; nothing was moved then.
        StorageProblem: the disk refuses; what was moved is moved back.
    """
    for move in moves:
        if os.path.lexists(move.target) and not _differs_by_case(move):
            raise OutputExists(move.target)
    note = folder / f"moves-{secrets.token_hex(6)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps([[str(move.source), str(move.target)] for move in moves]), force=True)
    done: list[Move] = []
    try:
        for move in moves:
            _move(move)
            done.append(move)
    except OSError as error:
        for move in reversed(done):
            _move(Move(move.target, move.source))
        note.unlink()
        reraise(error, Path(str(error.filename or folder)))
    for parent in {place for move in moves for place in (move.source.parent, move.target.parent)}:
        sync_folder(parent)
    note.unlink()


def pending(folder: Path) -> list[Path]:
    """The notes of moves that were begun and not finished."""
    return sorted(folder.glob("moves-*.json"))


def complete(folder: Path) -> int:
    """Finish what a killed process began; how many such notes there were.

    Raises:
        StorageProblem: the disk refuses.
    """
    notes = pending(folder)
    for note in notes:
        for move in _read(note):
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # done before, or undone by the user since
                try:
                    _move(move)
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.EEXIST}:
                        reraise(error, move.source)
                    raise
        note.unlink(missing_ok=True)
    return len(notes)


def _read(note: Path) -> list[Move]:
    try:
        return [Move(Path(source), Path(target)) for source, target in json.loads(note.read_text("utf-8"))]
    except (OSError, ValueError) as error:  # written whole or not at all: somebody else changed it
        raise StorageProblem(note, "is no list of moves; look at it, then delete it") from error


def _move(move: Move) -> None:
    """Rename without overwriting, in two steps that can be repeated; a plain rename where there are no hard links."""
    move.target.parent.mkdir(parents=True, exist_ok=True)
    if _is_same(move):  # killed between the two steps
        move.source.unlink()
        return
    if not move.source.is_symlink() and not _differs_by_case(move):
        try:
            os.link(move.source, move.target)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EEXIST, errno.EXDEV}:
                raise
        else:
            move.source.unlink()
            return
    if os.path.lexists(move.target) and not _differs_by_case(move):
        raise FileExistsError(errno.EEXIST, "exists", str(move.target))
    move.source.rename(move.target)


def _is_same(move: Move) -> bool:
    """Whether both names are there and are hard links of one file: not one name in two spellings of case."""
    try:
        if not os.path.samestat(move.source.lstat(), move.target.lstat()):
            return False
        return move.source.parent != move.target.parent or {move.source.name, move.target.name} <= _names(move)
    except OSError:
        return False


def _differs_by_case(move: Move) -> bool:
    """The same name to a disk that does not tell case: a plain rename changes its spelling."""
    return (
        move.source.parent == move.target.parent
        and move.source.name.casefold() == move.target.name.casefold()
        and os.path.lexists(move.target)
        and move.target.name not in _names(move)
    )


def _names(move: Move) -> set[str]:
    return {entry.name for entry in move.source.parent.iterdir()}
