"""`hubtool merge`: several adapters as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._algebra import architecture_option, dtype_option
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import FILE, dry_run_option, force_option
from hubtool.cli._output import answer, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@click.argument("files", nargs=-1, required=True, metavar="FILE[:W[:te=T]]...")
@click.option("-o", "--output", required=True, type=FILE, metavar="FILE", help="Where to write.")
@click.option(
    "--method",
    type=click.Choice(["concat", "svd", "ties", "dare"]),
    help="concat is exact, the ranks add up; svd, ties and dare have a rank. Default: svd with --rank or --energy.",
)
@click.option("--rank", type=click.IntRange(1), metavar="N", help="The rank; default: the largest of any input.")
@click.option("--conv-rank", type=click.IntRange(1), metavar="N", help="The same for convolutions larger than 1x1.")
@click.option("--energy", type=float, metavar="E", help="The smallest ranks that hold this share (0 to 1) of each sum.")
@click.option("--density", type=float, metavar="D", help="Share of elements kept: ties 0.2, dare 0.5 by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which elements dare drops.")
@click.option("--block-weights", multiple=True, metavar="[I:]SPEC",
              help="Strengths by block, of the I-th file or of all: IN04-08=0.5,MID=0 or a list of numbers.")  # fmt: skip
@click.option("--to", "dialect", metavar="DIALECT", help="Dialect of the keys; default: the first file's.")
@dtype_option
@architecture_option
@force_option
@dry_run_option
def command(
    files: tuple[str, ...], output: Path, block_weights: tuple[str, ...], dtype: str | None, **options: object
) -> None:
    """Merge adapters: one file that does what all of them do at these strengths together.

    A strength follows its file; te= is that of the text encoders. Files may differ in rank, dialect, family and
    dtype, but not in the model that they are for.

    \b
    hubtool merge style.safetensors:0.7 subject.safetensors:0.4 -o both.safetensors
    hubtool merge a.safetensors b.safetensors:0.5:te=0 -o small.safetensors --rank 32
    hubtool merge a.safetensors b.safetensors -o ties.safetensors --method ties --rank 64
    hubtool merge a.safetensors b.safetensors -o mix.safetensors --block-weights 2:OUT00-05=0
    """
    from hubtool.cli._algebra import dtype_of, module_bar, sources
    from hubtool.cli._algebra_text import merging_text
    from hubtool.operations.merge import MergeOptions, merge

    with module_bar(output.name) as bar:
        wanted = MergeOptions(**options, dtype=dtype_of(dtype), workers=current_run().jobs, progress=bar)  # type: ignore[arg-type]  # click checked each
        found = merge(sources(files, block_weights), output, wanted)
    answer(row_of(found), lambda: merging_text(found))
