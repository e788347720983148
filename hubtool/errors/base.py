"""What every error is, and those that belong to no part of hubtool."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class HubtoolError(Exception):
    """Anything hubtool refuses or fails to do, as one sentence."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class UsageProblem(HubtoolError):
    """The arguments contradict each other or cannot be meant."""

    code = "usage"
    hint = "See `hubtool COMMAND --help`."


class OutputExists(HubtoolError):
    """The output is already there and `--force` was not given."""

    code = "exists"
    hint = "Use `--force` to replace it, or choose another name with `-o`."

    def __init__(self, path: Path, *, hint: str | None = None) -> None:
        super().__init__(f"The output exists: {path}", hint=hint)
        self.path = path


class MissingExtra(HubtoolError):
    """An optional package is not installed."""

    code = "missing_extra"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed.",
            hint=f"Install it with `pip install 'hubtool[{extra}]'`.",
        )
        self.package = package


class StorageProblem(HubtoolError):
    """The disk refused: full, read-only, vanished."""

    code = "storage"
    hint = "Check free space and permissions, then run the command again."

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}.")
        self.path = path


class DiskFull(StorageProblem):
    """No space left for the output."""

    code = "disk_full"
    hint = "Free some space or choose another folder, then run the command again."
