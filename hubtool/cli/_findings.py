"""How `verify` and `doctor` show what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.cli._output import answer, finish, row_of, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.library.problem import LibraryFinding


def show_findings(found: Sequence[LibraryFinding], fields: Mapping[str, object], exit_code: int) -> None:
    """The contract's `problems`; the exit code is 0 where nothing is an error."""
    answer({"problems": [row_of(one) for one in found], **fields}, lambda: "\n".join(_lines(found)))
    errors = sum(one.severity == "error" for one in found)
    counts = f"{_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}."
    say(counts if found else "Nothing is wrong.")
    finish([exit_code if errors else 0])


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _lines(found: Sequence[LibraryFinding]) -> list[str]:
    return [line for one in found for line in (f"{one.severity}: {one.path}", f"  {one.message}", f"  Fix: {one.fix}")]
