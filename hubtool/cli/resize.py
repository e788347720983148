"""`hubtool resize`: another rank for a LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._algebra import architecture_option, dtype_option, to_option
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import dry_run_option, file_argument, force_option
from hubtool.cli._output import answer, row_of

if TYPE_CHECKING:
    from pathlib import Path


def _alpha(_: click.Context, __: click.Parameter, value: str) -> str | float:
    """`rank`, `keep`, or a positive number."""
    if value in {"rank", "keep"}:
        return value
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise click.BadParameter(f"{value!r} is neither rank, keep nor a positive number.")
    return number


@click.command(cls=HubtoolCommand)
@file_argument
@click.option("-o", "--output", metavar="FILE|DIR", help="Where to write; beside the input if not given.")
@click.option("--rank", type=click.IntRange(1), metavar="N", help="The rank; with another rule, the most it may give.")
@click.option("--conv-rank", type=click.IntRange(1), metavar="N", help="The same for convolutions larger than 1x1.")
@click.option(
    "--energy", type=float, metavar="E", help="The smallest ranks that hold this share (0 to 1) of each change."
)
@click.option("--sv-ratio", "--sv_ratio", type=float, metavar="R", help="Keep singular values above the largest / R.")
@click.option(
    "--sv-fro", "--sv_fro", type=float, metavar="F", help="Keep this share of each Frobenius norm (energy F²)."
)
@click.option("--sv-cumulative", "--sv_cumulative", type=float, metavar="C", help="Keep this share of the values' sum.")
@click.option("--alpha", default="rank", callback=_alpha, metavar="rank|keep|A", show_default=True,
              help="alpha = rank (scale 1), the scale as it was, or this alpha.")  # fmt: skip
@dtype_option
@to_option
@architecture_option
@force_option
@dry_run_option
def command(file: Path, output: str | None, dtype: str | None, **options: object) -> None:
    """Change the rank of a LoRA, LoHa or LoKr: the nearest LoRA of that rank, module by module.

    \b
    hubtool resize style.safetensors --rank 16
    hubtool resize style.safetensors --energy 0.95 --rank 64 -o small.safetensors
    hubtool resize locon.safetensors --rank 32 --conv-rank 8 --dtype fp16
    hubtool resize style.safetensors --sv-ratio 20
    """
    from hubtool.cli._algebra import dtype_of, module_bar, output_for
    from hubtool.cli._algebra_text import resizing_text
    from hubtool.operations.resize import ResizeOptions, resize

    with module_bar(file.name) as bar:
        wanted = ResizeOptions(**options, dtype=dtype_of(dtype), workers=current_run().jobs, progress=bar)  # type: ignore[arg-type]  # click checked each
        method, value = wanted.method
        found = resize(file, output_for(file, output, f"{method.replace('_', '-')}{value:g}"), wanted)
    answer(row_of(found), lambda: resizing_text(found))
