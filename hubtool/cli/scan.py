"""`hubtool scan`: the index brought up to date."""

from __future__ import annotations

import time
from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, say


@click.command(cls=HubtoolCommand)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR...]")
@click.option("--target", metavar="NAME", help="The UI that reads the folders. Default: the configured one.")
@click.option("--reread", is_flag=True, help="Read every header again, whatever size and time say.")
def command(folders: tuple[Path, ...], target: str | None, *, reread: bool) -> None:
    """Read what is new or changed in the LoRA folders; a DIR is kept up with from now on.

    Only headers are read, and only of files whose size, time or inode changed.

    \b
    hubtool scan
    hubtool scan ~/ComfyUI/models/loras --target comfyui
    """
    from hubtool.library.scan import add_folders, open_library, refresh, spoken

    settings = current_run().settings()
    started = time.monotonic()
    with open_library(settings, say) as index:
        add_folders(index, settings, folders, target)
        report = refresh(index, settings, spoken(say), reread=reread)
    seconds = round(time.monotonic() - started, 3)
    counts = [(len(getattr(report, name)), name) for name in ("added", "changed", "removed", "unreadable")]
    fields = {name: getattr(report, name) for _, name in counts} | {"seconds": seconds}
    answer(fields, lambda: ", ".join(f"{count} {name}" for count, name in counts) + f" in {seconds} s")
