"""Which folders belong to the library, noted beside the index: the one thing in it that the folders cannot tell.

An index that was deleted or damaged is rebuilt from this note and from what lies in the folders.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.formats.atomic import write_text
from hubtool.library.record import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME = "folders.json"


def note(index: Path, folders: Sequence[Folder]) -> None:
    """Write down the folders of the index at this path, if they changed.

    Raises:
        StorageProblem: they cannot be written down.
    """
    if noted(index) != list(folders):
        rows = [
            {"path": str(one.path), "target": one.target, "deep": one.deep, "also": [str(path) for path in one.also]}
            for one in folders
        ]
        write_text(index.with_name(_NAME), json.dumps(rows, indent=2, ensure_ascii=False), force=True)


def noted(index: Path) -> list[Folder]:
    """The folders that were written down; what is no such note says nothing."""
    try:
        rows = json.loads(index.with_name(_NAME).read_text("utf-8"))
    except (OSError, ValueError):  # none yet, or somebody's own file
        return []
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    usable = (row for row in rows if isinstance(row.get("path"), str) and isinstance(row.get("target"), str))
    return [Folder(Path(row["path"]), row["target"], row.get("deep") is not False, _also(row)) for row in usable]


def _also(row: Mapping[str, object]) -> tuple[Path, ...]:
    also = row.get("also")
    return tuple(Path(path) for path in also if isinstance(path, str)) if isinstance(also, list) else ()
