"""`hubtool sidecar`: the small files beside LoRAs in which programs keep what they know of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import current_run
from hubtool.cli._group import HubtoolGroup
from hubtool.cli._options import NOTHING_WRITTEN, dry_run_option
from hubtool.cli._output import Row, answer_each, row_of, say, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubtool.library.index import Index
    from hubtool.library.record import Installed

_names = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group(cls=HubtoolGroup)
def command() -> None:
    """Show, write and bring together the sidecars of installed LoRAs.

    \b
    hubtool sidecar show pixel-art
    hubtool sidecar write pixel-art --sidecar lora_manager,stability_matrix
    """


@command.command()
@_names
def show(names: tuple[str, ...]) -> None:
    """Show what header, hub and you say of LoRAs, and which of them is believed where they disagree.

    \b
    hubtool sidecar show pixel-art --json
    """
    from hubtool.library.describing import layers_of

    _each(names, lambda _, model: row_of(layers_of(model)))


@command.command()
@_names
@click.option("--sidecar", metavar="LIST", help="Formats to write. Default: those that the target's UI reads.")
@dry_run_option
def write(names: tuple[str, ...], sidecar: str | None, *, dry_run: bool) -> None:
    """Write sidecars with what is known, or complete those that are there; nothing that you wrote is changed.

    \b
    hubtool sidecar write pixel-art --sidecar swarm
    """
    from hubtool.library.describing import write_sidecars
    from hubtool.library.sidecar import choose_sidecars
    from hubtool.library.target import target_named

    def written(index: Index, model: Installed) -> Row:
        formats = choose_sidecars(sidecar, target_named(model.target).sidecars)
        written = write_sidecars(index, model, formats, dry_run=dry_run)
        for path in dict.fromkeys(one.path(model.path) for one in formats):
            if path not in written and os.path.lexists(path):
                say(f"{path} holds something else and was left alone.")
        return {"written": list(map(str, written))}

    _each(names, written, dry_run=dry_run)


@command.command("import")
@_names
@dry_run_option
def import_(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Take over what other programs' sidecars say of LoRAs: favourites, notes, strengths, trigger words, source.

    \b
    hubtool sidecar import pixel-art
    """
    from hubtool.library.describing import import_sidecars

    _each(names, lambda index, model: row_of(import_sidecars(index, model, dry_run=dry_run)), dry_run=dry_run)


@command.command()
@_names
@dry_run_option
def sync(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Complete every sidecar of LoRAs with what the others know.

    \b
    hubtool sidecar sync pixel-art
    """
    from hubtool.library.describing import sync_sidecars

    def synced(index: Index, model: Installed) -> Row:
        return {"written": list(map(str, sync_sidecars(index, model, dry_run=dry_run)))}

    _each(names, synced, dry_run=dry_run)


def _each(names: tuple[str, ...], work: Callable[[Index, Installed], Row], *, dry_run: bool = False) -> None:
    from hubtool.library.finding import Finder
    from hubtool.library.scan import fresh_index

    if dry_run:
        say(NOTHING_WRITTEN)
    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        finder = Finder(index, settings)

        def done(name: str) -> Row:
            model = finder.find(name)
            return {"name": model.name, "path": str(model.path)} | work(index, model)

        answer_each(names, done, _text, name="name")


def _text(row: Row) -> str:
    lines = [str(row["name"])]
    for key, value in row.items():
        if key in {"name", "error"} or not value:
            continue
        if isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {inner}: {shown(entry)}" for inner, entry in value.items())]
        else:
            lines.append(f"  {key}: {shown(value)}")
    return "\n".join(lines)
