"""Files of the library moved with everything that belongs to them: renamed, sorted into folders, put into the trash and back.

A model's sidecars and pictures go where it goes; sidecars that say where their model lies are corrected. Each command is one
list of moves, done whole (see `journal`), and the last one can be undone.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem, NameTaken, NotInstalled, UsageProblem
from hubtool.library.companions import MODELS, companions
from hubtool.library.finding import Finder
from hubtool.library.journal import Move, Plan, carry_out, last_moves
from hubtool.library.naming import chosen_name, folded, subfolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.settings import Settings

TRASH = ".hubtool-trash"  # inside the LoRA folder: the same disk, and hidden from every UI


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one model."""

    name: str
    path: Path  # where it was
    target: Path  # where it is now, or would be
    files: tuple[Path, ...] = ()  # what went along
    status: str = "moved"  # or planned, unchanged, name taken


@dataclass(frozen=True, slots=True)
class Tidier:
    """Moves models of one library."""

    index: Index
    settings: Settings
    dry_run: bool = False

    def find_all(self, names: Iterable[str]) -> list[Installed]:
        """The files of these names.

        Raises:
            NotInstalled, AmbiguousName: for the first that is not there, or means several.
        """
        finder = Finder(self.index, self.settings)
        return [finder.find(name) for name in names]

    def rename(self, name: str, new: str) -> Moved:
        """Give a model another name in its folder.

        Raises:
            NotInstalled: no such model. NameTaken: the new name belongs to another file of the library.
            UsageProblem: it cannot be a name. StorageProblem: the disk refuses.
        """
        (model,) = self.find_all([name])
        target = model.path.with_name(Path(chosen_name(new)).stem + model.path.suffix)
        rivals = [other for other in self.index.adapters(model.folder) if other.path != model.path]
        for rival in rivals:
            if folded(rival.path) == folded(target):
                raise NameTaken(new, f"Another file is called {rival.name} already: {rival.path}")
        return self._move([(model, target)])[0]

    def organize(self, template: str, names: Iterable[str] = ()) -> list[Moved]:
        """Sort models into subfolders of their LoRA folder by a template such as `{base_model}/{creator}`.

        One whose name is taken there, or that of a file beside it, stays where it is, and its row says so: a new name would
        break prompts.

        Raises:
            NotInstalled, UsageProblem, StorageProblem: as for `rename`.
        """
        chosen = self.find_all(names) or self.index.adapters()
        pairs, clashes = [], []
        taken: set[Path] = set()
        for model in chosen:
            if not model.is_there():
                continue
            complete = self.index.with_snapshot(model)
            target = model.folder / subfolder(template, complete.origin, model.facts) / model.path.name
            if target != model.path and (target in taken or self._has_rival(model, target)):
                clashes.append(Moved(model.name, model.path, target, status="name taken"))
            else:
                pairs.append((model, target))
                taken.add(target)
        return [*self._move(pairs), *clashes]

    def trash(self, names: Sequence[str]) -> list[Moved]:
        """Put models into the trash of their LoRA folder, from which `restore` brings them back.

        Raises:
            NotInstalled: no such model; nothing is moved then. StorageProblem: the disk refuses.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() % 1_000_000:06d}"
        models = self.find_all(names)
        pairs = [(one, one.folder / TRASH / stamp / one.path.relative_to(one.folder)) for one in models]
        return self._move(pairs)

    def restore(self, names: Sequence[str]) -> list[Moved]:
        """Bring models back from the trash; without names, those that were put there last.

        Raises:
            NotInstalled: nothing of that name is in the trash. OutputExists: its place was taken meanwhile.
            StorageProblem: the disk refuses.
        """
        binned = self.in_trash()
        chosen = [_newest(binned, name) for name in names] or [one for one in binned if one.when == binned[-1].when]
        if not chosen:
            raise LibraryProblem("trash", "The trash is empty.")
        moves = [Move(file, one.folder / file.relative_to(one.bin)) for one in chosen for file in _with(one.path)]
        done = [Moved(one.path.stem, one.path, one.folder / one.path.relative_to(one.bin)) for one in chosen]
        if self.dry_run:
            return [replace(one, status="planned") for one in done]
        self._carry_out(moves, [one.target for one in done])
        return done

    def in_trash(self) -> list[Binned]:
        """Every model in the trash of every LoRA folder, the oldest first."""
        found = []
        for folder in self.index.folders():
            bins = sorted((folder.path / TRASH).glob("*")) if (folder.path / TRASH).is_dir() else []
            for bin in bins:
                files = sorted(path for path in bin.rglob("*") if path.is_file())
                models = [path for path in files if path.suffix.lower() in MODELS]
                found += [Binned(folder.path, bin, path) for path in models]
        return sorted(found, key=lambda one: one.when)

    def undo(self) -> list[Moved]:
        """Take back the last list of moves.

        Raises:
            LibraryProblem: there is none. OutputExists: an old place was taken meanwhile. StorageProblem: the disk refuses.
        """
        moves = [Move(move.target, move.source) for move in reversed(last_moves(self.index.notes))]
        if not moves:
            raise LibraryProblem("undo", "There is nothing to undo.")
        models = [move for move in moves if move.source.suffix.lower() in MODELS]
        gone = [move.source for move in models if not move.source.exists()]
        if gone:
            raise LibraryProblem("undo", f"{gone[0]} is not there any more.", hint="Move it back by hand.")
        # what lies beside a model now goes with it: more than then, if the user said something meanwhile
        back = [Move(file, _beside(file, one.source, one.target)) for one in models for file in _with(one.source)]
        done = [Moved(move.source.stem, move.source, move.target) for move in back]
        if self.dry_run:
            return [replace(one, status="planned") for one in done]
        self._carry_out(back, [move.target for move in models])
        return done

    # ------------------------------------------------------------ steps

    def _has_rival(self, model: Installed, target: Path) -> bool:
        """Whether a file that belongs to something else is where the model or its companions would go."""
        files = [model.path, *companions(model.path)]
        return any(os.path.lexists(_beside(file, model.path, target)) for file in files)

    def _move(self, pairs: Sequence[tuple[Installed, Path]]) -> list[Moved]:
        """Move models with their companions, whole or not at all."""
        rows, moves = [], []
        for model, target in pairs:
            along = companions(model.path)
            stays = model.path == target
            rows.append(
                Moved(
                    model.name,
                    model.path,
                    target,
                    tuple(along),
                    "unchanged" if stays else "planned" if self.dry_run else "moved",
                )
            )
            if not stays:
                moves += [Move(model.path, target), *(Move(file, _beside(file, model.path, target)) for file in along)]
        if moves and not self.dry_run:
            self._carry_out(moves, [row.target for row in rows if row.status == "moved"])
        return rows

    def _carry_out(self, moves: Sequence[Move], models: Sequence[Path]) -> None:
        """Under the library's lock, so that files and index change together for everybody else."""
        keep = tuple(folder.path for folder in self.index.folders())
        with self.index.writing():
            carry_out(self.index.notes, Plan(tuple(moves), tuple(models), keep))
            for source, target in ((move.source, move.target) for move in moves if move.target in models):
                if TRASH in target.parts:
                    self.index.mark_missing([str(source)])
                else:
                    self.index.found_at(str(source), str(target))


@dataclass(frozen=True, slots=True)
class Binned:
    """A model in the trash."""

    folder: Path  # the LoRA folder
    bin: Path  # what was put away together
    path: Path

    @property
    def when(self) -> str:
        """The time it was put there, as the bin's name has it."""
        return self.bin.name


def _beside(file: Path, model: Path, target: Path) -> Path:
    return target.with_name(target.stem + file.name[len(model.stem) :])


def _with(model: Path) -> list[Path]:
    return [model, *companions(model)]


def _newest(binned: Sequence[Binned], name: str) -> Binned:
    found = [one for one in binned if name in {one.path.stem, one.path.name}]
    if not found:
        raise NotInstalled(name, sorted({one.path.stem for one in binned})[:3])
    return found[-1]


def check_template(template: str) -> None:
    """Refuse a template without a token: everything would go into one folder.

    Raises:
        UsageProblem: it has none.
    """
    if "{" not in template:
        raise UsageProblem(f"The template has no token: {template}", hint="For example {base_model}/{creator}.")
