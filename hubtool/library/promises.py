"""What an installation has promised: written down before its first step, and kept by whoever opens the library next.

A file, its sidecars and its row in the index come together or not at all, even if the process is killed between two of them. A
promise is made and kept under the library's lock, so one that is found there belongs to a process that died: if the file had got
its name, the rest is done; if not, nothing of it stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError, StorageProblem
from hubtool.formats.atomic import write_text
from hubtool.library.facts import read_facts
from hubtool.library.record import Digests, Installed, Origin, Stamp
from hubtool.library.sidecar import Filling, read_sidecars
from hubtool.library.walking import stamp_of

if TYPE_CHECKING:
    from hubtool.library.index import Index


@dataclass(frozen=True, slots=True)
class Promise:
    """One file that is about to get its name, and what comes with it."""

    temporary: Path  # the prepared file
    installed: Installed  # as it will be; its stamp is read again
    fillings: tuple[Filling, ...]  # sidecars

    def text(self) -> str:
        """As it is written down."""
        origin = self.installed.origin
        return json.dumps(
            {
                "temporary": str(self.temporary),
                "path": str(self.installed.path),
                "folder": str(self.installed.folder),
                "target": self.installed.target,
                "digests": asdict(self.installed.digests),
                "origin": asdict(origin) if origin else None,
                "sidecars": [{**asdict(one), "path": str(one.path)} for one in self.fillings],
            }
        )

    def keep(self, index: Index) -> Installed:
        """Write the sidecars and the row of a file that has its name now. The lock must be held; can be repeated.

        A sidecar that cannot be written is left out.
        """
        path = self.installed.path
        new = [one for one in self.fillings if not one.path.exists()]
        written = [one for one in self.fillings if _wrote(one)]
        placed = [path, *(one.path for one in new if one in written)]
        own, _ = read_sidecars(path)
        done = replace(self.installed, stamp=stamp_of(path.stat()), own=own)
        index.forget_origin(str(path))
        index.store(done)
        index.remember_placed(path, {one: stamp_of(one.stat()) for one in placed})
        return done


def promise(folder: Path, made: Promise) -> Path:
    """Write a promise down; the note is to be removed when it has been kept and the lock is free again.

    Raises:
        StorageProblem: it cannot be written.
    """
    note = folder / f"install-{secrets.token_hex(6)}.json"
    write_text(note, made.text(), force=True)
    return note


def promised(folder: Path) -> list[Path]:
    """The notes of installations that were begun and not finished."""
    return sorted(folder.glob("install-*.json"))


def keep_promises(index: Index, folder: Path) -> int:
    """Finish, or take back, what killed processes began; how many there were. The lock must be held.

    Raises:
        StorageProblem: the disk refuses, or a note is none of ours.
    """
    notes = promised(folder)
    for note in notes:
        made = _read(note)
        if made and _has_its_name(made):
            known = {one.path for one in index.folders()}
            if made.installed.folder in known:
                made = replace(made, installed=replace(made.installed, facts=read_facts(made.installed.path)))
                made.keep(index)
        if made:
            made.temporary.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
    return len(notes)


def _wrote(one: Filling) -> bool:
    with contextlib.suppress(HubtoolError):  # whoever installs tries again, and says what went wrong
        return one.write()
    return False


def _has_its_name(made: Promise) -> bool:
    """Whether the prepared file was named: it is there under both names, or the temporary one is gone."""
    path = made.installed.path
    if not path.exists():
        return False
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(made.temporary.stat(), path.stat())
    return True


def _read(note: Path) -> Promise | None:
    """The promise in a note; None where another process has just finished with it."""
    try:
        table = json.loads(note.read_text("utf-8"))
        origin = table["origin"]
        installed = Installed(
            Path(table["path"]),
            Path(table["folder"]),
            str(table["target"]),
            Stamp(0, 0, 0),
            digests=Digests(**table["digests"]),
            origin=Origin(**{**origin, "trigger_words": tuple(origin["trigger_words"])}) if origin else None,
        )
        fillings = [
            Filling(**{**row, "path": Path(row["path"]), "placed": tuple(row["placed"])}) for row in table["sidecars"]
        ]
        return Promise(Path(table["temporary"]), installed, tuple(fillings))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:  # written whole or not at all: somebody else changed it
        raise StorageProblem(note, "is no promise of an installation; look at it, then delete it") from error
