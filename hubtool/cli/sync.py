"""`hubtool sync`: the LoRA folder as the lock has it."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import finish, row_of, show_rows


@click.command(cls=HubtoolCommand)
@click.option(
    "--frozen", is_flag=True, help="Fail if loras.lock is not what loras.toml asks for, instead of changing it."
)
@click.option("--prune", is_flag=True, help="Put everything else of the LoRA folder into its trash.")
@click.option("--target", metavar="NAME[=ROOT]", help="The UI whose LoRA folder is meant. Default: the configured one.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="This very LoRA folder.")
@dry_run_option
def command(target: str | None, to: Path | None, *, frozen: bool, prune: bool, dry_run: bool) -> None:
    """Make the LoRA folder have exactly the files of loras.lock, byte for byte.

    Looks in the whole library first, by hash, then on the hubs by hash, then by id.

    \b
    hubtool sync
    hubtool sync --frozen --target comfyui=~/ComfyUI
    """
    from hubtool.cli._project import project

    with project(target, to, dry_run=dry_run) as work:
        done = work.sync(frozen=frozen, prune=prune)
    rows = [row_of(one) | {"error": describe(one.error) if one.error else None} for one in done]
    show_rows(rows, lambda row: f"{row['status']}: {row['path']}")
    finish([exit_code(one.error.code) if one.error else 0 for one in done])
