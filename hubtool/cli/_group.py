"""Commands that have commands of their own."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, global_options, write_options


class HubtoolGroup(click.Group):
    """A group that takes the global options, and whose commands do."""

    command_class = HubtoolCommand

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # passed through as they are
        self.params.extend(global_options())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The global options under their own heading, then the commands."""
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)
