"""`hubtool inspect`: what a file is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import files_argument
from hubtool.cli._output import Row, answer_each, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@files_argument
@click.option("--hashes", is_flag=True, help="Compute every hash kind (reads the whole file).")
@click.option("--values", is_flag=True, help="Look at the values too: NaN, infinity, all zeros.")
@click.option("--architecture", metavar="A", help="Read the keys as this architecture's.")
def command(files: tuple[Path, ...], architecture: str | None, *, hashes: bool, values: bool) -> None:
    """Say what a file is: dialect, architecture, rank, trigger words.

    \b
    hubtool inspect style.safetensors
    hubtool inspect --json --hashes *.safetensors
    """
    from hubtool.cli._inspection import inspection_text, with_values
    from hubtool.operations.inspect import inspect

    def work(path: Path) -> Row:
        row = row_of(inspect(path, hashes=hashes, architecture=architecture))
        return with_values(path, row) if values else row

    answer_each(files, work, inspection_text)
