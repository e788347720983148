"""Options and text of `normalize`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hubtool.cli._conversion import output_for
from hubtool.errors import UsageProblem
from hubtool.operations.normalize import NormalizeOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.cli._output import Row

_WORD = "normal"
_FEW = 3  # fixes of one kind that are told one by one


def normalize_options(options: Mapping[str, object], output: str | None) -> NormalizeOptions:
    """The operation's options from the command's.

    Raises:
        UsageProblem: an output and the input's own place are both asked for.
    """
    if options["in_place"] and output is not None:
        raise UsageProblem("`--in-place` and `-o` say two places to write to.", hint="Give one of them.")
    return NormalizeOptions(**options)  # type: ignore[arg-type]  # click checked each


def normal_output(path: Path, output: str | None, *, several: bool) -> Path:
    """Where one input goes: the file named, the same name in the folder named, or beside the input with `.normal`."""
    chosen = output_for(path, _WORD, output, several=several)
    made_up = output is not None and chosen.name == f"{path.stem}.{_WORD}.safetensors"
    return chosen.with_name(path.name) if made_up else chosen


def normalization_text(row: Row) -> str:
    """What was mended and what was not, a line a kind."""
    lines = [f"{row['output']}", f"  {row['architecture']}, {row['dialect']}"]
    fixes, left = row["fixes"], row["problems_left"]
    lines += _told(fixes if isinstance(fixes, list) else [], "mended") or ["  nothing to mend"]
    lines += _told(left if isinstance(left, list) else [], "left")
    return "\n".join(lines)


def _told(found: list[Row], word: str) -> list[str]:
    count = Counter(str(one["code"]) for one in found)
    lines: list[str] = []
    for code, number in count.items():
        same = [one for one in found if one["code"] == code]
        lines += [f"  {word:<8} {one['message']} [{code}]" for one in same[:_FEW]]
        if number > _FEW:
            lines.append(f"  {word:<8} and {number - _FEW} more [{code}]")
    return lines
