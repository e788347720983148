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
    from collections.abc import Sequence
    from pathlib import Path

BUSY_S = 60.0  # how long to wait for another process that writes
SMALL_BYTES = 4 << 20  # an index of up to this size is checked whenever it is opened, which takes some milliseconds
CHECKED_S = 24 * 3600.0  # a larger one once a day, and whenever something was wrong with it


class Opened(NamedTuple):
    """An index, and what must be known of how it came about."""

    connection: sqlite3.Connection
    is_new: bool  # empty: there was none, or none that could be used
    aside: Path | None = None  # the new name of a damaged one
    folders: Sequence[tuple[str, str, int]] = ()  # what was left of it: path, id of the target, with subfolders or not


def open_database(path: Path) -> Opened:
    """A sound, migrated database in WAL mode; a damaged file is moved aside first.

    Raises:
        StorageProblem: it cannot be made or written.
        LibraryProblem: it was written by a newer hubtool, or stays locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path)
    except OSError as error:
        raise StorageProblem(path, error.strerror or str(error)) from error
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            explain(error, path)
    from filelock import FileLock  # noqa: PLC0415  # asyncio comes with it: 20 ms that only damage is worth

    with FileLock(path.with_name(f"{path.name}.lock")):  # of several processes that find the damage, one moves it aside
        try:
            return _connect(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                explain(error, path)
        aside, folders = _move_aside(path)
        return _connect(path)._replace(aside=aside, folders=folders)


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
        _marker(path).unlink(missing_ok=True)
        message = f"The library's index is damaged: {text}."
        raise LibraryProblem("index", message, hint="Run the command again: the index is rebuilt then.") from error
    raise StorageProblem(path, f"the library's index cannot be used ({text})") from error


def _connect(path: Path) -> Opened:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        if _is_due(path):
            _check(connection)
            _mark_checked(path)
        connection.execute("PRAGMA foreign_keys = ON")
        _use_wal(connection)
        is_new = migrate(connection) == 0
    except BaseException:
        connection.close()
        raise
    return Opened(connection, is_new)


def _marker(path: Path) -> Path:
    """A file whose modification time says when the index was checked last."""
    return path.with_name(f"{path.name}.checked")


def _is_due(path: Path) -> bool:
    """Whether the index is to be checked: 1.5 ms a MiB are not spent on every listing of a large library."""
    try:
        if path.stat().st_size <= SMALL_BYTES:
            return True
        age = time.time() - _marker(path).stat().st_mtime
    except FileNotFoundError:
        return True
    return not 0 <= age < CHECKED_S


def _mark_checked(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only folder: it is checked again
        _marker(path).touch()


def _check(connection: sqlite3.Connection) -> None:
    """Finds what would otherwise break a listing half-way."""
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


def _move_aside(path: Path) -> tuple[Path, Sequence[tuple[str, str, int]]]:
    folders: Sequence[tuple[str, str, int]] = ()
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as damaged:
        folders = damaged.execute("SELECT path, target, deep FROM folder").fetchall()
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    try:
        path.replace(aside)
        _marker(path).unlink(missing_ok=True)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise StorageProblem(path, f"the damaged index cannot be moved aside ({error.strerror})") from error
    return aside, folders
