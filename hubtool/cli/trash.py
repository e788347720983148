"""`hubtool trash`: LoRAs out of sight, and back with `restore`."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@dry_run_option
def command(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Put installed LoRAs, with sidecars and pictures, into a hidden folder of their LoRA folder.

    No UI lists them there; `hubtool restore` brings them back. Delete the folder .hubtool-trash to be rid of them.

    \b
    hubtool trash old-style
    """
    from hubtool.cli._tidying import moved_rows, tidier

    with tidier(dry_run=dry_run) as mover:
        moved_rows(mover.trash(names))
