"""The user's own collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors.base import HubtoolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class LibraryProblem(HubtoolError):
    """Something about the user's own collection; `name` says what."""

    code = "library"

    def __init__(self, name: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class NameTaken(LibraryProblem):
    """Another file already has this name in the target folder."""

    code = "exists"
    hint = "Install it under another name with `--name`."


class NotInstalled(LibraryProblem):
    """No file of the library has this name; `suggestions` are close ones."""

    code = "not_installed"

    def __init__(self, name: str, suggestions: Sequence[str] = ()) -> None:
        close = (
            f"Did you mean {' or '.join(suggestions)}?" if suggestions else "`hubtool list` shows what is installed."
        )
        super().__init__(name, f"No LoRA called {name!r} is installed.", hint=close)
        self.suggestions = tuple(suggestions)


class NotWanted(LibraryProblem):
    """The manifest has no LoRA of this name; `suggestions` are close ones."""

    code = "not_installed"

    def __init__(self, name: str, manifest: str, suggestions: Sequence[str] = ()) -> None:
        close = f"Did you mean {' or '.join(suggestions)}?" if suggestions else f"Look into {manifest} for its names."
        super().__init__(name, f"{manifest} has no LoRA called {name!r}.", hint=close)
        self.suggestions = tuple(suggestions)


class AmbiguousName(LibraryProblem):
    """Several files of the library have this name; `paths` are theirs."""

    code = "ambiguous"

    def __init__(self, name: str, paths: Sequence[str]) -> None:
        shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        message = f"{len(paths)} files are called {name!r}: {shown}."
        super().__init__(name, message, hint="Say which with its path, or with the folder in front: FOLDER/NAME.")
        self.paths = tuple(paths)


class LockProblem(LibraryProblem):
    """The lock file says something else than the manifest, or nothing usable; `path` says which file."""

    code = "lock_out_of_date"
    hint = "Run `hubtool lock`."

    def __init__(self, path: Path, message: str, *, hint: str | None = None) -> None:
        super().__init__(str(path), message, hint=hint)
        self.path = path


class ContentChanged(LibraryProblem):
    """A file does not have the content that the lock asks for."""

    code = "hash_mismatch"

    def __init__(self, path: Path | str, wanted: str, found: str, *, hint: str) -> None:
        message = f"{path} has SHA-256 {found[:12] or 'of nothing'}…, and {wanted[:12]}… is locked."
        super().__init__(str(path), message, hint=hint)
