"""`hubtool remove`: a LoRA out of the project's manifest."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import Row, answer_each


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@dry_run_option
def command(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Take LoRAs out of loras.toml and loras.lock; the files stay until `hubtool sync --prune`.

    \b
    hubtool remove pixel-art
    """
    from hubtool.cli._project import project

    with project(dry_run=dry_run) as work:

        def removed(name: str) -> Row:
            work.remove(name)
            return {"name": name}

        answer_each(names, removed, lambda row: str(row["name"]), name="name")
