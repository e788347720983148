"""A LoRA folder that is there, taken into manifest and lock: what another machine could have from them, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import FileProblem, HubtoolError, StorageProblem
from hubtool.library.digest import hashed
from hubtool.library.install import check
from hubtool.library.lock_entries import from_file
from hubtool.library.lockfile import Locked, fault_of, folded_path
from hubtool.library.manifest import Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed

_RENAME = "`hubtool rename` gives it another name."


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that no lock can hold."""

    path: Path
    error: HubtoolError


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a folder comes to."""

    entries: Sequence[Wanted]  # new in the manifest
    locked: Sequence[Locked]  # the whole lock, new and old
    left_out: Sequence[LeftOut]


@dataclass(slots=True)
class Adoption:
    """One folder's files on their way into a lock that has some entries already."""

    index: Index
    folder: Path
    locked: list[Locked]  # grows
    names: set[str]  # that are taken in manifest or lock; grows
    entries: list[Wanted] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def run(self, say: Callable[[str], None]) -> Adopted:
        """Look at every file below the folder; each that is left out is said."""
        places = {folded_path(one.path): one.path for one in self.locked}
        for model in self._below():
            inside = model.path.relative_to(self.folder).as_posix()
            if places.get(folded_path(inside)) == inside:
                continue
            try:
                complete = self._usable(model, inside, places.get(folded_path(inside), ""))
            except (FileProblem, StorageProblem) as error:
                subfolder = inside.rpartition("/")[0]
                say(f"Left out{f', in {subfolder}' if subfolder else ''}: {error}")
                self.left_out.append(LeftOut(model.path, error))
                continue
            places[folded_path(inside)] = inside
            self._take(complete, inside)
        return Adopted(self.entries, self.locked, self.left_out)

    def _below(self) -> Iterator[Installed]:
        """The files in the folder and its subfolders; the index may know them as part of a larger LoRA folder."""
        return (model for model in self.index.adapters() if self.folder in model.path.parents)

    def _usable(self, model: Installed, inside: str, rival: str) -> Installed:
        """The file with its hashes, judged as `sync` on another machine will judge it.

        Raises:
            FileProblem, StorageProblem: it cannot be had there: broken, a pickle, or no name for it.
        """
        if fault := fault_of(inside):
            raise FileProblem(model.path, f"{inside} {fault}.", hint=_RENAME)
        if rival:
            raise FileProblem(model.path, f"{inside} and {rival} are one path on other systems.", hint=_RENAME)
        check(model.path, force=True)
        return self.index.with_snapshot(hashed(self.index, model))

    def _take(self, model: Installed, inside: str) -> None:
        origin, sha256 = model.origin, model.digests.sha256
        is_known = origin and origin.version_id and not origin.source_sha256
        spec = f"v:{origin.version_id}" if origin and is_known and origin.hub == "civitai" else f"sha256:{sha256}"
        name = _free_name(model.name, sha256, self.names)
        entry = Wanted(name, spec, weight=model.own.preferred_weight, subdir=inside.rpartition("/")[0])
        self.names.add(name)
        self.entries.append(entry)
        self.locked.append(from_file(entry, model, inside))


def _free_name(name: str, sha256: str, taken: Collection[str]) -> str:
    """The name, or with digits of the hash behind it, and a number, what nothing else is called."""
    number = 1
    found = name
    while found in taken:
        found = f"{name}-{sha256[:8]}" if number == 1 else f"{name}-{sha256[:8]}-{number}"
        number += 1
    return found
