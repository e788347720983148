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
from typing import TYPE_CHECKING

from hubtool.library.database import explain, open_database
from hubtool.library.record import Folder, Installed, Label, Stamp
from hubtool.library.rows import SELECT, columns_of, installed_of, lines, storable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RANKED = 5_000  # above this many matches, ordering by relevance costs 0.1 s and tells nothing


@dataclass(frozen=True, slots=True)
class Known:
    """What the index remembers of a file, to tell whether it changed."""

    stamp: Stamp
    sidecars: str  # the stamps of its sidecars, as `scan` spells them
    missing: bool


class Index:
    """An open index; use it as a context manager. Paths are absolute. Every method may raise `explain`'s errors."""

    def __init__(self, path: Path) -> None:
        """Open it, making or replacing the file if need be (see `open_database` for the errors)."""
        self.path = path
        self.note = ""  # for the user: why it was rebuilt
        self._connection, salvage = open_database(path)
        if salvage:
            self.note = f"The library's index was damaged; it is rebuilt, and the old one kept as {salvage.aside}."
            with self.writing():
                for folder, target, deep in salvage.folders:
                    self.remember(Folder(Path(folder), target, bool(deep)))

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
        self._upsert(
            "folder", {"path": str(folder.path), "target": folder.target, "deep": int(folder.deep)}, key="path"
        )
        if folder.deep:
            self._absorb(folder.path)
        return folder

    def _absorb(self, path: Path) -> None:
        """Folders inside a deep one give up their files to it."""
        inside = "SELECT id FROM folder WHERE substr(path, 1, length(?1)) = ?1"
        below = f"{path}{os.sep}"
        mine = "(SELECT id FROM folder WHERE path = ?2)"
        self._run(f"UPDATE file SET folder_id = {mine} WHERE folder_id IN ({inside})", (below, str(path)))  # noqa: S608
        self._run(f"DELETE FROM folder WHERE id IN ({inside})", (below,))  # noqa: S608

    def folders(self) -> list[Folder]:
        """Every LoRA folder ever used."""
        rows = self._run("SELECT path, target, deep FROM folder ORDER BY id")
        return [Folder(Path(path), target, bool(deep)) for path, target, deep in rows]

    def known(self, folder: Path) -> Mapping[str, Known]:
        """What is remembered of a folder's files, by path."""
        rows = self._run(
            "SELECT file.path, sidecars, missing, size_bytes, mtime_ns, inode FROM file "
            "JOIN folder ON folder.id = folder_id WHERE folder.path = ?",
            (str(folder),),
        )
        return {path: Known(Stamp(*stamp), sidecars, bool(missing)) for path, sidecars, missing, *stamp in rows}

    def store(self, installed: Installed, sidecars: str = "") -> None:
        """Insert or replace what is known of a file.

        An origin stays when none is brought, for a scan that finds no sidecar knows less than the installation did.
        """
        folder = self._run("SELECT id FROM folder WHERE path = ?", (str(installed.folder),)).fetchone()[0]
        path = str(installed.path)
        file: dict[str, object] = {"path": path, "folder_id": folder, "sidecars": sidecars, "missing": 0}
        self._upsert("file", file | columns_of(installed.stamp) | columns_of(installed.digests), key="path")
        key = {"id": self._run("SELECT id FROM file WHERE path = ?", (path,)).fetchone()[0]}
        self._upsert("fact", key | columns_of(installed.facts))
        if installed.origin:
            self._upsert("origin", key | columns_of(installed.origin))
        self._upsert("own", key | columns_of(installed.own))
        self._upsert("word", key | {name: storable(text) for name, text in _words(installed).items()})

    def store_digests(self, installed: Installed) -> None:
        """Remember the hashes of a file, unless it changed since `adapter` was read."""
        hashes = columns_of(installed.digests)
        self._run(
            f"UPDATE file SET {', '.join(f'{name} = ?' for name in hashes)} WHERE path = ? AND mtime_ns = ?",  # noqa: S608  # names are ours
            (*hashes.values(), str(installed.path), installed.stamp.mtime_ns),
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
        """A file is back, or was renamed by somebody else; everything known of it goes along."""
        self._run("UPDATE file SET path = ?, missing = 0 WHERE path = ?", (new, old))

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
            "SELECT file.path, folder.path, alias FROM file JOIN folder ON folder.id = folder_id "
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

    def with_short_hash(self, start: str) -> list[Installed]:
        """The files that have a hash of any kind which begins so (8 digits or more, any case, `0x` allowed); by path.

        Only hashes that were computed, and those that trainers wrote into headers, are known.
        """
        digits = start.lower().removeprefix("0x")
        if len(digits) < 8 or not all(digit in "0123456789abcdef" for digit in digits):
            return []
        kinds = ("sha256", "autov1", "autov3", "crc32", "blake3", "tensors_sha256", "embedded_hash", "source_sha256")
        clause = " OR ".join(f"substr({kind}, 1, ?2) = ?1" for kind in kinds)
        return self._read(f"AND ({clause}) ORDER BY file.path", (digits, len(digits)))

    def from_hub(self, hub: str, ids: Mapping[str, str]) -> list[Installed]:
        """The files that came from a hub, with these ids (`model_id`, `version_id`, `file_id`); by path."""
        clause = "".join(f"AND origin.{name} = ? " for name in ids)
        return self._read(f"AND origin.hub = ? {clause}ORDER BY file.path", (hub, *ids.values()))

    def unhashed(self, folder: Path, size_bytes: int) -> list[Installed]:
        """Files of this size in a LoRA folder whose hashes nobody computed yet."""
        return self._read("AND folder.path = ? AND size_bytes = ? AND sha256 = ''", (str(folder), size_bytes))

    def search(self, text: str) -> list[Installed]:
        """Adapters with every word, or its beginning, in name, title, trigger words, tags, base model or author.

        The most relevant first; when no word begins so, those that contain the words anywhere, by path.
        """
        terms = text.split()
        if not terms:
            return self.adapters()
        # quoted, so that FTS5's own operators mean nothing
        match = " ".join('"' + term.replace('"', '""') + '"*' for term in terms)
        query = "SELECT rowid FROM word_index WHERE word_index MATCH ? LIMIT ?"
        count = len(self._run(query, (match, RANKED + 1)).fetchall())
        if not count:
            return self._containing(terms)
        ranked = "(SELECT rowid, rank FROM word_index WHERE word_index MATCH ?)"
        order = "found.rank, file.path" if count <= RANKED else "file.path"
        return self._read(f"ORDER BY {order}", (match,), f"JOIN {ranked} AS found ON found.rowid = file.id")

    def _containing(self, terms: Sequence[str]) -> list[Installed]:
        texts = " || ' ' || ".join(
            f"word.{name}" for name in ("name", "title", "trigger_words", "tags", "base_model", "people")
        )
        patterns = [f"%{term.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%" for term in terms]
        return self._read("".join(f"AND {texts} LIKE ? ESCAPE '!' " for _ in terms) + "ORDER BY file.path", patterns)

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

    def _read(self, clause: str, bound: Sequence[object] = (), join: str = "") -> list[Installed]:
        return [installed_of(row) for row in self._run(SELECT.replace(" WHERE", f" {join} WHERE") + clause, bound)]

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
