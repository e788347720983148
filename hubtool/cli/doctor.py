"""`hubtool doctor`: what in a library will surprise its user."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import say


@click.command(cls=HubtoolCommand)
def command() -> None:
    """Look for names that clash or cannot be used in prompts, unreadable files, pickles, dangling links, left-overs.

    Nothing is changed; every finding comes with its fix. Exit code 1 if something cannot be used as it is.

    \b
    hubtool doctor
    """
    from hubtool.cli._findings import show_findings
    from hubtool.library.doctor import examine
    from hubtool.library.scan import fresh_index

    with fresh_index(current_run().settings(), say) as index:
        found = list(examine(index))
    show_findings(found, {}, 1)
