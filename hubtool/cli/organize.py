"""`hubtool organize`: LoRAs sorted into folders."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--template", default="{base_model}", show_default=True, metavar="TEMPLATE", help="Folder of each file.")
@click.option("--undo", is_flag=True, help="Take back the last rename, organize or trash.")
@dry_run_option
def command(names: tuple[str, ...], template: str, *, undo: bool, dry_run: bool) -> None:
    """Sort installed LoRAs into subfolders of their LoRA folder, with sidecars and pictures.

    Without NAME all of them, or with --library those below that folder. InvokeAI's stay: its database says where they lie.
    TEMPLATE may hold {architecture} {base_model} {creator} {first_tag} {hub} {model} {model_id} {type} {version}
    {version_id}. Everything is moved, or nothing.

    \b
    hubtool organize --dry-run
    hubtool organize --template "{base_model}/{creator}"
    hubtool organize --undo
    """
    from hubtool.cli._context import current_run
    from hubtool.cli._tidying import moved_rows, tidier
    from hubtool.library.tidying import check_template

    with tidier(dry_run=dry_run) as mover:
        if not undo:
            check_template(template)
        moved_rows(mover.undo() if undo else mover.organize(template, names, current_run().library))
