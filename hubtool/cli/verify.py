"""`hubtool verify`: whether installed files still are what they were."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import say


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--full", is_flag=True, help="Read every byte and compare all hashes with the record and the hub's.")
def command(names: tuple[str, ...], *, full: bool) -> None:
    """Check installed LoRAs (all of them, or those named): header, size, tensors that go together.

    Exit code 10 if any file is damaged. What can be fetched again is said with its command.

    \b
    hubtool verify
    hubtool verify --full pixel-meadow
    """
    from hubtool.cli._findings import show_findings
    from hubtool.library.scan import fresh_index
    from hubtool.library.tidying import Tidier
    from hubtool.library.verify import verify

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        models = Tidier(index, settings).find_all(names) or index.adapters()
        found = list(
            verify(index, models, full=full, progress=(lambda one: say(f"Reading {one.path}")) if full else None)
        )
    plan = list(dict.fromkeys(one.fix for one in found if one.fix.startswith("hubtool ")))
    if plan:
        say(f"{len(plan)} of the damaged files can be fetched again with the commands shown.")
    show_findings(found, {"checked": len(models), "plan": plan}, 10)
