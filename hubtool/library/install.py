"""From a complete file on this disk to a LoRA that a UI lists, with its sidecars and its row in the index.

The order is made for power cuts: the file is checked and prepared under a hidden name; under the library's lock it is named in
one step, given its sidecars and indexed, which the next command finishes if it is cut off; then its picture is added.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hubtool.errors import BadHeader, FileProblem, NameTaken, NotAnAdapter, StorageProblem, UsageProblem
from hubtool.formats.safetensors import read_safetensors
from hubtool.library.beside import Beside, Pictures
from hubtool.library.companions import companions
from hubtool.library.digest import digests_of, hashed
from hubtool.library.facts import facts_of
from hubtool.library.litter import HIDDEN
from hubtool.library.naming import candidates, chosen_name, file_name, folded, subfolder
from hubtool.library.placing import prepared, publish
from hubtool.library.promises import Promise, promise
from hubtool.library.record import Digests, Facts, Folder, Installed, Origin, Stamp
from hubtool.library.scan import Report, scan_folder
from hubtool.library.sidecar import Card, read_sidecars
from hubtool.library.walking import stamp_of
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.inspect import inspect
from hubtool.operations.validate import validate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.placing import Way
    from hubtool.library.sidecar import Sidecar
    from hubtool.library.target import Place
    from hubtool.operations.rules.problem import Problem

Id = int | str  # Civitai counts, Hugging Face names


@dataclass(frozen=True, slots=True)
class Wish:
    """How to install; the defaults are what most people want."""

    name: str = ""  # instead of the file's own
    subdir: str = ""  # template of a folder below the LoRA folder
    dialect: str = ""  # convert to this one
    sidecars: tuple[Sidecar, ...] = ()
    preview: bool = True
    way: Way = "copy"  # how a local file comes into the folder
    force: bool = False  # replace a file of the same name, install content that is already there, or no LoRA
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """A complete file that wants to be installed."""

    path: Path
    name: str  # what its author called it
    is_ours: bool = False  # downloaded for this purpose: nobody else will change it
    origin: Origin | None = None
    description: str = ""
    pictures: Pictures = field(default_factory=Pictures)


@dataclass(frozen=True, slots=True)
class Installation:
    """What became of one file; the fields are the contract's."""

    status: str  # installed, present or planned
    path: Path
    sha256: str | None  # of what lies there; None where only a plan exists
    architecture: str | None
    dialect: str | None
    parametrizations: tuple[str, ...]
    sidecars: tuple[Path, ...]
    preview: Path | None
    trigger_words: tuple[str, ...]
    prompt: str
    name: str
    target: str
    hub: str | None
    model_id: Id | None
    version_id: Id | None
    file_id: Id | None
    notes: tuple[str, ...]  # for people: warnings, and what happened otherwise than expected


