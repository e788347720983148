"""`hubtool update`: newer versions of what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._output import finish, row_of, say, show_rows

if TYPE_CHECKING:
    from hubtool.cli._output import Row


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--check", "--dry-run", "check", is_flag=True, help="Say what there is, and fetch nothing.")
@click.option("--variants", is_flag=True, help="Versions for other base models, too.")
@click.option(
    "--include-early-access", "early_access", is_flag=True, help="Versions that are for paying users now, too."
)
@click.option("--replace", is_flag=True, help="Put the old file into the trash (`hubtool restore` brings it back).")
def command(names: tuple[str, ...], **options: bool) -> None:
    """Fetch newer versions of installed LoRAs (all, or those named): of the same base model, published later.

    A file with your tag `pin` is never updated, one with the tag `ignore:VERSION` not to that version.

    \b
    hubtool update --check
    hubtool update pixel-art --replace
    hubtool mark pixel-art --tag pin
    """
    from hubtool.library.scan import fresh_index
    from hubtool.library.updating import fetch_updates, find_updates

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        found = find_updates(index, settings, names, variants=options["variants"], early_access=options["early_access"])
        done = [] if options["check"] else fetch_updates(index, settings, found, say, replace=options["replace"])
    errors = {path: outcome.error for path, outcome in done}
    rows = [row_of(one) | {"error": describe(error) if (error := errors.get(one.path)) else None} for one in found]
    show_rows(rows, _text)
    new = [one for one in found if one.available]
    say(f"{len(new)} of {len(found)} have something newer, {sum(one.size_bytes or 0 for one in new)} bytes in all.")
    finish([exit_code(error.code) if (error := errors.get(one.path)) else 0 for one in new])


def _text(row: Row) -> str:
    offer = f" -> {row['available_name']} ({row['spec']}, {row['size_bytes']} bytes)" if row["available"] else ""
    return f"{row['name']}: {row['reason']}{offer}"
