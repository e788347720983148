"""What the commands on adapters' changes share: progress by module, names of outputs, tables of figures."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubtool.cli._output import show_progress
from hubtool.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hubtool.operations.sources import Source

    Report = Callable[[int, int], None]

DTYPES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32", "f16": "F16", "f32": "F32", "fp64": "F64"}
dtype_option = click.option(
    "--dtype", type=click.Choice(sorted(DTYPES)), help="Store the weights in this dtype; default: the input's."
)
architecture_option = click.option("--architecture", metavar="A", help="Read the keys as this architecture's.")
to_option = click.option("--to", "dialect", metavar="DIALECT", help="Dialect of the keys; default: the input's.")


@contextlib.contextmanager
def module_bar(title: str) -> Iterator[Report | None]:
    """A bar of modules done, on stderr, when a person is looking; else None."""
    if not show_progress():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def output_for(source: Path, output: str | None, ending: str) -> Path:
    """The file named, or a name of its own in the folder named, or one beside the input."""
    name = f"{source.stem}.{ending}.safetensors"
    if output is None:
        return source.with_name(name)
    wanted = Path(output)
    return wanted / name if wanted.is_dir() or output.endswith(("/", os.sep)) else wanted


def sources(files: Sequence[str], block_weights: Sequence[str] = ()) -> list[Source]:
    """Files with their strengths; block weights go to the file whose number stands before them, else to all.

    Raises:
        UsageProblem: a number that no file has, or a weight that is none.
    """
    from hubtool.operations.model_blocks import parse_block_weights
    from hubtool.operations.sources import parse_source

    found = [parse_source(text) for text in files]
    for text in block_weights:
        number, colon, spec = text.partition(":")
        chosen = range(len(found)) if not colon else [int(number) - 1 if number.isdecimal() else -1]
        if any(not 0 <= index < len(found) for index in chosen):
            raise UsageProblem(f"There is no file number {number!r}; there are {len(found)}.", hint="Count from 1.")
        weights = parse_block_weights(spec if colon else text)
        found = [replace(source, blocks=weights) if i in chosen else source for i, source in enumerate(found)]
    return found


def dtype_of(name: str | None) -> str | None:
    """The container's name of a dtype."""
    return None if name is None else DTYPES[name]


def ranks(found: object) -> str:
    """`rank 16`, `rank 4 to 32`."""
    least, most = getattr(found, "min", 0), getattr(found, "max", 0)
    return f"rank {least}" if least == most else f"rank {least} to {most}"


def size(size_bytes: int | None) -> str:
    """Bytes for people."""
    return "" if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"
