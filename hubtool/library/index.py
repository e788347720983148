"""The library's index: one SQLite file that remembers what lies in the LoRA folders, so that nothing is read twice.

The folders are the truth. The index can be deleted at any time and is rebuilt by the next scan; a damaged one is moved
aside. Writers take SQLite's own lock (`writing`), which is the library's lock between processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hubtool.library.database import explain, open_database
from hubtool.library.facts import Shape, reader
from hubtool.library.folders import note, noted
from hubtool.library.record import Folder, Installed, Label, Stamp
from hubtool.library.rows import SELECT, columns_of, installed_of, lines, storable
from hubtool.library.shelving import absorb, take_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: Every column that holds a hash, by table; each has an index.
HASHES: Mapping[str, Sequence[str]] = {
    "file": ("sha256", "autov1", "crc32", "blake3", "tensors_sha256"),  # autov2 and autov3 begin others
    "fact": ("embedded_hash",),
    "origin": ("source_sha256",),
}


@dataclass(frozen=True, slots=True)
class Known:
    """What the index remembers of a file, to tell whether it changed."""

    stamp: Stamp
    sidecars: str  # the stamps of its sidecars, as `scan` spells them
    missing: bool
    outdated: bool = False  # its header said nothing to the hubtool that read it, and this one may know more


class StoredSketch(NamedTuple):
    """A file's sketch: names of modules, a line each, and their numbers."""

    modules: str
    numbers: bytes


