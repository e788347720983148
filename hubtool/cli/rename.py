"""`hubtool rename`: another name for an installed LoRA."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option


@click.command(cls=HubtoolCommand)
@click.argument("name")
@click.argument("new")
@dry_run_option
def command(name: str, new: str, *, dry_run: bool) -> None:
    """Give the installed LoRA NAME the name NEW, with its sidecars and pictures.

    Prompts that use the old name can be changed with `hubtool prompt relink`.

    \b
    hubtool rename pixel-meadow-v2 pixel-meadow
    """
    from hubtool.cli._tidying import moved_rows, tidier

    with tidier(dry_run=dry_run) as mover:
        moved_rows([mover.rename(name, new)])
