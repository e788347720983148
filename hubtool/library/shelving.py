"""Which LoRA folder of the index a subfolder and its files belong to, as statements on its tables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    Run = Callable[[str, Sequence[object]], sqlite3.Cursor]


def absorb(run: Run, folder: str) -> None:
    """What lies inside a deep folder is all its own."""
    below = "substr(path, 1, length(?1)) = ?1"
    mine = "(SELECT id FROM folder WHERE path = ?2)"
    bound = (f"{folder}{os.sep}", folder)
    run(f"UPDATE file SET folder_id = {mine} WHERE {below}", bound)  # noqa: S608  # ours
    run(f"DELETE FROM branch WHERE ({below} OR path = ?2) AND folder_id <> {mine}", bound)  # noqa: S608
    run(f"DELETE FROM folder WHERE {below}", bound[:1])  # noqa: S608


def take_in(run: Run, folder: str, subfolder: str) -> None:
    """A folder that is not deep has this subfolder, too, and all that was in it if it was a LoRA folder of its own."""
    mine, its = "(SELECT id FROM folder WHERE path = ?1)", "(SELECT id FROM folder WHERE path = ?2)"
    bound = (folder, subfolder)
    for table in ("file", "branch"):
        run(f"UPDATE {table} SET folder_id = {mine} WHERE folder_id = {its}", bound)  # noqa: S608
    run("DELETE FROM folder WHERE path = ?", (subfolder,))
    run(f"INSERT OR IGNORE INTO branch VALUES (?2, {mine}, 0)", bound)  # noqa: S608
