"""What `verify` and `doctor` find, in one form."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class LibraryFinding:
    """Something that is wrong with the library; the fields are the contract's."""

    code: str
    severity: str  # error: a file cannot be used; warning: it can be used, but not as one thinks
    path: Path
    message: str
    fix: str  # what to do, as a command where there is one


def quoted(path: Path) -> str:
    """A path as it is typed behind a command: whatever its name holds, a shell runs nothing of it."""
    return shlex.quote(str(path))


def renaming(path: Path) -> str:
    """The command that gives a file another name."""
    return f"hubtool rename {quoted(path)} NEW-NAME"
