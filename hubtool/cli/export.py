"""`hubtool export`: the lock for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._output import answer


@click.command(cls=HubtoolCommand)
@click.option(
    "--format",
    "form",
    default="aria2",
    show_default=True,
    metavar="aria2|comfy-lock|credits|prompts",
    help="What to write.",
)
@click.option("--target", metavar="NAME[=ROOT]", help="The UI whose LoRA folder is meant. Default: the configured one.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="This very LoRA folder.")
def command(form: str, target: str | None, to: Path | None) -> None:
    """Print loras.lock as a download list, as ComfyUI's lock or as credits, or the sets of loras.toml as prompts.

    \b
    hubtool export > list.txt && aria2c -i list.txt
    hubtool export --format credits
    """
    from hubtool.cli._project import project

    with project(target, to) as work:
        text = work.exported(form)
    answer({"format": form, "text": text}, lambda: text.rstrip("\n"))
