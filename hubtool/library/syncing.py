"""A LoRA folder made to have what the lock says.

A locked file is looked for in this order: at its place; anywhere in the library, by hash; on the hubs by hash (so that a version
that was deleted is found on a mirror); on its own hub by id. Whatever comes from there must have the locked hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hubtool.errors import ContentChanged, HubtoolError, LibraryProblem, NameTaken
from hubtool.formats.atomic import reraise
from hubtool.library import manifest
from hubtool.library.acquire import Order, acquire
from hubtool.library.companions import companions, say_new_place
from hubtool.library.digest import digests_of, hashed
from hubtool.library.install import Arrival, Installer, Wish
from hubtool.library.manifest import Wanted
from hubtool.library.naming import file_name
from hubtool.library.scan import scan_place
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.uninstalling import uninstall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubtool.library.index import Index
    from hubtool.library.install import Installation
    from hubtool.library.lockfile import Locked
    from hubtool.library.target import Place
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one locked file."""

    name: str
    status: str  # present, copied, installed, planned, pruned
    path: Path
    sha256: str
    error: HubtoolError | None = None


@dataclass(frozen=True, slots=True)
class Syncer:
    """Fills one LoRA folder; with `dry_run`, only says how."""

    settings: Settings
    place: Place
    index: Index
    say: Callable[[str], None]
    dry_run: bool = False

    def acquired(self, spec: str, wanted: Wanted, *, force: bool = False) -> Installation:
        """Install what a SPEC names, as an entry of the manifest wants it.

        Raises:
            HubtoolError: it cannot be installed.
        """
        wish = Wish(
            name=wanted.name,
            subdir=wanted.subdir,
            dialect=wanted.convert,
            sidecars=choose_sidecars(None, self.place.target.sidecars),
            force=force,
            dry_run=self.dry_run,
        )
        (outcome,) = acquire(self.settings, [spec], Order(self.place, wish, wanted.file), self.say)
        if outcome.error or outcome.installation is None:
            raise outcome.error or LibraryProblem(spec, f"{spec} could not be installed.")
        return outcome.installation

    def synced(self, one: Locked) -> Synced:
        """Put a locked file at its place; a failure is in the row."""
        target = self._target(one)
        try:
            return Synced(one.name, self._made(one, target), target, one.sha256)
        except HubtoolError as error:
            return Synced(one.name, "failed", target, one.sha256, error)

    def pruned(self, locked: Sequence[Locked]) -> list[Synced]:
        """Put into the trash what the LoRA folder has and the lock has not; how many these are is said before."""
        from hubtool.library.tidying import Tidier  # noqa: PLC0415  # only here

        keep = {self._target(one) for one in locked}
        extra = [
            model for model in self.index.adapters(self.place.folder) if model.path not in keep and model.is_there()
        ]
        if extra and not locked:
            verb = "would go" if self.dry_run else "go"
            self.say(
                f"{manifest.NAME} wants no LoRA: all {len(extra)} of {self.place.folder} {verb} into its trash, "
                "from which `hubtool restore` brings them back."
            )
        Tidier(self.index, self.settings, self.dry_run).trash([str(model.path) for model in extra])
        return [Synced(model.name, "pruned", model.path, model.digests.sha256) for model in extra]

    # ------------------------------------------------------------ steps

    def _target(self, one: Locked) -> Path:
        return self.place.folder.joinpath(*PurePosixPath(one.path).parts)

    def _made(self, one: Locked, target: Path) -> str:
        """Put the locked file at its place; how that was done.

        Raises:
            ContentChanged: another file is there, or the source has other bytes now. HubtoolError: no source has it.
        """
        if found := self._content_at(target):
            if found == one.sha256:
                return "present"
            hint = "Move the file away and run `hubtool sync` again, or remove its entry from the lock."
            raise ContentChanged(target, one.sha256, found, hint=hint)
        if self.dry_run:
            return "planned"
        twins = self.index.with_content(one.sha256)
        twin = next((twin for twin in twins if twin.digests.sha256 == one.sha256 and twin.is_there()), None)
        if twin is None:
            self._fetched(one, target)
            return "installed"
        wish = Wish(name=_name_for(one, target), sidecars=choose_sidecars(None, self.place.target.sidecars), force=True)
        with self.index.writing():
            self.index.look_into(self.place.folder, target.parent)
        place = replace(self.place, folder=target.parent)
        done = Installer.at(self.index, place, wish).install(Arrival(twin.path, twin.path.name, origin=twin.origin))
        self._call_it(done.path, target)
        return "copied"

    def _content_at(self, target: Path) -> str:
        """SHA-256 of the file at a place, which the index need not know (it may look into no subfolders); empty if none is."""
        here = self.index.at(target)
        if here and here.is_there():
            return hashed(self.index, here).digests.sha256
        return digests_of(target).sha256 if os.path.lexists(target) else ""

    def _fetched(self, one: Locked, target: Path) -> None:
        """From the hubs by hash, else by id; what has another hash is removed again.

        Raises:
            ContentChanged: the source has other bytes now. HubtoolError: no source has it.
        """
        subdir = one.path.rpartition("/")[0]
        entry = Wanted(_name_for(one, target), one.spec, one.file_id, convert=one.converted, subdir=subdir)
        sources = list(dict.fromkeys(filter(None, (f"sha256:{one.source_sha256 or one.sha256}", one.spec))))
        for place, spec in enumerate(sources):
            by_hash = spec.startswith("sha256:")
            try:
                done = self.acquired(spec, replace(entry, file="") if by_hash else entry, force=True)
            except HubtoolError:
                if place == len(sources) - 1:
                    raise
                continue
            if done.sha256 == one.sha256:
                self._call_it(done.path, target)
                return
            if wrong := self.index.at(done.path):
                uninstall(self.index, wrong)
            hint = "The file at the source is another one now; `hubtool lock --upgrade` takes it."
            raise ContentChanged(spec, one.sha256, done.sha256 or "", hint=hint)

    def _call_it(self, path: Path, target: Path) -> None:
        """Give an installed file the very name that is locked, which an installation would not choose (`a=b`, `.sft`, blanks).

        Raises:
            NameTaken: another file has it. StorageProblem: the disk refuses, or has no such names.
        """
        if path == target or path.parent != target.parent:
            return
        for old in [*companions(path), path]:
            new = target if old == path else target.with_name(target.stem + old.name[len(path.stem) :])
            if os.path.lexists(new):
                raise NameTaken(target.stem, f"Another file is called {new.name} already: {new}")
            try:
                old.rename(new)
            except OSError as error:
                reraise(error, new)
        say_new_place(target)
        scan_place(self.index, self.place)


def _name_for(one: Locked, target: Path) -> str:
    """The name to install under: the locked one, or where an installation would change that, one that nobody else has."""
    return target.stem if file_name(target.stem) == target.name else f"locked-{one.sha256[:16]}"
