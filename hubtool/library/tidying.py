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

from hubtool.errors import HubtoolError, LibraryProblem, NameTaken, NotInstalled, UsageProblem
from hubtool.library.companions import MODELS, companions
from hubtool.library.finding import Finder
from hubtool.library.journal import TRASH, Move, Plan, carry_out, last_moves, note_places
from hubtool.library.links import known_links, left_dangling, relinks
from hubtool.library.naming import chosen_name, folded, subfolder
from hubtool.library.target import target_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one model."""

    name: str
    path: Path  # where it was
    target: Path  # where it is now, or would be
    files: tuple[Path, ...] = ()  # what went along
    status: str = "moved"  # or planned, unchanged, name taken, left, failed
    kept_by: str = ""  # of what is left: the UI whose database holds its path
    error: HubtoolError | None = None  # of what failed


@dataclass(frozen=True, slots=True)
class Tidier:
    """Moves models of one library."""

    index: Index
    settings: Settings
    dry_run: bool = False

    def find_all(self, names: Iterable[str]) -> list[Installed]:
        """The files of these names, each once.

        Raises:
            NotInstalled, AmbiguousName: for the first that is not there, or means several.
        """
        finder = Finder(self.index, self.settings)
        found = [finder.find(name) for name in names]
        return list({model.path: model for model in found}.values())

    def rename(self, name: str, new: str) -> Moved:
        """Give a model another name in its folder.

        Raises:
            NotInstalled: no such model. NameTaken: the new name belongs to another file of the library.
            UsageProblem: it cannot be a name. LibraryProblem: its UI would lose it. StorageProblem: the disk refuses.
        """
        (model,) = self.find_all([name])
        _refuse_kept([model])
        target = model.path.with_name(Path(chosen_name(new)).stem + model.path.suffix)
        rivals = [other for other in self.index.adapters(model.folder) if other.path != model.path]
        for rival in rivals:
            if folded(rival.path) == folded(target):
                message = f"Another file is called {rival.name} already: {rival.path}"
                raise NameTaken(new, message, hint="Choose another name.")
        return self._move([(model, target)])[0]

    def organize(self, template: str, names: Iterable[str] = (), below: Path | None = None) -> list[Moved]:
        """Sort models into subfolders of their LoRA folder by a template such as `{base_model}/{creator}`.

        Without names, everything, or everything below a folder. One whose name is taken there, or that of a file beside it, stays
        where it is, and its row says so: a new name would break prompts. So does one whose UI would lose it.

        Raises:
            NotInstalled, UsageProblem, StorageProblem: as for `rename`.
        """
        chosen = self.find_all(names) or self._all_below(below)
        pairs, clashes = [], []
        taken: set[Path] = set()
        for model in chosen:
            if not model.is_there():
                continue
            if target_named(model.target).keeps_paths:
                title = target_named(model.target).title
                clashes.append(Moved(model.name, model.path, model.path, status="left", kept_by=title))
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
            NotInstalled: no such model. LibraryProblem: a link to one would lead nowhere, or its UI would lose it. Nothing is
                moved then. StorageProblem: the disk refuses.
        """
        now = time.time_ns()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now // 10**9)) + f"-{now // 1000 % 10**6:06d}"
        models = self.find_all(names)
        _refuse_kept(models)
        self._refuse_dangling(models)
        pairs = [(one, one.folder / TRASH / stamp / one.path.relative_to(one.folder)) for one in models]
        return self._move(pairs)

    def restore(self, names: Sequence[str]) -> list[Moved]:
        """Bring models back from the trash; without names, those that were put there last.

        One whose place was taken meanwhile, or that of a file beside it, stays in the trash; its row has the error.

        Raises:
            NotInstalled: nothing of that name is in the trash. LibraryProblem: nothing at all is.
            StorageProblem: the disk refuses.
        """
        binned = self.in_trash()
        if not binned and not names:
            raise LibraryProblem("trash", "The trash is empty.")
        chosen = [_newest(binned, name) for name in names] or [one for one in binned if one.when == binned[-1].when]
        rows, moves = [], []
        for one in dict.fromkeys(chosen):
            back = [Move(file, one.folder / file.relative_to(one.bin)) for file in _with(one.path)]
            rival = next((move.target for move in back if os.path.lexists(move.target)), None)
            row = Moved(one.path.stem, one.path, back[0].target, status="planned" if self.dry_run else "moved")
            if rival:
                hint = "Move that file away, or give it another name, and run `hubtool restore` again."
                row = replace(
                    row, status="failed", error=NameTaken(row.name, f"Its place is taken: {rival}", hint=hint)
                )
            else:
                moves += back
            rows.append(row)
        if moves and not self.dry_run:
            self._carry_out(moves, [row.target for row in rows if not row.error], [one.path for one in binned])
        return rows

    def in_trash(self) -> list[Binned]:
        """Every model in the trash of every LoRA folder, the oldest first."""
        found = []
        for folder in self.index.folders():
            bins = sorted((folder.path / TRASH).glob("*")) if (folder.path / TRASH).is_dir() else []
            for bin in bins:
                files = sorted(path for path in bin.rglob("*") if path.is_file() or path.is_symlink())
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
        gone = [move.source for move in models if not os.path.lexists(move.source)]
        if gone:
            raise LibraryProblem("undo", f"{gone[0]} is not there any more.", hint="Move it back by hand.")
        # what lies beside a model now goes with it: more than then, if the user said something meanwhile
        back = [Move(file, _beside(file, one.source, one.target)) for one in models for file in _with(one.source)]
        done = [Moved(move.source.stem, move.source, move.target) for move in back]
        if self.dry_run:
            return [replace(one, status="planned") for one in done]
        self._carry_out(back, [move.target for move in models], [one.path for one in self.in_trash()])
        return done

    # ------------------------------------------------------------ steps

    def _all_below(self, below: Path | None) -> list[Installed]:
        """Everything, or what lies below a folder."""
        root = Path(os.path.realpath(below)) if below else None
        return [one for one in self.index.adapters() if root is None or root in one.path.parents]

    def _refuse_dangling(self, models: Sequence[Installed]) -> None:
        """Raise LibraryProblem where a link that stays would lead nowhere."""
        left = left_dangling(known_links(self.index), [model.path for model in models])
        if left:
            message = f"{left[0]} is a link to what would go, and would lead nowhere."
            raise LibraryProblem(left[0].stem, message, hint="Put that one into the trash, too, or first.")

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

    def _carry_out(self, moves: Sequence[Move], models: Sequence[Path], binned: Sequence[Path] = ()) -> None:
        """Under the library's lock, so that files and index change together for everybody else.

        Links that lead to what moves are corrected: those of the library, and those in the trash that are given.
        """
        keep = tuple(folder.path for folder in self.index.folders())
        with self.index.writing():
            links = [*known_links(self.index), *binned]
            changes = relinks({move.source: move.target for move in moves}, links)
            plan = Plan(tuple(moves), tuple(models), keep, tuple(changes))
            carry_out(self.index.notes, plan)
            note_places(self.index, plan)


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

    @property
    def places(self) -> tuple[Path, ...]:
        """Where it was: below the LoRA folder and whole, each without extension, too."""
        inside = self.path.relative_to(self.bin)
        return tuple(path for place in (inside, self.folder / inside) for path in (place, place.with_suffix("")))


def _refuse_kept(models: Iterable[Installed]) -> None:
    """Raise LibraryProblem for a model whose path is in its UI's database."""
    for model in models:
        target = target_named(model.target)
        if target.keeps_paths:
            message = (
                f"{target.title} keeps the paths of its models in a database, and would lose this one: {model.path}"
            )
            raise LibraryProblem(model.name, message, hint="Use its model manager.")


def _beside(file: Path, model: Path, target: Path) -> Path:
    return target.with_name(target.stem + file.name[len(model.stem) :])


def _with(model: Path) -> list[Path]:
    return [model, *companions(model)]


def _newest(binned: Sequence[Binned], name: str) -> Binned:
    """The one with this name or path that was put away last; of several put away together, the one with the path."""
    paths = {Path(name), Path(name).absolute()}
    found = [one for one in binned if name in {one.path.stem, one.path.name} or not paths.isdisjoint(one.places)]
    found.sort(key=lambda one: (one.when, not paths.isdisjoint(one.places)))
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
