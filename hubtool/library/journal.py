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
from hubtool.library.companions import say_new_place
from hubtool.library.links import Relink
from hubtool.library.litter import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hubtool.library.index import Index

UNDO = "last-moves.json"
TRASH = ".hubtool-trash"  # inside the LoRA folder: the same disk, and hidden from every UI


@dataclass(frozen=True, slots=True)
class Move:
    """One file's way."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Moves that are one whole, and what is to be done after them."""

    moves: tuple[Move, ...]
    models: tuple[Path, ...] = ()  # where models will be, whose sidecars say so
    keep: tuple[Path, ...] = ()  # LoRA folders: these stay when they become empty, subfolders do not
    links: tuple[Relink, ...] = ()  # what symbolic links have to say when everything has moved

    def text(self) -> str:
        """As it is written down."""
        links = [[str(link.path), link.before, link.after] for link in self.links]
        return json.dumps(
            {"moves": _pairs(self.moves), "models": _texts(self.models), "keep": _texts(self.keep), "links": links}
        )


def carry_out(folder: Path, plan: Plan) -> None:
    """Rename every file; `folder` is where the note of it lies meanwhile, and the list for undoing it afterwards.

    Raises:
        OutputExists: a target is there already, or two files would get one name; nothing was moved then.
        StorageProblem: the disk refuses; what was moved is moved back.
    """
    moves, targets = plan.moves, set[Path]()
    for move in moves:
        if move.target in targets or (os.path.lexists(move.target) and not _differs_by_case(move)):
            raise OutputExists(move.target, hint="Move it away, or give it another name.")
        targets.add(move.target)
    note = folder / f"moves-{secrets.token_hex(6)}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, plan.text(), force=True)
    done: list[Move] = []
    try:
        for move in moves:
            _move(move)
            done.append(move)
        for link in plan.links:
            _say(link.path, link.after)
    except OSError as error:
        _take_back(plan, done)
        note.unlink()
        reraise(error, Path(str(error.filename or folder)))
    _conclude(folder, note, plan)


def _take_back(plan: Plan, done: Sequence[Move]) -> None:
    """Everything where it was, and no folder left that was only made for it."""
    if len(done) == len(plan.moves):  # otherwise no link was touched
        for link in plan.links:
            _say(link.path, link.before)
    for move in reversed(done):
        _move(Move(move.target, move.source))
    for parent in {move.target.parent for move in plan.moves}:
        _remove_empty(parent, plan.keep)


def note_places(index: Index, plan: Plan) -> None:
    """Tell the index where models are that have moved; the lock must be held."""
    models = set(plan.models)
    for move in plan.moves:
        if move.target not in models or not os.path.lexists(move.target):
            continue
        if TRASH in move.target.parts:
            index.mark_missing([str(move.source)])
            continue
        is_back = TRASH in move.source.parts  # its row is where it was
        index.found_at(str(move.target if is_back else move.source), str(move.target))
        around = [root for root in plan.keep if root in move.target.parents]
        if around:
            index.look_into(max(around, key=lambda root: len(root.parts)), move.target.parent)


def _conclude(folder: Path, note: Path, plan: Plan) -> None:
    """What is left to do when every file is in its place; can be repeated."""
    touched = {place for move in plan.moves for place in (move.source.parent, move.target.parent)}
    for parent in touched | {link.path.parent for link in plan.links}:
        with contextlib.suppress(FileNotFoundError):  # emptied and removed before
            sync_folder(parent)
    try:
        for model in plan.models:
            say_new_place(model)
    finally:
        write_text(folder / UNDO, json.dumps(_pairs(plan.moves)), force=True)
        for parent in {move.source.parent for move in plan.moves}:
            _remove_empty(parent, plan.keep)
        note.unlink()


def _remove_empty(folder: Path, keep: Collection[Path]) -> None:
    """The folder and those above it, as far as they are empty and lie in a LoRA folder."""
    while folder not in keep and any(root in folder.parents for root in keep):
        try:
            folder.rmdir()
        except OSError:  # not empty
            return
        folder = folder.parent


def _pairs(moves: Iterable[Move]) -> list[list[str]]:
    return [_texts((move.source, move.target)) for move in moves]


def _texts(paths: Iterable[Path]) -> list[str]:
    return [str(path) for path in paths]


def pending(folder: Path) -> list[Path]:
    """The notes of moves that were begun and not finished."""
    return sorted(folder.glob("moves-*.json"))


def complete(folder: Path) -> list[Plan]:
    """Finish what killed processes began; what that was.

    Raises:
        StorageProblem: the disk refuses.
    """
    notes = pending(folder)
    plans = [_read(note) for note in notes]
    for note, plan in zip(notes, plans, strict=True):
        for move in plan.moves:
            with contextlib.suppress(FileNotFoundError, FileExistsError):  # done before, or undone by the user since
                try:
                    _move(move)
                except OSError as error:
                    if error.errno not in {errno.ENOENT, errno.EEXIST}:
                        reraise(error, move.source)
                    raise
        for link in plan.links:
            try:
                if (
                    link.path.is_symlink() and str(link.path.readlink()) == link.before
                ):  # else done, or another one since
                    _say(link.path, link.after)
            except OSError as error:
                reraise(error, link.path)
        _conclude(folder, note, plan)
    return plans


def last_moves(folder: Path) -> list[Move]:
    """What was carried out last; empty if nothing was.

    Raises:
        StorageProblem: nobody can tell.
    """
    try:
        return [Move(Path(source), Path(target)) for source, target in json.loads((folder / UNDO).read_text("utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise StorageProblem(folder / UNDO, "cannot be read") from error


def _read(note: Path) -> Plan:
    try:
        table = json.loads(note.read_text("utf-8"))
        moves = tuple(Move(Path(source), Path(target)) for source, target in table["moves"])
        links = tuple(Relink(Path(path), str(before), str(after)) for path, before, after in table.get("links", []))
        return Plan(moves, tuple(map(Path, table["models"])), tuple(map(Path, table["keep"])), links)
    except (OSError, ValueError, TypeError, KeyError) as error:  # written whole or not at all: somebody else changed it
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


def _say(link: Path, text: str) -> None:
    """Make a symbolic link lead elsewhere, in one step that can be repeated."""
    if str(link.readlink()) != text:
        temporary = link.with_name(f"{HIDDEN}{secrets.token_hex(6)}.tmp")
        temporary.symlink_to(text)
        temporary.replace(link)


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
