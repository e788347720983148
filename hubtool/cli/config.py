"""`hubtool config`: read and write the settings."""

from __future__ import annotations

import click

from hubtool.cli._context import current_run
from hubtool.cli._group import HubtoolGroup
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, say


@click.group(cls=HubtoolGroup)
def command() -> None:
    """Read and write the settings.

    \b
    hubtool config get
    hubtool config set library ~/stable-diffusion-webui
    hubtool config set hubs.mine https://models.example.org
    """


@command.command()
@click.argument("key", required=False)
def get(key: str | None) -> None:
    """Show the value of KEY that is in force, or all of them.

    \b
    hubtool config get library
    """
    from hubtool.library.configuration import all_settings, get_setting

    settings = current_run().settings()
    values = {key: get_setting(settings, key)} if key else all_settings(settings)
    fields = {"key": key, "value": values[key]} if key else {"settings": values}
    answer(
        fields,
        lambda: "\n".join(_shown(value) if key else f"{name} = {_shown(value)}" for name, value in values.items()),
    )


@command.command("set")
@click.argument("key")
@click.argument("value")
@dry_run_option
def set_(key: str, value: str, *, dry_run: bool) -> None:
    """Write KEY into the config file; its comments and order stay.

    \b
    hubtool config set target comfyui=~/ComfyUI
    hubtool config set offline yes
    """
    from hubtool.library.configuration import config_path, set_setting

    run = current_run()
    path = config_path(run.config)
    written = set_setting(path, key, value, dry_run=dry_run)
    say(f"{key} {'would be' if dry_run else 'is now'} {_shown(written)}, in {path}.")
    answer({"key": key, "value": written, "path": path}, str)


@command.command()
def path() -> None:
    """Print where the config file is, or would be.

    \b
    hubtool config path
    """
    from hubtool.library.configuration import config_path

    found = config_path(current_run().config)
    answer({"path": found, "exists": found.exists()}, lambda: str(found))


def _shown(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
