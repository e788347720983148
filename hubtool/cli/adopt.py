"""`hubtool adopt`: a manifest and a lock from what is there."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, finish, row_of, say


@click.command(cls=HubtoolCommand)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@dry_run_option
def command(folder: Path, *, dry_run: bool) -> None:
    """Write loras.toml and loras.lock for every LoRA of the folder DIR and its subfolders, into the current folder.

    Files are hashed; those whose hub is known are locked to their version, others to their hash. Broken files and pickles, and
    names that other systems cannot have, are left out, with a note each.

    \b
    hubtool adopt ~/stable-diffusion-webui/models/Lora
    """
    from hubtool.cli._project import project_of

    with project_of(folder, dry_run=dry_run) as work:
        done = work.adopt()
    if not done.locked and not done.left_out:
        say(f"There is no LoRA in {work.place.folder}; nothing was written.")
    left_out = [{"path": one.path, "error": describe(one.error)} for one in done.left_out]
    loras = [row_of(one) for one in done.locked]
    answer(
        {"path": work.lock_path, "loras": loras, "left_out": left_out},
        lambda: "\n".join(one.name for one in done.locked),
    )
    if not done.locked:
        finish([exit_code(one.error.code) for one in done.left_out])
