"""A project's LoRAs: `loras.toml` says what is wanted, `loras.lock` what exactly that is, and a LoRA folder has it.

A locked file is looked for in this order: at its place; anywhere in the library, by hash; on the hubs by hash (so that a version
that was deleted is found on a mirror); on its own hub by id. Whatever comes from there must have the locked hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hubtool.errors import (
    ContentChanged,
    FileProblem,
    HubtoolError,
    LibraryProblem,
    LockProblem,
    NameTaken,
    StorageProblem,
)
from hubtool.formats.atomic import reraise
from hubtool.hubs.addresses import shareable
from hubtool.hubs.spec import ByPath, parse
from hubtool.library import lockfile, manifest
from hubtool.library.acquire import Order, acquire
from hubtool.library.companions import companions, say_new_place
from hubtool.library.digest import hashed
from hubtool.library.install import Arrival, Installer, Wish
from hubtool.library.licenses import license_in
from hubtool.library.lockfile import Locked, read_lock, write_lock
from hubtool.library.manifest import Wanted, add_wanted, read_manifest, remove_wanted
from hubtool.library.naming import file_name, is_inside
from hubtool.library.origins import origin_of
from hubtool.library.scan import scan_place
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.uninstalling import uninstall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hubtool.library.index import Index
    from hubtool.library.install import Installation
    from hubtool.library.record import Installed
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
class Project:
    """The manifest and lock of one folder, and the LoRA folder that they describe."""

    root: Path
    settings: Settings
    place: Place
    index: Index
    say: Callable[[str], None]

    @property
    def manifest_path(self) -> Path:
        """Where `loras.toml` is."""
        return self.root / manifest.NAME

    @property
    def lock_path(self) -> Path:
        """Where `loras.lock` is."""
        return self.root / lockfile.NAME

    # ------------------------------------------------------------ changing what is wanted

    def add(self, spec: str, wanted: Wanted) -> Locked:
        """Install a SPEC, and write it into manifest and lock. `wanted.name` may be empty: the file's own.

        Raises:
            HubtoolError: it cannot be installed, or the manifest has the name for something else; neither file changes then.
        """
        known = read_manifest(self.manifest_path).wanted.get(wanted.name)
        if known and known.spec != shareable(spec):
            message = f"{manifest.NAME} has {wanted.name} for {known.spec} already."
            raise LibraryProblem(wanted.name, message, hint="Choose another name with `--name`.")
        done = self._acquired(spec, replace(wanted, spec=spec))
        # a path means nothing elsewhere
        lasting = f"sha256:{done.sha256}" if isinstance(parse(spec), ByPath) else shareable(spec)
        if "://" in spec and lasting != spec:
            self.say(f"What is secret in the address was not written down: {lasting}")
        entry = replace(wanted, name=wanted.name or done.name, spec=lasting)
        locked = self._from_installation(entry, done)
        add_wanted(self.manifest_path, entry)
        write_lock(self.lock_path, [*(read_lock(self.lock_path) | {entry.name: locked}).values()])
        return locked

    def remove(self, name: str) -> None:
        """Take a LoRA out of manifest and lock; the file stays until `sync --prune`.

        Raises:
            LibraryProblem: the manifest does not have it.
        """
        remove_wanted(self.manifest_path, name)
        write_lock(self.lock_path, [one for one in read_lock(self.lock_path).values() if one.name != name])

    def lock(self, *, upgrade: bool = False) -> list[Locked]:
        """Bring the lock up to the manifest; with `upgrade`, look for newer versions of everything.

        What a hub publishes with its hash is not downloaded for this.

        Raises:
            HubtoolError: something cannot be found; the lock stays as it was.
        """
        wanted = read_manifest(self.manifest_path).wanted
        before = {} if upgrade else read_lock(self.lock_path)
        locked = []
        for entry in wanted.values():
            old = before.get(entry.name)
            locked.append(old if old and old.wish == wish_of(entry) else self._locked(entry))
        write_lock(self.lock_path, locked)
        return locked

    # ------------------------------------------------------------ making it so

    def sync(self, *, frozen: bool = False, prune: bool = False, dry_run: bool = False) -> list[Synced]:
        """Make the LoRA folder have what the lock says; each file's failure is in its row.

        Raises:
            LockProblem: the lock is not what the manifest asks for, and `frozen` forbids to change that.
            HubtoolError: the lock had to be brought up to date and could not.
        """
        locked = read_lock(self.lock_path)
        wanted = read_manifest(self.manifest_path).wanted
        stale = {name for name, entry in wanted.items() if name not in locked or locked[name].wish != wish_of(entry)}
        stale |= locked.keys() - wanted.keys()
        if stale and frozen:
            raise LockProblem(
                self.lock_path, f"{lockfile.NAME} is not what {manifest.NAME} asks for: {', '.join(sorted(stale))}."
            )
        if stale:
            locked = {one.name: one for one in self.lock()}
        rows = [self._synced(one, dry_run=dry_run) for one in locked.values()]
        return rows + (self._pruned(locked.values(), dry_run=dry_run) if prune else [])

    def adopt(self) -> list[Locked]:
        """Write manifest and lock for everything in the LoRA folder; what the manifest has already stays.

        Every file is hashed. A file whose hub is known is locked to its version, another to its hash.

        Raises:
            HubtoolError: a file cannot be read, or the manifest cannot be written.
        """
        if not self.place.folder.is_dir():
            raise StorageProblem(self.place.folder, "is no folder")
        known = read_lock(self.lock_path)
        paths = {one.path for one in known.values()}
        for model in self.index.adapters(self.place.folder):
            inside = model.path.relative_to(self.place.folder).as_posix()
            if inside in paths:
                continue
            if not is_inside(inside):
                self.say(f"Left out: {inside} can be no path on other systems; `hubtool rename` gives it another name.")
                continue
            try:
                complete = self.index.with_snapshot(hashed(self.index, model))
            except FileProblem as error:
                self.say(f"Left out: {error}")
                continue
            entry = self._adopted(complete, known)
            known[entry.name] = _from_file(entry, complete, inside)
            add_wanted(self.manifest_path, entry)
        write_lock(self.lock_path, list(known.values()))
        return list(known.values())

    # ------------------------------------------------------------ steps

    def _acquired(self, spec: str, wanted: Wanted, *, force: bool = False) -> Installation:
        wish = Wish(
            name=wanted.name,
            subdir=wanted.subdir,
            dialect=wanted.convert,
            sidecars=choose_sidecars(None, self.place.target.sidecars),
            force=force,
        )
        (outcome,) = acquire(self.settings, [spec], Order(self.place, wish, wanted.file), self.say)
        if outcome.error or outcome.installation is None:
            raise outcome.error or LibraryProblem(spec, f"{spec} could not be installed.")
        return outcome.installation

    def _locked(self, entry: Wanted) -> Locked:
        from hubtool.hubs.opening import open_hub  # noqa: PLC0415  # 0.2 s of HTTP

        path = _path_of(entry)
        is_plain = not entry.convert and "{" not in entry.subdir  # what a template means is known when the file is here
        if is_plain and not isinstance(parse(entry.spec), ByPath):
            resolved = open_hub(self.settings).resolve(entry.spec, entry.file)
            if resolved.file.sha256:
                page = f"{resolved.model.url}?modelVersionId={resolved.version.id}" if resolved.model.url else ""
                return Locked(
                    name=entry.name,
                    wish=wish_of(entry),
                    path=path,
                    sha256=resolved.file.sha256,
                    size_bytes=resolved.file.size_bytes or 0,
                    spec=_exact(entry.spec, resolved.hub, str(resolved.version.id)),
                    hub=resolved.hub,
                    file_id=str(resolved.file.id),
                    url=page,
                    base_model=resolved.version.base_model,
                    model=resolved.model.name,
                    creator=resolved.model.creator,
                    license=license_in(origin_of(resolved).snapshot),
                )
        return self._from_installation(entry, self._acquired(entry.spec, entry))

    def _from_installation(self, entry: Wanted, done: Installation) -> Locked:
        found = self.index.at(done.path)
        installed = self.index.with_snapshot(found) if found else None
        if installed is None or not done.sha256:
            raise LibraryProblem(entry.name, f"{done.path} vanished while it was installed.")
        return _from_file(entry, installed, done.path.relative_to(self.place.folder).as_posix())

    def _synced(self, one: Locked, *, dry_run: bool) -> Synced:
        target = self.place.folder.joinpath(*PurePosixPath(one.path).parts)
        try:
            return Synced(one.name, self._made(one, target, dry_run=dry_run), target, one.sha256)
        except HubtoolError as error:
            return Synced(one.name, "failed", target, one.sha256, error)

    def _made(self, one: Locked, target: Path, *, dry_run: bool) -> str:
        """Put the locked file at its place; how that was done.

        Raises:
            ContentChanged: another file is there, or the source has other bytes now. HubtoolError: no source has it.
        """
        here = self.index.at(target)
        if here and here.is_there():
            if hashed(self.index, here).digests.sha256 == one.sha256:
                return "present"
            found = hashed(self.index, here).digests.sha256
            hint = "Move the file away and run `hubtool sync` again, or remove its entry from the lock."
            raise ContentChanged(target, one.sha256, found, hint=hint)
        if dry_run:
            return "planned"
        twin = next(
            (
                twin
                for twin in self.index.with_content(one.sha256)
                if twin.digests.sha256 == one.sha256 and twin.is_there()
            ),
            None,
        )
        if twin is not None:
            wish = Wish(
                name=_name_for(one, target), sidecars=choose_sidecars(None, self.place.target.sidecars), force=True
            )
            place = replace(self.place, folder=target.parent)
            done = Installer.at(self.index, place, wish).install(Arrival(twin.path, twin.path.name, origin=twin.origin))
            self._call_it(done.path, target)
            return "copied"
        self._fetched(one, target)
        return "installed"

    def _fetched(self, one: Locked, target: Path) -> None:
        """From the hubs by hash, else by id; what has another hash is removed again.

        Raises:
            ContentChanged: the source has other bytes now. HubtoolError: no source has it.
        """
        subdir = PurePosixPath(one.path).parent.as_posix()
        entry = Wanted(
            _name_for(one, target), one.spec, one.file_id, convert=one.converted, subdir="" if subdir == "." else subdir
        )
        sources = list(dict.fromkeys(filter(None, (f"sha256:{one.source_sha256 or one.sha256}", one.spec))))
        for place, spec in enumerate(sources):
            by_hash = spec.startswith("sha256:")
            try:
                done = self._acquired(spec, replace(entry, file="") if by_hash else entry, force=True)
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
        """Give an installed file the very name that is locked, which an installation would not choose (`a=b`, blanks).

        Raises:
            NameTaken: another file has it. StorageProblem: the disk refuses, or has no such names.
        """
        if path == target or path.parent != target.parent:
            return
        for old in [*companions(path), path]:
            new = target.with_name(target.stem + old.name[len(path.stem) :])
            if os.path.lexists(new):
                raise NameTaken(target.stem, f"Another file is called {new.name} already: {new}")
            try:
                old.rename(new)
            except OSError as error:
                reraise(error, new)
        say_new_place(target)
        scan_place(self.index, self.place)

    def _pruned(self, locked: Iterable[Locked], *, dry_run: bool) -> list[Synced]:
        """Put into the trash what the LoRA folder has and the lock has not."""
        from hubtool.library.tidying import Tidier  # noqa: PLC0415  # only here

        keep = {self.place.folder.joinpath(*PurePosixPath(one.path).parts) for one in locked}
        extra = [
            model for model in self.index.adapters(self.place.folder) if model.path not in keep and model.is_there()
        ]
        Tidier(self.index, self.settings, dry_run).trash([str(model.path) for model in extra])
        return [Synced(model.name, "pruned", model.path, model.digests.sha256) for model in extra]

    def _adopted(self, model: Installed, known: Mapping[str, Locked]) -> Wanted:
        origin = model.origin
        is_known = origin and origin.hub and origin.version_id and not origin.source_sha256
        spec = (
            f"v:{origin.version_id}"
            if origin and is_known and origin.hub == "civitai"
            else f"sha256:{model.digests.sha256}"
        )
        subdir = model.path.parent.relative_to(self.place.folder).as_posix()
        name = model.name if model.name not in known else f"{model.name}-{model.digests.sha256[:8]}"
        return Wanted(name, spec, weight=model.own.preferred_weight, subdir="" if subdir == "." else subdir)


def _name_for(one: Locked, target: Path) -> str:
    """The name to install under: the locked one, or where an installation would change that, one that nobody else has."""
    return target.stem if file_name(target.stem) == target.name else f"locked-{one.sha256[:16]}"


def wish_of(entry: Wanted) -> str:
    """What the lock must answer: everything of an entry that decides which bytes lie where."""
    choices = {"file": entry.file, "convert": entry.convert, "subdir": entry.subdir}
    return " ".join([shareable(entry.spec), *(f"{key}={value}" for key, value in choices.items() if value)])


def _path_of(entry: Wanted) -> str:
    name = file_name(entry.name) or f"{entry.name}.safetensors"
    return (PurePosixPath(entry.subdir) / name).as_posix()


def _exact(spec: str, hub: str, version: str) -> str:
    """A SPEC that means this very version: what was typed, where ids are not numbers."""
    return f"v:{version}" if version.isdecimal() and hub else shareable(spec)


def _from_file(entry: Wanted, model: Installed, inside: str) -> Locked:
    origin, facts = model.origin, model.facts
    source = origin.source_sha256 if origin else ""
    version = origin.version_id if origin else ""
    return Locked(
        name=entry.name,
        wish=wish_of(entry),
        path=inside,
        sha256=model.digests.sha256,
        size_bytes=model.stamp.size_bytes,
        spec=_exact(entry.spec, origin.hub, version) if origin and version else "",
        hub=origin.hub if origin else "",
        file_id=origin.file_id if origin else "",
        url=origin.url if origin else "",
        converted=(entry.convert or facts.dialect or "") if source else "",
        source_sha256=source,
        architecture=facts.architecture or "",
        base_model=model.base_model,
        model=origin.model_name if origin else "",
        creator=origin.creator if origin else "",
        license=license_in(origin.snapshot) if origin else "",
    )
