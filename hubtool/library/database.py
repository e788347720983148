"""The file behind the index: opened soundly, replaced when damaged, and its failures said in our words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.library.migrations import migrate

if TYPE_CHECKING:
    from pathlib import Path

BUSY_S = 30.0  # how long to wait for another process that writes


class Salvage(NamedTuple):
    """What was left of a damaged index."""

    aside: Path  # its new name
    folders: list[tuple[str, str, int]]  # path, id of the target, with subfolders or not


def open_database(path: Path) -> tuple[sqlite3.Connection, Salvage | None]:
    """A sound, migrated database in WAL mode; a damaged file is moved aside first.

    Raises:
        StorageProblem: it cannot be made or written.
        LibraryProblem: it was written by a newer hubtool, or stays locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path), None
    except OSError as error:
        raise StorageProblem(path, error.strerror or str(error)) from error
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            explain(error, path)
    salvage = _move_aside(path)
    return _connect(path), salvage


def explain(error: sqlite3.Error, path: Path) -> NoReturn:
    """Turn what SQLite says about the index into one of our errors.

    Raises:
        StorageProblem: the file or its folder refuses.
        LibraryProblem: it is locked for too long, or damaged where nobody looked before.
    """
    text = str(error)
    if "locked" in text:
        message = "Another hubtool is writing to the library."
        raise LibraryProblem("index", message, hint="Run the command again when it has finished.") from error
    if _is_damage(error):
        message = f"The library's index is damaged: {text}."
        raise LibraryProblem("index", message, hint=f"Delete {path}; it is rebuilt from the folders.") from error
    raise StorageProblem(path, f"the library's index cannot be used ({text})") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        _check(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        _use_wal(connection)
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """1.5 ms a MiB, which finds what would otherwise break a listing half-way."""
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"malformed: {verdict}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers then never wait for a writer. The switch itself ignores the busy timeout, so it is repeated."""
    deadline = time.monotonic() + BUSY_S
    while not _switched(connection):
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked")
        time.sleep(0.02)


def _switched(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return False
        raise
    return True


def _is_damage(error: sqlite3.Error) -> bool:
    return any(word in str(error) for word in ("malformed", "not a database", "disk I/O error"))


def _move_aside(path: Path) -> Salvage:
    folders: list[tuple[str, str, int]] = []
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as damaged:
        folders = damaged.execute("SELECT path, target, deep FROM folder").fetchall()
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    try:
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StorageProblem(path, f"the damaged index cannot be moved aside ({error.strerror})") from error
    return Salvage(aside, folders)
