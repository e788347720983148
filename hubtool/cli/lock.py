"""`hubtool lock`: what exactly the manifest means."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, row_of


@click.command(cls=HubtoolCommand)
@click.option("--upgrade", is_flag=True, help="Ask again for everything: newer versions are taken.")
@click.option("--target", metavar="NAME[=ROOT]", help="The UI whose LoRA folder is meant. Default: the configured one.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="This very LoRA folder.")
@dry_run_option
def command(target: str | None, to: Path | None, *, upgrade: bool, dry_run: bool) -> None:
    """Write loras.lock: ids, sizes and hashes of what loras.toml asks for.

    Only what changed in loras.toml is looked up; nothing is downloaded where the hub publishes hashes.

    \b
    hubtool lock
    hubtool lock --upgrade
    """
    from hubtool.cli._project import project

    with project(target, to, dry_run=dry_run) as work:
        locked = work.lock(upgrade=upgrade)
        lines = [f"{one.name}  {one.sha256[:12]}  {one.spec or one.path}" for one in locked]
        answer({"path": work.lock_path, "loras": [row_of(one) for one in locked]}, lambda: "\n".join(lines))
