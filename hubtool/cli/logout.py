"""`hubtool logout`: forget a hub's API key."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer


@click.command(cls=HubtoolCommand)
@click.argument("hub", required=False, default="")
@dry_run_option
def command(hub: str, *, dry_run: bool) -> None:
    """Forget the API key that `login` stored. Keys in the environment stay where they are.

    \b
    hubtool logout
    hubtool logout huggingface
    """
    from hubtool.hubs.accounts import log_out

    settings = current_run().settings()
    name = hub or settings.hub
    removed = log_out(settings, name, dry_run=dry_run)
    verb = "would be" if dry_run else "is"
    answer(
        {"hub": name, "removed": removed},
        lambda: f"The key for {name} {verb} forgotten." if removed else f"There was no stored key for {name}.",
    )
