"""`hubtool diff`: what two files have in common and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._algebra import architecture_option
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import FILE
from hubtool.cli._output import answer, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@click.argument("a", type=FILE, metavar="A")
@click.argument("b", type=FILE, metavar="B")
@architecture_option
def command(a: Path, b: Path, architecture: str | None) -> None:
    """Compare two files: metadata, tensors, and what they do to the model, whatever their dialect and family.

    \b
    hubtool diff style.safetensors style.comfyui.safetensors
    hubtool diff epoch-8.safetensors epoch-9.safetensors --json
    """
    from hubtool.cli._algebra import module_bar
    from hubtool.cli._comparison_text import diff_text
    from hubtool.operations.diff import diff

    with module_bar(a.name) as bar:
        found = diff(a, b, architecture, workers=current_run().jobs, progress=bar)
    answer(row_of(found), lambda: diff_text(found))
