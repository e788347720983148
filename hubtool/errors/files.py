"""Files that cannot be read, or must not be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors.base import HubtoolError

if TYPE_CHECKING:
    from pathlib import Path


class FileProblem(HubtoolError):
    """A file on disk is not usable; `path` says which."""

    code = "file"

    def __init__(self, path: Path | str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class FileMissing(FileProblem):
    """There is nothing at this path (a dangling link counts as nothing)."""

    code = "file_not_found"
    hint = "Check the path; `hubtool list` shows what is installed."


class FolderMissing(FileProblem):
    """There is no folder at this path; perhaps there is a file."""

    code = "file_not_found"
    hint = "Check the path; a disk may not be mounted."

    def __init__(self, path: Path | str) -> None:
        super().__init__(path, f"There is no such folder: {path}")


class NotRegularFile(FileProblem):
    """A folder, pipe, device or socket where a file was expected."""

    code = "not_a_file"
    hint = "Name a regular file."


class BadHeader(FileProblem):
    """The safetensors header breaks a rule of the specification; `rule` names it."""

    code = "broken_file"
    hint = "The file is damaged or was not written by a correct tool: download or export it again."

    def __init__(self, path: Path | str, message: str, *, rule: str = "E_HEADER_JSON", key: str = "") -> None:
        super().__init__(path, message)
        self.rule, self.key = rule, key


class TruncatedFile(BadHeader):
    """The file ends before its header says it should."""

    code = "truncated_file"
    hint = "The download was interrupted: fetch the file again."


class UnsafePickle(FileProblem):
    """A pickle, which can run code when loaded."""

    code = "unsafe_file"
    hint = "Ask the author for a .safetensors file."


class UnknownFormat(FileProblem):
    """The bytes are something else than the name says; `rule` names what."""

    code = "unsafe_file"
    hint = "Download it again from its page."

    def __init__(self, path: Path | str, message: str, *, rule: str = "E_NOT_SAFETENSORS") -> None:
        super().__init__(path, message)
        self.rule = rule
