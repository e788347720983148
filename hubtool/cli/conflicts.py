"""`hubtool conflicts`: how several adapters get along."""

from __future__ import annotations

import click

from hubtool.cli._algebra import architecture_option
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, row_of


@click.command(cls=HubtoolCommand)
@click.argument("files", nargs=-1, required=True, metavar="FILE[:W[:te=T]]...")
@click.option("--block-weights", multiple=True, metavar="[I:]SPEC", help="Strengths by block, as `merge` has them.")
@architecture_option
def command(files: tuple[str, ...], block_weights: tuple[str, ...], architecture: str | None) -> None:
    """Say how adapters get along: the angle between their changes, who overpowers whom, and better strengths.

    \b
    hubtool conflicts style.safetensors:0.8 subject.safetensors
    hubtool conflicts a.safetensors b.safetensors c.safetensors --json
    """
    from hubtool.cli._algebra import module_bar, sources
    from hubtool.cli._comparison_text import conflicts_text
    from hubtool.operations.conflicts import conflicts

    with module_bar("conflicts") as bar:
        found = conflicts(sources(files, block_weights), architecture, workers=current_run().jobs, progress=bar)
    answer(row_of(found), lambda: conflicts_text(found))
