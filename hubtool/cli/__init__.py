"""The `hubtool` command: one file a command, found by listing this folder and imported when called."""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path

import click

from hubtool import __version__
from hubtool.cli._context import HubtoolCommand, Run, global_options, write_options

_FOLDER = Path(__file__).parent


class Commands(click.Group):
    """A group whose commands are the files of a folder (`list_links.py` is `list-links`)."""

    command_class = HubtoolCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all command files."""
        del ctx
        return sorted(path.stem.replace("_", "-") for path in _FOLDER.glob("[a-z]*.py"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one file that is called."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"hubtool.cli.{cmd_name.replace('-', '_')}")
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a click command")
        return command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options, then the commands."""
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with near misses named."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    params=list(global_options()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "--version", message="hubtool %(version)s")
@click.pass_context
def root(context: click.Context) -> None:
    """Find, verify, convert, extract and install LoRA files.

    \b
    hubtool search "pixel art" --base "SDXL 1.0"
    hubtool install 120096
    hubtool inspect style.safetensors
    hubtool convert style.safetensors --to comfyui -o style.comfy.safetensors
    hubtool demo
    """
    context.ensure_object(Run)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the contract's code."""
    if "_HUBTOOL_COMPLETE" in os.environ:  # a shell asks what could be typed next
        root.main(prog_name="hubtool")
    from hubtool.cli._errors import run_guarded

    # a command is short, and importing torch makes a million objects to look through
    gc.set_threshold(100_000, 50, 1000)
    code = run_guarded(root, arguments)
    gc.freeze()  # nor are they looked through at the end: 0.4 s
    raise SystemExit(code)
