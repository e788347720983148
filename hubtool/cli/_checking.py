"""What `check` asks for, how it answers people, and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.errors import UsageProblem
from hubtool.operations.loader import loader, loaders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.cli._output import Row

_MARKS = {"all": "✓", "some": "partly", "none": "✗"}
_SHOWN = 4  # reasons of one program that are told without --verbose


def asked_for(text: str | None) -> tuple[str, ...]:
    """Ids of the programs named, in the order given; all for none.

    Raises:
        UsageProblem: one of them is unknown, or there is only a comma.
    """
    if text is None:
        return tuple(loaders())
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    if not names:
        raise UsageProblem("No target is named.", hint=f"Choose from {', '.join(loaders())}.")
    return tuple(loader(name).id for name in names)


def exit_of(row: Row) -> int:
    """12 unless every program loads every module."""
    return 0 if all(verdict["loads"] == "all" for verdict in _targets(row).values()) else 12


def check_text(row: Row) -> str:
    """One line a program, its reasons below it, and the conversion that helps."""
    targets = _targets(row)
    lines = [f"{row['path']}: {row['architecture']}, {row['dialect']}"]
    width = max(map(len, targets))
    for id, verdict in targets.items():
        mark = _MARKS[str(verdict["loads"])]
        count = "" if mark == "✓" else f"  {verdict['modules_loaded']} of {verdict['modules']} modules"
        lines.append(f"  {id:<{width}}  {mark}{count}")
        lines += _reasons(verdict)
        if verdict["convert"]:
            lines.append(f"      mend: {verdict['convert']}{_afterwards(verdict['then'])}")
    return "\n".join(lines)


def _afterwards(then: object) -> str:
    """What is still wrong with the file that the command writes."""
    if not isinstance(then, dict) or (then["loads"] == "all" and not then["reasons"]):
        return ""
    left = "" if then["loads"] == "all" else f"{then['modules_loaded']} of {then['modules']} modules; "
    return f"  # then: {left}{' '.join(then['reasons'])}"


def _reasons(verdict: Mapping[str, object]) -> list[str]:
    findings = verdict["findings"] if isinstance(verdict["findings"], list) else []
    if current_run().verbose:
        return [f"      {found['says']} [{found['source']}]" for found in findings]
    lines = [f"      {found['says']}" for found in findings[:_SHOWN]]
    return lines + ([f"      and {len(findings) - _SHOWN} more reasons (--verbose)"] if len(findings) > _SHOWN else [])


def _targets(row: Row) -> dict[str, dict[str, object]]:
    targets = row["targets"]
    return targets if isinstance(targets, dict) else {}
