"""How `install` reads its options and shows what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli._errors import describe
from hubtool.cli._output import Row, row_of, say
from hubtool.library.acquire import Order
from hubtool.library.install import Wish
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.target import choose_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.library.acquire import Outcome, Report
    from hubtool.settings import Settings

_LEADS = {"installed": "Installed", "present": "Already installed", "planned": "Would be installed"}


def order_from(settings: Settings, options: Mapping[str, object], watch: Callable[[str], Report]) -> Order:
    """What is wanted, from the command's options.

    Raises:
        UsageProblem: no such target or sidecar, or two folders named.
    """
    to, target, sidecar, way = options["to"], options["target"], options["sidecar"], options["link"]
    place = choose_place(settings, str(target) if target else None, to if isinstance(to, Path) else None)
    wish = Wish(
        name=str(options["name"]),
        subdir=str(options["subdir"]),
        dialect=str(options["convert"]),
        sidecars=choose_sidecars(None if sidecar is None else str(sidecar), place.target.sidecars),
        preview=not options["no_preview"],
        way="hard" if way == "hard" else "sym" if way == "sym" else "copy",
        force=bool(options["force"]),
        dry_run=bool(options["dry_run"]),
    )
    return Order(place, wish, str(options["file"]), watch)


def outcome_row(outcome: Outcome) -> Row:
    """The contract's row."""
    row: Row = {"spec": outcome.spec, "status": "failed", "path": None, "error": None}
    if outcome.error:
        return row | {"error": describe(outcome.error)}
    return row | row_of(outcome.installation)


def outcome_text(row: Row) -> str:
    """The path on stdout; what a person wants to know besides on stderr."""
    say(f"{_LEADS[str(row['status'])]}, to be used as {row['prompt']}:")
    words, notes = row["trigger_words"], row["notes"]
    if isinstance(words, list) and words:
        say(f"Trigger words: {', '.join(map(str, words))}")
    for note in notes if isinstance(notes, list) else []:
        say(f"Note: {note}")
    return str(row["path"])
