"""`hubtool completion`: the script by which a shell completes our commands and options."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._output import answer

VARIABLE = "_HUBTOOL_COMPLETE"  # click's own protocol: the script asks by setting it


@click.command(cls=HubtoolCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a completion script for SHELL.

    \b
    hubtool completion bash > ~/.local/share/bash-completion/completions/hubtool
    hubtool completion zsh > "${fpath[1]}/_hubtool"
    hubtool completion fish > ~/.config/fish/completions/hubtool.fish
    """
    from click.shell_completion import get_completion_class

    root = click.get_current_context().find_root().command
    completer = get_completion_class(shell)
    script = completer(root, {}, "hubtool", VARIABLE).source() if completer else ""
    answer({"shell": shell, "script": script}, lambda: script)
