"""A project's LoRAs: `loras.toml` says what is wanted, `loras.lock` what exactly that is, and a LoRA folder has it.

Each needs the other: a lock whose manifest is gone is not touched, for it would be written anew with nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import FileMissing, FolderMissing, LibraryProblem, LockProblem
from hubtool.hubs.addresses import shareable
from hubtool.hubs.spec import ByPath, parse
from hubtool.library import lockfile, manifest
from hubtool.library.adopting import Adoption
from hubtool.library.exports import export
from hubtool.library.lock_entries import from_file, from_hub, from_plan, wish_of
from hubtool.library.lockfile import Locked, read_lock, refuse_faulty, write_lock
from hubtool.library.manifest import (
    Manifest,
    Wanted,
    add_wanted,
    read_manifest,
    refuse_other,
    refuse_unwanted,
    remove_wanted,
)
from hubtool.library.syncing import Synced, Syncer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubtool.library.adopting import Adopted
    from hubtool.library.index import Index
    from hubtool.library.install import Installation
    from hubtool.library.target import Place
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Project:
    """The manifest and lock of one folder, and the LoRA folder that they describe; with `dry_run`, nothing is written."""

    root: Path
    settings: Settings
    place: Place
    index: Index
    say: Callable[[str], None]
    dry_run: bool = False

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
            HubtoolError: it cannot be installed, or the manifest has the name for something else, or is gone; neither file
                changes then.
        """
        self._refuse_lone_lock()
        known = read_manifest(self.manifest_path).wanted.get(wanted.name)
        if known and known.spec != shareable(spec):
            message = f"{manifest.NAME} has {wanted.name} for {known.spec} already."
            raise LibraryProblem(wanted.name, message, hint="Choose another name with `--name`.")
        locked = read_lock(self.lock_path)
        done = self._syncer().acquired(spec, replace(wanted, spec=spec))
        # a path means nothing elsewhere
        lasting = shareable(spec)
        if isinstance(parse(spec), ByPath):
            lasting = f"sha256:{done.sha256}"
        if "://" in spec and lasting != spec:
            self.say(f"What is secret in the address was not written down: {lasting}")
        entry = replace(wanted, name=wanted.name or done.name, spec=lasting)
        one = self._from_installation(entry, done)
        refuse_other(self.manifest_path, entry)
        self._write([*(locked | {entry.name: one}).values()], [entry])
        return one

    def remove(self, name: str) -> None:
        """Take a LoRA out of manifest and lock; the file stays until `sync --prune`.

        Raises:
            NotWanted: the manifest does not have it. FileMissing: there is no manifest.
        """
        refuse_unwanted(self.manifest_path, self._manifest(), name)
        locked = read_lock(self.lock_path)
        if not self.dry_run:
            remove_wanted(self.manifest_path, name)
        if name in locked:
            self._write([one for one in locked.values() if one.name != name])

    def lock(self, *, upgrade: bool = False) -> list[Locked]:
        """Bring the lock up to the manifest; with `upgrade`, look for newer versions of everything.

        What a hub publishes with its hash is not downloaded for this.

        Raises:
            FileMissing: there is no manifest. HubtoolError: something cannot be found; the lock stays as it was.
        """
        wanted = self._manifest().wanted
        before = {} if upgrade else read_lock(self.lock_path)
        locked = []
        for entry in wanted.values():
            old = before.get(entry.name)
            locked.append(old if old and old.wish == wish_of(entry) else self._locked(entry))
        self._write(locked)
        return locked

    def adopt(self) -> Adopted:
        """Write manifest and lock for everything in the LoRA folder; what the manifest has already stays.

        Every file is read whole: hashed, and judged. One whose hub is known is locked to its version, another to its hash.

        Raises:
            FolderMissing: there is no such folder. LockProblem: there is a lock, and its manifest is gone.
        """
        if not self.place.folder.is_dir():
            raise FolderMissing(self.place.folder)
        self._refuse_lone_lock()
        known = read_lock(self.lock_path)
        names = {*known, *read_manifest(self.manifest_path).wanted}
        done = Adoption(self.index, self.place.folder, [*known.values()], names).run(self.say)
        if done.entries:
            self._write(done.locked, done.entries)
        return done

    # ------------------------------------------------------------ using it

    def sync(self, *, frozen: bool = False, prune: bool = False) -> list[Synced]:
        """Make the LoRA folder have what the lock says; each file's failure is in its row.

        Raises:
            FileMissing: there is neither manifest nor lock. LockProblem: the lock is not what the manifest asks for, and
                `frozen` forbids to change that, or its manifest is gone. HubtoolError: the lock could not be brought up to date.
        """
        locked = self._frozen() if frozen else self._up_to_date()
        rows = [self._syncer().synced(one) for one in locked]
        return rows + (self._syncer().pruned(locked) if prune else [])

    def exported(self, form: str) -> str:
        """The lock in the words of another program; for the form `prompts`, the manifest's sets.

        Raises:
            UsageProblem: no such form. FileMissing, LockProblem: what it is made of is not there.
        """
        if form == "prompts":
            return export(form, self._manifest(), [], self.place)
        return export(form, Manifest({}, {}), [*self._lock().values()], self.place)

    # ------------------------------------------------------------ what is there

    def _manifest(self) -> Manifest:
        """What the manifest says.

        Raises:
            FileMissing: there is none. LockProblem: only its lock is there. UsageProblem, StorageProblem: it cannot be read.
        """
        self._refuse_lone_lock()
        if not self.manifest_path.exists():
            raise _nothing_here(self.manifest_path)
        return read_manifest(self.manifest_path)

    def _lock(self) -> dict[str, Locked]:
        """What the lock says.

        Raises:
            LockProblem: the manifest has none yet, or it is broken. FileMissing: there is no manifest either.
        """
        if self.lock_path.exists():
            return read_lock(self.lock_path)
        self._manifest()
        raise LockProblem(self.lock_path, f"{manifest.NAME} has no {lockfile.NAME} yet.")

    def _refuse_lone_lock(self) -> None:
        if self.lock_path.exists() and not self.manifest_path.exists():
            message = f"{lockfile.NAME} is here, but {manifest.NAME}, which it was made from, is not."
            hint = f"Bring {manifest.NAME} back; `hubtool sync --frozen` does what the lock says without it."
            raise LockProblem(self.lock_path, message, hint=hint)

    def _frozen(self) -> list[Locked]:
        """The lock as it is; where the manifest is there, it must be what that asks for."""
        locked = self._lock()
        if self.manifest_path.exists() and (stale := self._stale(locked)):
            message = f"{lockfile.NAME} is not what {manifest.NAME} asks for: {', '.join(sorted(stale))}."
            raise LockProblem(self.lock_path, message)
        return [*locked.values()]

    def _up_to_date(self) -> list[Locked]:
        self._manifest()
        locked = read_lock(self.lock_path)
        return self.lock() if self._stale(locked) else [*locked.values()]

    def _stale(self, locked: dict[str, Locked]) -> set[str]:
        """The names that manifest and lock do not agree about."""
        wanted = self._manifest().wanted
        changed = {name for name in wanted.keys() & locked.keys() if locked[name].wish != wish_of(wanted[name])}
        return changed | (wanted.keys() ^ locked.keys())

    # ------------------------------------------------------------ steps

    def _write(self, locked: Sequence[Locked], new: Sequence[Wanted] = ()) -> None:
        """Write the lock, after what is new in the manifest; a trial says only what would be wrong with it.

        Raises:
            LockProblem: two files would have one path. StorageProblem: it cannot be written.
        """
        refuse_faulty(self.lock_path, locked)
        if self.dry_run:
            return
        if new:  # first: a manifest without its lock can be locked again, a lock without its manifest is refused
            add_wanted(self.manifest_path, new)
        write_lock(self.lock_path, locked)

    def _syncer(self) -> Syncer:
        return Syncer(self.settings, self.place, self.index, self.say, self.dry_run)

    def _locked(self, entry: Wanted) -> Locked:
        from hubtool.hubs.opening import open_hub  # noqa: PLC0415  # 0.2 s of HTTP

        is_plain = not entry.convert and "{" not in entry.subdir  # what a template means is known when the file is here
        if is_plain and not isinstance(parse(entry.spec), ByPath):
            resolved = open_hub(self.settings).resolve(entry.spec, entry.file)
            if resolved.file.sha256:
                return from_hub(entry, resolved, resolved.file.sha256)
        return self._from_installation(entry, self._syncer().acquired(entry.spec, entry))

    def _from_installation(self, entry: Wanted, done: Installation) -> Locked:
        inside = done.path.relative_to(self.place.folder).as_posix()
        if done.status == "planned":
            return from_plan(entry, done, inside)
        found = self.index.at(done.path)
        installed = self.index.with_snapshot(found) if found else None
        if installed is None or not done.sha256:
            raise LibraryProblem(entry.name, f"{done.path} vanished while it was installed.")
        return from_file(entry, installed, inside)


def _nothing_here(path: Path) -> FileMissing:
    hint = "`hubtool add SPEC` starts one, and `hubtool adopt DIR` writes one for the LoRAs of a folder."
    return FileMissing(path, f"There is no {path.name} in this folder.", hint=hint)
