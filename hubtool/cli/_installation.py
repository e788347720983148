"""How `install` reads its options and shows what it did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli._errors import describe
from hubtool.cli._output import Row, row_of, say
from hubtool.library.acquire import Order
from hubtool.library.install import Wish
from hubtool.library.prompts import DIALECTS
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.target import choose_place, target_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.hubs.transfer import Watch
    from hubtool.library.spreading import Spread
    from hubtool.library.target import Place
    from hubtool.settings import Settings

_LEADS = {"installed": "Installed", "present": "Already installed", "planned": "Would be installed"}


def orders_from(settings: Settings, options: Mapping[str, object], watch: Watch) -> list[Order]:
    """What is wanted, from the command's options: one order a LoRA folder.

    Raises:
        UsageProblem: no such target or sidecar, or two folders named.
    """
    to, targets = options["to"], options["target"]
    names = [str(name) for name in targets] if isinstance(targets, tuple) else []
    if isinstance(to, Path):
        places = [choose_place(settings, names[0] if names else None, to)]
    else:
        places = [choose_place(settings, name) for name in names or [""]]
    return [Order(place, _wish(place, options), str(options["file"]), watch) for place in dict.fromkeys(places)]


def _wish(place: Place, options: Mapping[str, object]) -> Wish:
    sidecar, way = options["sidecar"], options["link"]
    return Wish(
        name=str(options["name"]),
        subdir=str(options["subdir"]),
        dialect=str(options["convert"]),
        sidecars=choose_sidecars(None if sidecar is None else str(sidecar), place.target.sidecars),
        preview=not options["no_preview"],
        way="hard" if way == "hard" else "sym" if way == "sym" else "copy",
        force=bool(options["force"]),
        dry_run=bool(options["dry_run"]),
    )


def outcome_row(done: Spread) -> Row:
    """The contract's row, and where else the file is."""
    row: Row = {"spec": done.first.spec, "status": "failed", "path": None, "error": None}
    if done.first.installation:
        row |= row_of(done.first.installation)
    return row | {"also": list(map(str, done.also)), "error": describe(done.error) if done.error else None}


def outcome_text(row: Row) -> str:
    """The path on stdout; what a person wants to know besides on stderr."""
    grammar = DIALECTS[target_named(str(row["target"])).grammar]
    use = f"to be used as {row['prompt']}" if grammar.reads else "to be imported with Scan Folder in its model manager"
    say(f"{_LEADS[str(row['status'])]}, {use}:")
    words, notes = row["trigger_words"], row["notes"]
    if isinstance(words, list) and words:
        say(f"Trigger words: {', '.join(map(str, words))}")
    for note in notes if isinstance(notes, list) else []:
        say(f"Note: {note}")
    also = row["also"]
    return "\n".join([str(row["path"]), *(map(str, also) if isinstance(also, list) else ())])
