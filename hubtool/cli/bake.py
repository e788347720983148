"""`hubtool bake`: adapters written into a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._algebra import DTYPES, architecture_option
from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import FILE, dry_run_option, force_option
from hubtool.cli._output import answer, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@click.argument("checkpoint", type=FILE, metavar="CHECKPOINT")
@click.argument("files", nargs=-1, required=True, metavar="FILE[:W[:te=T]]...")
@click.option(
    "-o", "--output", required=True, type=FILE, metavar="FILE|DIR", help="Where to write: a folder for a folder."
)
@click.option("--reverse", is_flag=True, help="Take the adapters out again.")
@click.option(
    "--dtype", type=click.Choice(sorted(DTYPES)), help="Store all weights in this dtype; default: as they are."
)
@click.option("--block-weights", multiple=True, metavar="[I:]SPEC", help="Strengths by block, as `merge` has them.")
@architecture_option
@force_option
@dry_run_option
def command(
    checkpoint: Path,
    files: tuple[str, ...],
    output: Path,
    block_weights: tuple[str, ...],
    dtype: str | None,
    **options: object,
) -> None:
    """Bake adapters into a checkpoint: a model that acts as if they were always loaded.

    CHECKPOINT is a safetensors file, a diffusers folder or an index of shards. Adapters of every family can be baked;
    those that are sums of factors can be taken out again.

    \b
    hubtool bake sd_xl_base_1.0.safetensors style.safetensors:0.8 -o styled.safetensors
    hubtool bake model/ a.safetensors b.safetensors:0.5:te=0 -o baked-model/
    hubtool bake styled.safetensors style.safetensors:0.8 --reverse -o plain.safetensors
    """
    from hubtool.cli._algebra import dtype_of, module_bar, sources
    from hubtool.cli._algebra_text import baking_text
    from hubtool.operations.bake import BakeOptions, bake

    with module_bar(output.name) as bar:
        wanted = BakeOptions(**options, dtype=dtype_of(dtype), progress=bar)  # type: ignore[arg-type]  # click checked each
        found = bake(checkpoint, sources(files, block_weights), output, wanted)
    answer(row_of(found), lambda: baking_text(found))
