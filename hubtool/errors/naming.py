"""Keys, dialects and architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors.base import HubtoolError

if TYPE_CHECKING:
    from collections.abc import Sequence


class NamingProblem(HubtoolError):
    """A name (dialect, architecture, key) cannot be understood or spelt."""

    code = "naming"


class UnknownDialect(NamingProblem):
    """No dialect has this id, or none explains the file."""

    code = "unknown_dialect"


class UnknownArchitecture(NamingProblem):
    """No architecture has this id, or none explains the file."""

    code = "unknown_architecture"


class AmbiguousArchitecture(NamingProblem):
    """Several architectures explain the file and the answer would differ."""

    code = "ambiguous"

    def __init__(self, candidates: Sequence[str]) -> None:
        super().__init__(
            f"The keys fit several architectures: {', '.join(candidates)}.",
            hint="Choose one with `--architecture`.",
        )
        self.candidates = tuple(candidates)


class KeyClash(NamingProblem):
    """Two tensors would get the same key."""

    code = "key_clash"
