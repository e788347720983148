"""What killed processes leave: files under hidden names of ours that nobody will finish."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HIDDEN = ".hubtool-"  # begins the name of everything of ours that is not finished
STALE_S = 3600.0  # what nobody has written to for so long belongs to a process that died


def is_litter(name: str) -> bool:
    """Whether a file of this name is one that was to be renamed."""
    return name.startswith(HIDDEN) and name.endswith(".tmp")


def remove_stale(folder: Path) -> None:
    """Delete what a killed process left in a folder; of no use to anybody."""
    for path in stale(folder):
        with contextlib.suppress(OSError):  # another process was quicker
            path.unlink()


def stale(folder: Path, now: float | None = None) -> Iterator[Path]:
    """The left-overs in a folder that are old enough to belong to nobody."""
    for path in folder.glob(f"{HIDDEN}*.tmp"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            # a link has its source's old modification time, but a fresh change time
            if (now or time.time()) - max(status.st_mtime, status.st_ctime) > STALE_S:
                yield path
