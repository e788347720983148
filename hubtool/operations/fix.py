"""One thing that was mended; codes are those of the problems that validation names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fix:
    """What was mended: the contract's fields."""

    code: str
    key: str
    message: str
