"""`hubtool whoami`: which API key is in force."""

from __future__ import annotations

import click

from hubtool.cli._account import account_text
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, row_of


@click.command(cls=HubtoolCommand)
@click.argument("hub", required=False, default="")
def command(hub: str) -> None:
    """Say which API key is in force on a hub, where it comes from, and whose it is. The key itself is never shown.

    \b
    hubtool whoami
    hubtool whoami huggingface --json
    """
    from hubtool.hubs.accounts import who_am_i

    settings = current_run().settings()
    account = who_am_i(settings, hub or settings.hub)
    answer(row_of(account), lambda: account_text(account))
