"""The tables of the library's index, as the numbered steps that lead to them.

A step is never edited once released; a change is a new step. `PRAGMA user_version` says how many a file has seen.
Lists are stored as lines of text, which costs a tenth of what JSON does when 10,000 rows are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_FIRST = (
    # LoRA folders, each read by one UI, with their subfolders if deep
    """CREATE TABLE folder (
        id INTEGER PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        target TEXT NOT NULL,
        deep INTEGER NOT NULL
    )""",
    # One row a file; a file that vanished keeps its row, since its disk may come back and the user's words with it
    """CREATE TABLE file (
        id INTEGER PRIMARY KEY,
        folder_id INTEGER NOT NULL REFERENCES folder ON DELETE CASCADE,
        path TEXT NOT NULL UNIQUE,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        sidecars TEXT NOT NULL DEFAULT '',
        missing INTEGER NOT NULL DEFAULT 0,
        sha256 TEXT NOT NULL DEFAULT '',
        autov1 TEXT NOT NULL DEFAULT '',
        autov2 TEXT NOT NULL DEFAULT '',
        autov3 TEXT NOT NULL DEFAULT '',
        crc32 TEXT NOT NULL DEFAULT '',
        blake3 TEXT NOT NULL DEFAULT '',
        tensors_sha256 TEXT NOT NULL DEFAULT ''
    )""",
    "CREATE INDEX file_sha256 ON file (sha256) WHERE sha256 <> ''",
    "CREATE INDEX file_tensors ON file (tensors_sha256) WHERE tensors_sha256 <> ''",
    "CREATE INDEX file_size ON file (size_bytes)",
    "CREATE INDEX file_folder ON file (folder_id)",
    # What the header says
    """CREATE TABLE fact (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        kind TEXT NOT NULL,
        architecture TEXT,
        dialect TEXT,
        parametrizations TEXT NOT NULL,
        base_model TEXT NOT NULL,
        title TEXT NOT NULL,
        trigger_words TEXT NOT NULL,
        alias TEXT NOT NULL,
        embedded_hash TEXT NOT NULL,
        problem TEXT NOT NULL
    )""",
    # What the hub says
    """CREATE TABLE origin (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        hub TEXT NOT NULL,
        model_id TEXT NOT NULL,
        version_id TEXT NOT NULL,
        file_id TEXT NOT NULL,
        model_name TEXT NOT NULL,
        version_name TEXT NOT NULL,
        creator TEXT NOT NULL,
        base_model TEXT NOT NULL,
        trigger_words TEXT NOT NULL,
        url TEXT NOT NULL,
        source_sha256 TEXT NOT NULL,
        snapshot TEXT NOT NULL
    )""",
    "CREATE INDEX origin_source ON origin (source_sha256) WHERE source_sha256 <> ''",
    "CREATE INDEX origin_version ON origin (hub, version_id)",
    # What the user says
    """CREATE TABLE own (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        tags TEXT NOT NULL DEFAULT '',
        favourite INTEGER NOT NULL DEFAULT 0,
        preferred_weight REAL,
        trigger_words TEXT NOT NULL DEFAULT '',
        notes TEXT NOT NULL DEFAULT ''
    )""",
    # Everything that a search looks at, one row a file, mirrored into the full-text index by the triggers
    """CREATE TABLE word (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        name TEXT NOT NULL,
        title TEXT NOT NULL,
        trigger_words TEXT NOT NULL,
        tags TEXT NOT NULL,
        base_model TEXT NOT NULL,
        people TEXT NOT NULL
    )""",
    """CREATE VIRTUAL TABLE word_index USING fts5 (
        name, title, trigger_words, tags, base_model, people,
        content='word', content_rowid='id', prefix='2 3', tokenize='unicode61 remove_diacritics 2'
    )""",
    """CREATE TRIGGER word_added AFTER INSERT ON word BEGIN
        INSERT INTO word_index (rowid, name, title, trigger_words, tags, base_model, people)
        VALUES (new.id, new.name, new.title, new.trigger_words, new.tags, new.base_model, new.people);
    END""",
    """CREATE TRIGGER word_removed AFTER DELETE ON word BEGIN
        INSERT INTO word_index (word_index, rowid, name, title, trigger_words, tags, base_model, people)
        VALUES ('delete', old.id, old.name, old.title, old.trigger_words, old.tags, old.base_model, old.people);
    END""",
    """CREATE TRIGGER word_changed AFTER UPDATE ON word BEGIN
        INSERT INTO word_index (word_index, rowid, name, title, trigger_words, tags, base_model, people)
        VALUES ('delete', old.id, old.name, old.title, old.trigger_words, old.tags, old.base_model, old.people);
        INSERT INTO word_index (rowid, name, title, trigger_words, tags, base_model, people)
        VALUES (new.id, new.name, new.title, new.trigger_words, new.tags, new.base_model, new.people);
    END""",
)

_SECOND = (
    "ALTER TABLE own ADD COLUMN negative TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE own ADD COLUMN rating INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE own ADD COLUMN outfits TEXT NOT NULL DEFAULT ''",
    # How often pictures say that a file was used, as `usage` counted last
    """CREATE TABLE used (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        count INTEGER NOT NULL
    )""",
    # What an installation put beside a model, as it was then: `uninstall` removes that and no more
    """CREATE TABLE placed (
        path TEXT PRIMARY KEY,
        model TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL
    )""",
    "CREATE INDEX placed_model ON placed (model)",
)

_THIRD = (
    "ALTER TABLE fact ADD COLUMN stated_hash TEXT NOT NULL DEFAULT ''",
    # Which hubtool read the header; a newer one may recognise what this one did not
    "ALTER TABLE fact ADD COLUMN reader TEXT NOT NULL DEFAULT ''",
    # What a table of tensors is, by digest: most files share theirs with others
    """CREATE TABLE shape (
        digest BLOB PRIMARY KEY,
        reader TEXT NOT NULL,
        kind TEXT NOT NULL,
        architecture TEXT,
        dialect TEXT,
        parametrizations TEXT NOT NULL
    ) WITHOUT ROWID""",
    # The subfolders of a LoRA folder: while their modification times stay, so do the names in them
    """CREATE TABLE branch (
        path TEXT PRIMARY KEY,
        folder_id INTEGER NOT NULL REFERENCES folder ON DELETE CASCADE,
        mtime_ns INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX branch_folder ON branch (folder_id)",
    # Pictures cite any kind of hash
    "CREATE INDEX file_autov1 ON file (autov1) WHERE autov1 <> ''",
    "CREATE INDEX file_crc32 ON file (crc32) WHERE crc32 <> ''",
    "CREATE INDEX file_blake3 ON file (blake3) WHERE blake3 <> ''",
    # What a few modules of a file do, by which `dupes --near` finds files that do the same
    """CREATE TABLE sketch (
        id INTEGER PRIMARY KEY REFERENCES file ON DELETE CASCADE,
        size_bytes INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        modules TEXT NOT NULL,
        numbers BLOB NOT NULL
    )""",
    "CREATE INDEX fact_embedded ON fact (embedded_hash) WHERE embedded_hash <> ''",
)

MIGRATIONS: Sequence[Sequence[str]] = (_FIRST, _SECOND, _THIRD)


def migrate(connection: sqlite3.Connection) -> int:
    """Bring an index up to date, each step whole or not at all; several processes may try at once.

    Returns:
        The format that it had before; 0 for a new file.

    Raises:
        LibraryProblem: the file was written by a newer hubtool.
        sqlite3.Error: the file is damaged or cannot be written.
    """
    before = _version(connection)
    while (version := _version(connection)) < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:  # another process may have been quicker
                for statement in MIGRATIONS[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    if version > len(MIGRATIONS):
        raise LibraryProblem(
            "index",
            f"The library's index has format {version}, and this hubtool knows formats up to {len(MIGRATIONS)}.",
            hint="Update hubtool, or set HUBTOOL_HOME to another folder.",
        )
    return before


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
