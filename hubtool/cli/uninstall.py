"""`hubtool uninstall`: installed LoRAs taken away."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import Row, answer_each, row_of, say


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--target", metavar="NAME[=ROOT]", help="Only from this UI's LoRA folder. Default: wherever the name is found."
)
@dry_run_option
def command(names: tuple[str, ...], target: str | None, *, dry_run: bool) -> None:
    """Delete LoRAs that were installed, with the sidecars and the preview that came with them.

    Files that somebody else put there, and sidecars that were edited since, stay; `hubtool trash` puts away anything.

    \b
    hubtool uninstall pixel-art
    hubtool uninstall pixel-art --target comfyui=~/ComfyUI
    """
    from hubtool.library.finding import Finder
    from hubtool.library.scan import fresh_index
    from hubtool.library.target import choose_place
    from hubtool.library.uninstalling import uninstall, uninstall_everywhere

    settings = current_run().settings()
    folder = choose_place(settings, target).folder if target else None
    with fresh_index(settings, say) as index:
        finder = Finder(index, settings, folder)

        def removed(name: str) -> Row:
            work = uninstall if folder else uninstall_everywhere
            return {"name": name} | row_of(work(index, finder.find(name, copies_alike=True), dry_run=dry_run))

        answer_each(names, removed, _text, name="name")


def _text(row: Row) -> str:
    kept = row["kept"]
    for path in kept if isinstance(kept, list) else []:
        say(f"Kept, for it was changed: {path}")
    gone = row["removed"]
    return "\n".join(map(str, gone)) if isinstance(gone, list) else ""
