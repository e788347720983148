"""`hubtool list`: what is installed."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.library.listing import Listed

_PAGE = 100  # rows that a terminal gets where nothing is said


@click.command(cls=HubtoolCommand)
@click.argument("query", nargs=-1)
@click.option("--base", default="", metavar="TEXT", help="Base model, or a part of its name: Pony, SDXL.")
@click.option("--architecture", default="", metavar="ID", help="What the file fits: sd1, sdxl, flux1 …")
@click.option("--dialect", default="", metavar="ID", help="How its keys are spelt: kohya, diffusers …")
@click.option("--parametrization", default="", metavar="ID", help="What it is made of: lora, loha, lokr …")
@click.option("--tag", default="", metavar="TAG", help="One of your tags (`hubtool mark NAME --tag TAG`).")
@click.option("--creator", default="", metavar="NAME", help="Who made it.")
@click.option("--favourite", is_flag=True, help="Your favourites only.")
@click.option("--no-triggers", is_flag=True, help="Those without trigger words.")
@click.option("--unused", is_flag=True, help="Those that no picture was made with (`hubtool usage DIR` counts).")
@click.option("--sort", "order", type=click.Choice(["path", "newest", "largest", "rating", "used"]), help="Order.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show the first N only; a terminal gets 100.")
def command(query: tuple[str, ...], order: str | None, limit: int | None, **wanted: object) -> None:
    """Show what is installed, or what matches the words of QUERY.

    Looks into every LoRA folder that was ever installed into and into the one of the configured target, so files that
    you put there by hand are found too. With --library, shows only what lies below that folder. With QUERY, the most
    relevant come first, unless --sort says otherwise.

    \b
    hubtool list
    hubtool list pixel --base sdxl --favourite
    hubtool list --sort newest --limit 20
    hubtool list --json | jq -r '.results[].path'
    """
    from hubtool.library.listing import Question, listing
    from hubtool.library.scan import fresh_index
    from hubtool.library.searching import Filter

    run = current_run()
    chosen = Filter(**wanted, below=run.library)  # type: ignore[arg-type]  # options of the same names
    page = None if limit or run.json or not sys.stdout.isatty() else _PAGE
    with fresh_index(run.settings(), say, glance=True) as index:
        rows = listing(index, Question(" ".join(query), chosen, order or "", page + 1 if page else limit))
    answer({"results": rows}, lambda: _text(rows[:page]))
    if page and len(rows) > page:
        say(f"The first {page}. Words or options show fewer, `--limit 1000` more.")


def _text(rows: Sequence[Listed]) -> str:
    if not rows:
        say("Nothing is installed here, or nothing matches. `hubtool install SPEC` installs a LoRA.")
        return ""
    called = Counter(row.name for row in rows)
    cells = [
        (
            row.name if called[row.name] == 1 else str(row.path),  # two of one name are told apart, as commands need it
            row.base_model or row.architecture or "?",
            " ".join(row.parametrizations) or "?",
            row.target,
            row.problem or ", ".join(row.trigger_words),
        )
        for row in rows
    ]
    return table(cells, ("NAME", "BASE", "KIND", "TARGET", "TRIGGER WORDS"))
