"""`hubtool stats`: what an adapter does, in figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._algebra import architecture_option
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import file_argument
from hubtool.cli._output import answer, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@file_argument
@architecture_option
def command(file: Path, architecture: str | None) -> None:
    """Say what an adapter does, in figures: norms by block, ranks as stored and as used.

    \b
    hubtool stats style.safetensors
    hubtool stats style.safetensors --json
    """
    from hubtool.cli._algebra import module_bar
    from hubtool.cli._comparison_text import stats_text
    from hubtool.operations.stats import stats

    with module_bar(file.name) as bar:
        found = stats(file, architecture, workers=current_run().jobs, progress=bar)
    answer(row_of(found), lambda: stats_text(found))
