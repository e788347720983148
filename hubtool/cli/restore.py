"""`hubtool restore`: LoRAs back from the trash."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@dry_run_option
def command(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Bring LoRAs back from the trash to where they were; without NAME, those that were put there last.

    \b
    hubtool restore
    hubtool restore old-style
    """
    from hubtool.cli._tidying import moved_rows, tidier

    with tidier(dry_run=dry_run) as mover:
        moved_rows(mover.restore(names))
