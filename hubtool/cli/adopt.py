"""`hubtool adopt`: a manifest and a lock from what is there."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._output import answer, row_of


@click.command(cls=HubtoolCommand)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def command(folder: Path) -> None:
    """Write loras.toml and loras.lock for every LoRA of the folder DIR, into the current folder.

    Files are hashed; those whose hub is known are locked to their version, others to their hash.

    \b
    hubtool adopt ~/stable-diffusion-webui/models/Lora
    """
    from hubtool.cli._project import project

    with project(to=folder) as work:
        locked = work.adopt()
        answer(
            {"path": work.lock_path, "loras": [row_of(one) for one in locked]},
            lambda: "\n".join(one.name for one in locked),
        )