class Index:
    """An open index; use it as a context manager. Paths are absolute. Every method may raise `explain`'s errors."""

    def __init__(self, path: Path) -> None:
        """Open it, making or replacing the file if need be (see `open_database` for the errors)."""
        self.path = path
        self.note = ""  # for the user: why it was rebuilt
        opened = open_database(path)
        self._connection = opened.connection
        if opened.aside:
            self.note = f"The library's index was damaged; it is rebuilt, and the old one kept as {opened.aside}."
        if opened.is_new and (folders := [*(Folder(Path(p), t, bool(d)) for p, t, d in opened.folders), *noted(path)]):
            with self.writing():
                for folder in folders:
                    self.remember(folder)

    @property
    def notes(self) -> Path:
        """Where work on several files is noted until it is done, and the last moves for undoing them."""
        return self.path.parent / "moves"

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the library's lock; what is written inside becomes visible whole, or not at all on an error."""
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # ------------------------------------------------------------ what is there

    def remember(self, folder: Folder) -> Folder:
        """Add a LoRA folder, or change which UI reads it; the one that is kept up with, which may enclose it."""
        for known in self.folders():
            is_same = known.path == folder.path and not folder.deep
            if known.deep and (is_same or known.path in folder.path.parents):
                return known
            if folder.path in known.also and not folder.deep:
                return known
        row = {"path": str(folder.path), "target": folder.target, "deep": int(folder.deep)}
        self._upsert("folder", row, key="path")
        if folder.deep:
            absorb(self._run, str(folder.path))
        for path in folder.also:
            self.look_into(folder.path, path)
        note(self.path, self.folders())
        return next(one for one in self.folders() if one.path == folder.path)

    def look_into(self, folder: Path, place: Path) -> None:
        """Files of ours lie in a subfolder of a LoRA folder: it is looked into from now on, even if others are not."""
        known = {one.path: one for one in self.folders()}
        if folder not in known or known[folder].deep or place in (folder, *known[folder].also):
            return
        if deep := next((path for path in (place, *place.parents) if path in known and known[path].deep), None):
            absorb(self._run, str(deep))
            return
        take_in(self._run, str(folder), str(place))
        note(self.path, self.folders())

    def folders(self) -> list[Folder]:
        """Every LoRA folder ever used."""
        rows = self._run("SELECT path, target, deep FROM folder ORDER BY id").fetchall()
        return [Folder(Path(path), target, bool(deep), self._also(path)) for path, target, deep in rows]

    def _also(self, folder: str) -> tuple[Path, ...]:
        """The subfolders of one that is not deep; none of a deep one, which has them all."""
        rows = self._run(
            "SELECT branch.path FROM branch JOIN folder ON folder.id = folder_id "
            "WHERE folder.path = ?1 AND branch.path <> ?1 AND NOT deep ORDER BY branch.path",
            (folder,),
        )
        return tuple(Path(path) for (path,) in rows)

    def known(self, folder: Path, paths: Sequence[str] = ()) -> Mapping[str, Known]:
        """What is remembered of a folder's files, or of some of them, by path."""
        chosen = "AND file.path IN (SELECT value FROM json_each(?)) " if paths else ""
        rows = self._run(
            "SELECT file.path, size_bytes, mtime_ns, inode, sidecars, missing, architecture IS NULL AND reader <> ? "  # noqa: S608  # marks only
            "FROM file JOIN folder ON folder.id = folder_id JOIN fact ON fact.id = file.id "
            f"WHERE folder.path = ? {chosen}",
            (reader(), str(folder), *([json.dumps(paths)] if paths else ())),
        )
        return {
            path: Known(Stamp(size, changed, inode), sidecars, bool(missing), bool(outdated))
            for path, size, changed, inode, sidecars, missing, outdated in rows
        }

    def branches(self, folder: Path) -> dict[str, int]:
        """The subfolders that were walked through last, the LoRA folder itself included, with their modification times."""
        rows = self._run(
            "SELECT branch.path, mtime_ns FROM branch JOIN folder ON folder.id = folder_id WHERE folder.path = ?",
            (str(folder),),
        )
        return dict(rows.fetchall())

    def remember_branches(self, folder: Path, branches: Mapping[str, int]) -> None:
        """Which subfolders there are now; those into which files were put meanwhile stay."""
        branches = {str(path): 0 for path in self._also(str(folder)) if os.path.lexists(path)} | dict(branches)
        mine = "(SELECT id FROM folder WHERE path = ?)"
        self._run(f"DELETE FROM branch WHERE folder_id = {mine}", (str(folder),))  # noqa: S608  # ours
        for path, changed in branches.items():
            self._run(f"INSERT OR REPLACE INTO branch VALUES (?, {mine}, ?)", (path, str(folder), changed))  # noqa: S608

    def shape(self, digest: bytes) -> Shape | None:
        """What was found out about a table of tensors, by this version of hubtool."""
        row = self._run(
            "SELECT kind, architecture, dialect, parametrizations FROM shape WHERE digest = ? AND reader = ?",
            (digest, reader()),
        ).fetchone()
        if row is None:
            return None
        kind, architecture, dialect, parametrizations = row
        return Shape(kind, architecture, dialect, tuple(parametrizations.split("\n")) if parametrizations else ())

    def remember_shapes(self, shapes: Mapping[bytes, Shape]) -> None:
        """What was found out; what other versions of hubtool found is forgotten."""
        if shapes:
            self._run("DELETE FROM shape WHERE reader <> ?", (reader(),))
        for digest, shape in shapes.items():
            row = (digest, reader(), shape.kind, shape.architecture, shape.dialect, lines(shape.parametrizations))
            self._run("INSERT OR REPLACE INTO shape VALUES (?, ?, ?, ?, ?, ?)", row)

    def store(self, installed: Installed, sidecars: str = "") -> None:
        """Insert or replace what is known of a file.

        An origin stays when none is brought, for a scan that finds no sidecar knows less than the installation did.
        """
        folder, deep = self._run("SELECT id, deep FROM folder WHERE path = ?", (str(installed.folder),)).fetchone()
        path = str(installed.path)
        file: dict[str, object] = {"path": path, "folder_id": folder, "sidecars": sidecars, "missing": 0}
        self._upsert("file", file | columns_of(installed.stamp) | columns_of(installed.digests), key="path")
        key = {"id": self._run("SELECT id FROM file WHERE path = ?", (path,)).fetchone()[0]}
        self._upsert("fact", key | columns_of(installed.facts) | {"reader": reader()})
        if installed.origin:
            self._upsert("origin", key | columns_of(installed.origin))
        self._upsert("own", key | columns_of(installed.own))
        self._upsert("word", key | {name: storable(text) for name, text in _words(installed).items()})
        if not deep:
            self.look_into(installed.folder, installed.path.parent)

    def store_digests(self, installed: Installed) -> None:
        """Remember the hashes of a file, unless it changed since `adapter` was read."""
        hashes = columns_of(installed.digests)
        self._run(
            f"UPDATE file SET {', '.join(f'{name} = ?' for name in hashes)} WHERE path = ? AND mtime_ns = ?",  # noqa: S608  # names are ours
            (*hashes.values(), str(installed.path), installed.stamp.mtime_ns),
        )

    def sketch(self, model: Installed) -> StoredSketch | None:
        """What was remembered of what a file does, unless it changed since."""
        row = self._run(
            "SELECT modules, numbers FROM sketch JOIN file ON file.id = sketch.id "
            "WHERE path = ? AND sketch.size_bytes = ? AND sketch.mtime_ns = ?",
            (str(model.path), model.stamp.size_bytes, model.stamp.mtime_ns),
        ).fetchone()
        return StoredSketch(*row) if row else None

    def remember_sketch(self, model: Installed, modules: str, numbers: bytes) -> None:
        """What a file does, as `near` spells it."""
        self._run(
            "INSERT OR REPLACE INTO sketch SELECT id, ?, ?, ?, ? FROM file WHERE path = ?",
            (model.stamp.size_bytes, model.stamp.mtime_ns, modules, numbers, str(model.path)),
        )

    def remember_placed(self, model: Path, stamps: Mapping[Path, Stamp]) -> None:
        """These files were put there by the installation of a model."""
        for path, stamp in stamps.items():
            row = {"path": str(path), "model": str(model), "size_bytes": stamp.size_bytes, "mtime_ns": stamp.mtime_ns}
            self._upsert("placed", row, key="path")

    def placed(self, model: Path) -> dict[Path, tuple[int, int]]:
        """The files that an installation put there, with size and modification time as they were then."""
        rows = self._run("SELECT path, size_bytes, mtime_ns FROM placed WHERE model = ?", (str(model),))
        return {Path(path): (size, changed) for path, size, changed in rows}

    def forget_placed(self, model: Path) -> None:
        """The model was uninstalled."""
        self._run("DELETE FROM placed WHERE model = ?", (str(model),))

    def count_uses(self, uses: Mapping[str, int]) -> None:
        """How often each file was used, by path; what was counted before is forgotten."""
        self._run("DELETE FROM used")
        for path, count in uses.items():
            self._run("INSERT INTO used SELECT id, ? FROM file WHERE path = ?", (count, path))

    def uses(self) -> Mapping[str, int]:
        """What `count_uses` was told last, by path."""
        return dict(self._run("SELECT path, count FROM used JOIN file ON file.id = used.id").fetchall())

    def found_at(self, old: str, new: str) -> None:
        """A file is back, or was renamed; everything known of it goes along."""
        if self._run("SELECT 1 FROM file WHERE path = ?", (old,)).fetchone() is None:
            return
        if new != old:
            self._run("DELETE FROM file WHERE path = ?", (new,))
        self._run("UPDATE file SET path = ?, missing = 0 WHERE path = ?", (new, old))
        if new != old and (placed := self.placed(Path(old))):
            self.forget_placed(Path(old))
            self._replace_placed(Path(old), Path(new), placed)

    def _replace_placed(self, old: Path, new: Path, placed: Mapping[Path, tuple[int, int]]) -> None:
        for path, (size, changed) in placed.items():
            moved = new if path == old else new.with_name(new.stem + path.name[len(old.stem) :])
            row = {"path": str(moved), "model": str(new), "size_bytes": size, "mtime_ns": changed}
            self._upsert("placed", row, key="path")

    def forget_origin(self, path: str) -> None:
        """Other bytes are at this path now: what a hub said of the old ones holds no longer."""
        self._run("DELETE FROM origin WHERE id = (SELECT id FROM file WHERE path = ?)", (path,))

    def mark_missing(self, paths: Iterable[str]) -> None:
        """These files are gone, for now: their disk may come back, and the user's words with it."""
        for path in paths:
            self._run("UPDATE file SET missing = 1 WHERE path = ?", (path,))

    # ------------------------------------------------------------ questions

    def adapters(self, folder: Path | None = None) -> list[Installed]:
        """Everything that is there, or that lies in one LoRA folder; by path."""
        if folder is None:
            return self._read("ORDER BY file.path")
        return self._read("AND folder.path = ? ORDER BY file.path", (str(folder),))

    def labels(self) -> list[Label]:
        """Every file that is there, as far as names need it; by path."""
        rows = self._run(
            "SELECT file.path, folder.path, alias, size_bytes || ' ' || mtime_ns || ' ' || inode, sha256 "
            "FROM file JOIN folder ON folder.id = folder_id "
            "JOIN fact ON fact.id = file.id WHERE NOT missing ORDER BY file.path"
        )
        return [Label(*row) for row in rows]

    def at(self, path: Path) -> Installed | None:
        """The installed file at this path, if the index knows it."""
        return next(iter(self._read("AND file.path = ?", (str(path),))), None)

    def with_snapshot(self, model: Installed) -> Installed:
        """The same file, its origin with the hub's whole answer, which listings do without."""
        row = self._run(
            "SELECT snapshot FROM origin JOIN file ON file.id = origin.id WHERE path = ?", (str(model.path),)
        ).fetchone()
        if row is None or model.origin is None:
            return model
        return replace(model, origin=replace(model.origin, snapshot=json.loads(row[0] or "{}")))

    def with_content(self, sha256: str) -> list[Installed]:
        """The files with this SHA-256, or made from one by conversion; by path."""
        return self._read("AND (sha256 = ?1 OR source_sha256 = ?1) ORDER BY file.path", (sha256,))

    def with_inode(self, inode: int) -> list[Installed]:
        """The files that have this number on their disk: one file, and the links to it; by path."""
        return self._read("AND inode = ? ORDER BY file.path", (inode,))

    def with_short_hash(self, start: str) -> list[Installed]:
        """The files that have a hash of any kind which begins so (8 digits or more, any case, `0x` allowed); by path.

        Only hashes that were computed, and those that trainers wrote into headers, are known.
        """
        digits = start.lower().removeprefix("0x")
        if len(digits) < 8 or not all(digit in "0123456789abcdef" for digit in digits):
            return []
        chosen = " UNION ".join(
            f"SELECT id FROM {table} WHERE {kind} >= ?1 AND {kind} < ?2 AND {kind} <> ''"  # noqa: S608  # names are ours
            for table, kinds in HASHES.items()
            for kind in kinds
        )
        # "g" follows the last hex digit
        return self._read(f"AND file.id IN ({chosen}) ORDER BY file.path", (digits, f"{digits}g"))

    def from_hub(self, hub: str, ids: Mapping[str, str]) -> list[Installed]:
        """The files that came from a hub, with these ids (`model_id`, `version_id`, `file_id`); by path."""
        clause = "".join(f"AND origin.{name} = ? " for name in ids)
        return self._read(f"AND origin.hub = ? {clause}ORDER BY file.path", (hub, *ids.values()))

    def unhashed(self, folder: Path, size_bytes: int) -> list[Installed]:
        """Files of this size in a LoRA folder whose hashes nobody computed yet."""
        return self._read("AND folder.path = ? AND size_bytes = ? AND sha256 = ''", (str(folder), size_bytes))

    def count_unhashed(self) -> int:
        """How many files nobody computed the hashes of yet."""
        return int(self._run("SELECT count(*) FROM file WHERE NOT missing AND sha256 = ''").fetchone()[0])

    def in_order(self, ids: Sequence[object]) -> list[Installed]:
        """The files with these ids, in their order."""
        clause = (
            "AND file.id IN (SELECT value FROM json_each(?))"  # one JSON list: a statement has room for 32,000 marks
        )
        rows = {row[0]: row for row in self._run(SELECT + clause, (json.dumps(ids),))}
        return [installed_of(rows[id]) for id in ids if id in rows]

    def ask(self, statement: str, bound: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of a question about the tables."""
        return self._run(statement, bound).fetchall()

    # ------------------------------------------------------------ statements

    def _upsert(self, table: str, fields: Mapping[str, object], key: str = "id") -> None:
        """Insert a row, or change the one with this key; columns that are not named keep what they have."""
        marks = ", ".join("?" for _ in fields)
        changes = ", ".join(f"{name} = excluded.{name}" for name in fields if name != key)
        self._run(
            f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks}) "  # noqa: S608  # names are ours, values bound
            f"ON CONFLICT ({key}) DO UPDATE SET {changes}",
            tuple(fields.values()),
        )

    def _read(self, clause: str, bound: Sequence[object] = ()) -> list[Installed]:
        return [installed_of(row) for row in self._run(SELECT + clause, bound)]

    def _run(self, statement: str, bound: Sequence[object] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, bound)
        except sqlite3.Error as error:
            explain(error, self.path)


def _words(installed: Installed) -> dict[str, str]:
    """What a search looks at."""
    origin = installed.origin
    inside = installed.path.relative_to(installed.folder).with_suffix("").as_posix()
    return {
        "name": f"{installed.name} {inside}",
        "title": installed.facts.title,
        "trigger_words": lines([*installed.trigger_words, *installed.own.outfits]),
        "tags": lines(installed.own.tags),
        "base_model": f"{installed.base_model} {installed.facts.architecture or ''}",
        "people": f"{origin.model_name} {origin.version_name} {origin.creator}" if origin else "",
    }
