"""`hubtool check`: which programs load a file?"""

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
@click.option("--for", "targets", metavar="TARGET,…", help="Programs, by id; all of them if not given.")
@click.option("--base", metavar="SPEC|ARCHITECTURE", help='The base model they run: "SDXL 1.0", Pony, flux1.')
def command(files: tuple[Path, ...], targets: str | None, base: str | None) -> None:
    """Say which programs load a file, what they lose of it, and which conversion mends that.

    Programs: a1111, comfyui, diffusers, fooocus, forge, invokeai, sdnext, swarmui. Exits with 12 unless all of them load all.

    \b
    hubtool check style.safetensors
    hubtool check style.safetensors --for comfyui,forge --base "Flux.1 D"
    """
    from hubtool.cli._checking import asked_for, check_text, exit_of
    from hubtool.operations.check import check

    wanted = asked_for(targets)

    def work(path: Path) -> Row:
        row = row_of(check(path, wanted, base))
        return row | {"_exit": exit_of(row)}

    answer_each(files, work, check_text)
