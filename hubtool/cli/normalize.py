"""`hubtool normalize`: keys and metadata made regular."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option, files_argument, force_option
from hubtool.cli._output import Row, answer_each, row_of

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=HubtoolCommand)
@files_argument
@click.option("-o", "--output", metavar="FILE|DIR", help="Where to write; beside each input if not given.")
@click.option("--in-place", is_flag=True, help="Replace the inputs; those that are regular are not touched.")
@click.option("--architecture", metavar="A", help="Read the keys as this architecture's.")
@force_option
@dry_run_option
def command(files: tuple[Path, ...], output: str | None, **options: object) -> None:
    """Make keys, alphas and metadata regular, in the same dialect and without any loss.

    Mends what `hubtool validate` says it mends: malformed and mixed keys, equal copies, missing alphas, modelspec, hashes.

    \b
    hubtool normalize style.safetensors
    hubtool normalize --in-place *.safetensors
    hubtool normalize style.safetensors --dry-run --json
    """
    from hubtool.cli._normalization import normal_output, normalization_text, normalize_options
    from hubtool.operations.normalize import normalize

    wanted = normalize_options(options, output)

    def work(path: Path) -> Row:
        return row_of(normalize(path, normal_output(path, output, several=len(files) > 1), wanted))

    answer_each(files, work, normalization_text, name="input")