@dataclass(frozen=True, slots=True)
class _Form:
    """The file as it will lie in the folder: the arrival itself, or what it was converted to."""

    path: Path
    way: Way
    digests: Digests
    facts: Facts
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Installer:
    """Installs into one LoRA folder; made by `at`."""

    index: Index
    place: Place
    wish: Wish
    shelf: Path  # the folder under which the index keeps the place's files

    @classmethod
    def at(cls, index: Index, place: Place, wish: Wish) -> Installer:
        """An installer whose index knows the folder and what is in it now.

        Raises:
            LibraryProblem, StorageProblem: the index cannot be used.
        """
        folder = Folder(place.folder, place.target.id, place.deep)
        if not wish.dry_run or place.folder.is_dir():  # a trial leaves no trace of a folder that is not there
            with index.writing():
                folder = index.remember(folder)
            scan_folder(index, folder, Report())
        return cls(index, place, wish, folder.path)

    def install(self, arrival: Arrival) -> Installation:
        """Put a file into the folder, or complete what is missing beside the one that is there.

        Raises:
            FileProblem: it is missing, broken or no safetensors file. NotAnAdapter: it is no LoRA.
            NameTaken: the name asked for belongs to another file.
            NotRepresentable, UnknownDialect, AmbiguousArchitecture: it cannot be converted as asked.
            UsageProblem: contradicting wishes. StorageProblem: the disk refuses. LibraryProblem: the index does.
        """
        notes = check(arrival.path, force=self.wish.force)
        stamp = stamp_of(arrival.path.stat())
        digests = digests_of(arrival.path)
        present = self.present(digests.sha256, stamp.size_bytes)
        if present is not None:
            return self.complete(present, arrival, "present", notes)
        facts = facts_of(inspect(arrival.path))
        if self.wish.dry_run:
            return replace(self.plan(arrival, digests.sha256, facts), notes=notes)
        with self._final_form(arrival, digests, facts) as form:
            folder = self._folder(form)
            with prepared(form.path, folder, form.way) as temporary:
                if stamp_of(arrival.path.stat()) != stamp:
                    raise StorageProblem(arrival.path, "the file changed while it was being installed")
                installed, status = self._admit(form, temporary, folder, arrival)
        return self.complete(installed, arrival, status, notes)

    def present(self, sha256: str, size_bytes: int) -> Installed | None:
        """The file of the folder that has this content (or was converted from it as is wished now), whatever its name."""
        for twin in self.index.unhashed(self.shelf, size_bytes):
            with contextlib.suppress(FileProblem, StorageProblem):  # an unreadable file is nobody's twin
                hashed(self.index, twin)
        return self._known_twin(sha256)

    def from_origin(self, origin: Origin, size_bytes: int | None) -> Installed | None:
        """The file of the folder that came from there, for hubs that publish no hash."""
        if self.wish.force or self.wish.dialect or not origin.version_id:
            return None
        ids = {"version_id": origin.version_id, "file_id": origin.file_id}
        for found in self.index.from_hub(origin.hub, ids):
            if found.folder == self.shelf and size_bytes in {None, found.stamp.size_bytes} and found.is_there():
                return found
        return None

    def at_hand(self, hub: str, model_id: int | None, version_id: int | None) -> Installed | None:
        """A file of the folder that came from this model or version: all that can be known without asking the hub."""
        asked = {"model_id": model_id, "version_id": version_id}
        ids = {name: str(number) for name, number in asked.items() if number}
        return next((f for f in self.index.from_hub(hub, ids) if f.folder == self.shelf and f.is_there()), None)

    def plan(self, arrival: Arrival, sha256: str, facts: Facts) -> Installation:
        """What `install` would do, as far as can be known of a file that may not be here yet. Writes nothing.

        Raises:
            NameTaken, NotRepresentable, UsageProblem: it would refuse.
        """
        if self.wish.dialect and arrival.path.exists():
            # only whether it can be done: the name comes later
            convert(arrival.path, self.wish.dialect, self.place.folder, ConvertOptions(force=True, dry_run=True))
        facts = replace(facts, dialect=self.wish.dialect or facts.dialect)
        form = _Form(arrival.path, "own", Digests(sha256), facts, arrival.origin)
        path = self._free(self._folder(form), self._names(arrival, form))
        return _report(self._record(path, form, Stamp(0, 0, 0)), self.place, "planned", ())

    def complete(
        self, installed: Installed, arrival: Arrival, status: str, notes: tuple[str, ...] = ()
    ) -> Installation:
        """Add what is missing to an installed file: its origin in the index, and beside it sidecars and a picture."""
        if installed.origin is None and arrival.origin is not None:
            installed = replace(installed, origin=arrival.origin)
            with self.index.writing():
                self.index.store(installed)
        if self.wish.dry_run:
            return _report(installed, self.place, status, notes)
        before = set(companions(installed.path))
        beside = self._beside(arrival, installed.path)
        preview = beside.add_preview(arrival.pictures) if self.wish.preview else None
        sidecars = beside.write_sidecars(self.wish.sidecars, _card(installed, arrival, preview))
        self._remember_placed(installed.path, before, [*sidecars, *([preview] if preview else [])])
        report = _report(installed, self.place, status, (*notes, *beside.notes))
        return replace(report, sidecars=sidecars, preview=preview)

    # ------------------------------------------------------------ steps

    def _beside(self, arrival: Arrival, path: Path) -> Beside:
        source = None if arrival.is_ours or arrival.path == path else arrival.path
        return Beside(path, source, self.place.target.preview, self.place.target.pictures)

    def _remember_placed(self, model: Path, before: Collection[Path], beside: Iterable[Path]) -> None:
        """Note what was not there before, for `uninstall`."""
        new = {path: stamp_of(path.stat()) for path in beside if path not in before}
        if new:
            with self.index.writing():
                self.index.remember_placed(model, new)

    def _folder(self, form: _Form) -> Path:
        return self.place.folder / subfolder(self.wish.subdir, form.origin, form.facts)

    def _known_twin(self, sha256: str) -> Installed | None:
        if self.wish.force:
            return None
        dialect = self.wish.dialect
        for found in self.index.with_content(sha256):
            is_itself = found.digests.sha256 == sha256
            as_wished = found.facts.dialect == dialect if dialect else is_itself
            if found.folder == self.shelf and as_wished and found.is_there():
                return found
        return None

    @contextlib.contextmanager
    def _final_form(self, arrival: Arrival, digests: Digests, facts: Facts) -> Iterator[_Form]:
        """The arrival, converted if that is wished and needed; a converted copy lives as long as the context."""
        wish = self.wish
        if not wish.dialect or wish.dialect == facts.dialect:
            yield _Form(arrival.path, "own" if arrival.is_ours else wish.way, digests, facts, arrival.origin)
            return
        if wish.way in {"hard", "sym"} and not arrival.is_ours:
            raise UsageProblem(
                "A file that is converted is a new one and cannot be linked.", hint="Leave out `--link`."
            )
        path = self.place.folder / f"{HIDDEN}{secrets.token_hex(6)}.tmp"
        try:
            convert(arrival.path, wish.dialect, path)
            origin = replace(arrival.origin or Origin(hub=""), source_sha256=digests.sha256)
            yield _Form(path, "own", digests_of(path), facts_of(inspect(path)), origin)
        finally:
            path.unlink(missing_ok=True)

    def _names(self, arrival: Arrival, form: _Form) -> list[str]:
        """The names to try in turn; a single one if the user chose it."""
        if self.wish.name:
            return [chosen_name(self.wish.name)]
        version = form.origin.version_id if form.origin else ""
        name = file_name(arrival.name) or f"{version or form.digests.sha256[:12] or 'lora'}.safetensors"
        return list(candidates(name, form.origin, form.digests.sha256))

    def _free(self, folder: Path, names: Iterable[str]) -> Path:
        """The first of the names that no other file of the library has.

        Raises:
            NameTaken: all of them are taken.
        """
        taken = self._taken(folder)
        path = folder
        for name in names:
            path = folder / name
            if self.wish.force or (folded(path) not in taken and not os.path.lexists(path)):
                return path
        raise NameTaken(path.stem, f"Another file is called {path.stem} already: {taken.get(folded(path), path)}")

    def _taken(self, folder: Path) -> dict[str, Path]:
        """The names that a new file in `folder` must not have, for the UI could not tell the two apart."""
        flat = self.place.target.flat_names
        others = (found.path for found in self.index.adapters(self.shelf))
        return {folded(path): path for path in others if flat or path.parent == folder}

    def _admit(self, form: _Form, temporary: Path, folder: Path, arrival: Arrival) -> tuple[Installed, str]:
        """Under the library's lock: name, sidecars and row for the prepared file, all or nothing (see `promises`).

        Nothing is done if another process was quicker.
        """
        with self.index.writing():
            twin = self._known_twin((form.origin.source_sha256 if form.origin else "") or form.digests.sha256)
            if twin is not None:
                return twin, "present"
            path = self._free(folder, self._names(arrival, form))
            awaited = self._record(path, form, stamp_of(temporary.stat()))
            fillings = self._beside(arrival, path).fillings(self.wish.sidecars, _card(awaited, arrival, None))
            made = Promise(temporary, awaited, fillings)
            note = promise(self.index.notes, made)
            try:
                publish(temporary, path, replace=self.wish.force)
            except BaseException:
                note.unlink()
                raise
            installed = made.keep(self.index)
        note.unlink(missing_ok=True)
        return installed, "installed"

    def _record(self, path: Path, form: _Form, stamp: Stamp) -> Installed:
        own, _ = read_sidecars(path)
        bare = Installed(path, self.shelf, self.place.target.id, stamp)
        return replace(bare, digests=form.digests, facts=form.facts, origin=form.origin, own=own)


