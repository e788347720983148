"""`hubtool login`: store a hub's API key."""

from __future__ import annotations

import click

from hubtool.cli._account import account_text, read_token
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, row_of


@click.command(cls=HubtoolCommand)
@click.argument("hub", required=False, default="")
def command(hub: str) -> None:
    """Store the API key of a hub, after asking the hub whose it is.

    The key is asked for, or read from stdin: never from the command line, which other users can see. It is kept in the
    system's keyring where the package `keyring` is installed, else in a file that only you can read.

    \b
    hubtool login
    hubtool login huggingface < key.txt
    """
    from hubtool.hubs.accounts import log_in

    settings = current_run().settings()
    account = log_in(settings, hub or settings.hub, read_token())
    answer(row_of(account), lambda: account_text(account))
