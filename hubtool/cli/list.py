"""`hubtool list`: what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.library.listing import Listed


@click.command(cls=HubtoolCommand)
@click.argument("query", nargs=-1)
def command(query: tuple[str, ...]) -> None:
    """Show what is installed, or what matches the words of QUERY.

    Looks into every LoRA folder that was ever installed into and into the one of the configured target, so files that
    you put there by hand are found too. With --library, shows only what lies below that folder.

    \b
    hubtool list
    hubtool list pixel sdxl
    hubtool list --json | jq -r '.results[].path'
    """
    from hubtool.library.listing import listing
    from hubtool.library.scan import fresh_index

    run = current_run()
    with fresh_index(run.settings(), say) as index:
        rows = listing(index, " ".join(query), run.library)
    answer({"results": rows}, lambda: _text(rows))


def _text(rows: Sequence[Listed]) -> str:
    if not rows:
        say("Nothing is installed here, or nothing matches. `hubtool install SPEC` installs a LoRA.")
        return ""
    cells = [
        (
            row.name,
            row.base_model or row.architecture or "?",
            " ".join(row.parametrizations) or "?",
            row.target,
            row.problem or ", ".join(row.trigger_words),
        )
        for row in rows
    ]
    return table(cells, ("NAME", "BASE", "KIND", "TARGET", "TRIGGER WORDS"))
