"""`hubtool ui`: the UIs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import current_run
from hubtool.cli._group import HubtoolGroup
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.library.uis import Ui


@click.group(cls=HubtoolGroup)
def command() -> None:
    """Find the UIs on this machine and give them names for --target.

    \b
    hubtool ui detect
    hubtool ui add comfyui=~/ComfyUI
    hubtool install 120096 --target comfyui
    """


@command.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR...]")
def detect(folders: tuple[Path, ...]) -> None:
    """Look for UIs in the folders DIR, or where people usually put them.

    \b
    hubtool ui detect ~ /opt
    """
    from hubtool.library import uis

    found = uis.detect(current_run().settings(), folders or uis.usual_places())
    _show(found, "No UI was found. `hubtool ui add TARGET=ROOT` makes one known.")


@command.command("list")
def list_() -> None:
    """Show the UIs that have a name here.

    \b
    hubtool ui list
    """
    from hubtool.library.uis import known_uis

    _show(known_uis(current_run().settings()), "No UI has a name yet. `hubtool ui detect` looks for them.")


@command.command()
@click.argument("place", metavar="NAME=ROOT")
@dry_run_option
@click.option(
    "--share", type=click.Path(path_type=Path), metavar="DIR", help="Let this ComfyUI read the LoRA folder DIR, too."
)
def add(place: str, share: Path | None, *, dry_run: bool) -> None:
    """Make the UI in the folder ROOT known as NAME, for `--target NAME`; its LoRA folders are kept up with.

    NAME is a target (a1111, forge, sdnext, comfyui, invokeai, swarmui, fooocus, diffusers), or any word where the files in
    ROOT say which UI it is.

    \b
    hubtool ui add comfyui=~/ComfyUI
    hubtool ui add comfyui=~/ComfyUI --share ~/stable-diffusion-webui/models/Lora
    """
    from hubtool.library.adding_ui import Addition, added_ui

    run = current_run()
    found = added_ui(run.settings(), run.config, Addition(place, share, dry_run), say)
    _show([found], "")


def _show(found: Sequence[Ui], nothing: str) -> None:
    rows = [
        {"name": ui.name or None, "target": ui.target, "root": ui.root, "folders": ui.folders, "problem": ui.problem}
        for ui in found
    ]
    for ui in found:
        if ui.problem:
            say(ui.problem)
    if not found and nothing:
        say(nothing)
    cells = [(ui.word, ui.title, ", ".join(map(str, ui.folders))) for ui in found]
    answer({"results": rows}, lambda: table(cells, ("TARGET", "UI", "LORA FOLDERS")) if cells else "")
