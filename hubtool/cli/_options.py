"""Options that several commands share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.settings import Settings

FILE = click.Path(path_type=Path)  # existence is checked by the reader, which says more than click does

files_argument = click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
file_argument = click.argument("file", type=FILE, metavar="FILE")
force_option = click.option("--force", is_flag=True, help="Replace an output that exists.")
NOTHING_WRITTEN = "Nothing is written; this is how it would be."
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")


def _rate(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from hubtool.settings import bytes_a_second

    try:
        if value is not None:
            bytes_a_second(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no rate of at least 1K; write it like 500K or 2M.") from error
    return value


def _connections(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    from hubtool.settings import MOST_CONNECTIONS, connections

    try:
        if value is not None:
            connections(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither auto nor a number from 1 to {MOST_CONNECTIONS}.") from error
    return value


def transfer_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--connections` and `--limit-rate`, for commands that download; `with_transfer_options` reads them."""
    command = click.option(
        "--limit-rate", callback=_rate, metavar="R", help="At most so many bytes a second in all: 500K, 10M; none."
    )(command)
    return click.option(
        "--connections",
        callback=_connections,
        metavar="N|auto",
        help="At most so many for each file. Default: one, and more where measuring shows a gain.",
    )(command)


def with_transfer_options(settings: Settings, options: Mapping[str, object]) -> Settings:
    """The settings with what `transfer_options` read on top."""
    from hubtool.settings import bytes_a_second, connections

    number, rate = options["connections"], options["limit_rate"]
    if number is not None:
        settings = replace(settings, connections=connections(str(number)))
    return settings if rate is None else replace(settings, limit_bytes_s=bytes_a_second(str(rate)))
