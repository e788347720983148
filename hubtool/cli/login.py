"""`hubtool login`: store a hub's API key."""

from __future__ import annotations

import click

from hubtool.cli._account import account_text, read_token
from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, row_of, say


@click.command(cls=HubtoolCommand)
@click.argument("hub", required=False, default="")
@dry_run_option
def command(hub: str, *, dry_run: bool) -> None:
    """Store the API key of a hub, after asking the hub whose it is.

    The key is asked for, or read from stdin: never from the command line, which other users can see. It is kept in the
    system's keyring where the package `keyring` is installed, else in a file that only you can read.

    \b
    hubtool login
    hubtool login huggingface < key.txt
    """
    from hubtool.hubs.accounts import log_in

    settings = current_run().settings()
    account = log_in(settings, hub or settings.hub, read_token(), dry_run=dry_run)
    if dry_run:
        say("The key is good; it was not stored.")
    answer(row_of(account), lambda: account_text(account))