def _card(installed: Installed, arrival: Arrival, preview: Path | None) -> Card:
    """Everything that sidecars may want to say."""
    origin = arrival.origin or installed.origin
    return Card(
        architecture=installed.facts.architecture,
        trigger_words=origin.trigger_words if origin else installed.facts.trigger_words,
        description=arrival.description,
        origin=origin,
        own=installed.own,
        model=installed.path,
        picture=preview,
        sha256=installed.digests.sha256,
        size_bytes=installed.stamp.size_bytes,
    )


def check(path: Path, *, force: bool = False) -> tuple[str, ...]:
    """What is odd about a file that may be installed, as sentences.

    Raises:
        FileProblem: it is missing, broken or no safetensors file. NotAnAdapter: it is no LoRA, and `force` is not given.
    """
    read_safetensors(path)  # says more precisely what the file is than a verdict can
    found = validate(path, check_all_values=True)
    grave = [problem for problem in found.problems if problem.severity in {"error", "refused"}]
    for problem in grave:
        if not problem.code.startswith("E_NOT_A_LORA"):
            raise BadHeader(path, problem.message, rule=problem.code, key=problem.key)
        if not force:
            raise NotAnAdapter("", problem.message, hint="Put it into the folder for its kind, or use `--force`.")
    return tuple(_warnings(found.problems))


def _warnings(problems: Iterable[Problem]) -> Iterator[str]:
    """One sentence a kind of warning; a file has hundreds of modules."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.severity == "warning":
            kinds.setdefault(problem.code, []).append(problem)
    for first, *others in kinds.values():
        yield f"{first.message} ({len(others)} more alike)" if others else first.message


def _report(installed: Installed, place: Place, status: str, notes: tuple[str, ...]) -> Installation:
    facts, origin = installed.facts, installed.origin
    return Installation(
        status=status,
        path=installed.path,
        sha256=installed.digests.sha256 or None,
        architecture=facts.architecture,
        dialect=facts.dialect,
        parametrizations=facts.parametrizations,
        sidecars=(),
        preview=None,
        trigger_words=installed.trigger_words,
        prompt=place.target.prompt(installed.name),
        name=installed.name,
        target=place.target.id,
        hub=(origin.hub if origin else "") or None,
        model_id=_id(origin.model_id) if origin else None,
        version_id=_id(origin.version_id) if origin else None,
        file_id=_id(origin.file_id) if origin else None,
        notes=notes,
    )


def _id(text: str) -> Id | None:
    return int(text) if text.isascii() and text.isdigit() else text or None
