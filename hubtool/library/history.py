"""What sidecars said before something else was written into them: one line of JSON a change, in `NAME.hubtool-history.jsonl`.

Only what gets lost is kept: the old values of keys that now have others. Lines are added, never changed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from hubtool.formats.atomic import reraise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUFFIX = ".hubtool-history.jsonl"
MAX_BYTES = 64 << 20  # read back; some ten thousand changes


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one sidecar."""

    when: str  # UTC, ISO 8601
    sidecar: str  # the file's name
    was: Mapping[str, object]  # what the changed keys held


def keep(sidecar: Path, stem: str, was: Mapping[str, object]) -> None:
    """Note the old values of a sidecar's keys before they are written over.

    Raises:
        DiskFull, StorageProblem: the line cannot be written; nothing should be written over then.
    """
    path = sidecar.with_name(stem + SUFFIX)
    entry = {"when": datetime.now(timezone.utc).isoformat(timespec="seconds"), "sidecar": sidecar.name, "was": was}
    line = json.dumps(entry)  # ASCII: half characters, which people's notes may hold, too
    try:
        with path.open("a", encoding="ascii", newline="\n") as file:
            file.write(f"\n{line}" if path.stat().st_size else line)  # a line that was cut off stays one line
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reraise(error, path)


def changes_of(model: Path) -> list[Change]:
    """Every change that was noted for a model, the oldest first; lines that are none are passed over."""
    path = model.with_name(model.stem + SUFFIX)
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return []
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:  # somebody's folder: its history is as good as none
        return []
    return [change for line in lines if (change := _change(line)) is not None]


def _change(line: str) -> Change | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # cut off by a power failure
        return None
    was = entry.get("was") if isinstance(entry, dict) else None
    return Change(str(entry.get("when")), str(entry.get("sidecar")), was) if isinstance(was, dict) else None
