"""`hubtool usage`: which LoRAs pictures were made with."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, row_of, say, table


@click.command(cls=HubtoolCommand)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
def command(folders: tuple[Path, ...]) -> None:
    """Count how often each LoRA was used in the pictures below the folders DIR; `list --unused` shows the others then.

    \b
    hubtool usage ~/stable-diffusion-webui/outputs
    hubtool list --unused
    """
    from hubtool.library.scan import fresh_index
    from hubtool.library.usage import count_usage

    with fresh_index(current_run().settings(), say) as index:
        found = count_usage(index, folders, lambda count: say(f"{count} pictures read."))
    say(f"{found.pictures} pictures, of which {found.silent} say nothing.")
    rows = [row_of(use) for use in found.uses]
    cells = [(use.name, use.count, use.status, use.path or use.spec or "") for use in found.uses]
    answer(
        {"results": rows, "pictures": found.pictures, "silent": found.silent},
        lambda: table(cells, ("NAME", "PICTURES", "STATUS", "FILE")) if cells else "",
    )
