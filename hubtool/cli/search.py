"""`hubtool search`: find models on a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._output import answer, finish, say, table

if TYPE_CHECKING:
    from hubtool.hubs.hub import Model, SearchPage

_HEADINGS = ("ID", "Name", "Type", "Base model", "Downloads", "Creator")


@click.command(cls=HubtoolCommand)
@click.argument("query", required=False, default="")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Kind of model (repeatable); default LORA, LoCon and DoRA."
)
@click.option("--base", "bases", multiple=True, metavar="NAME", help='Base model as the hub spells it: "SDXL 1.0".')
@click.option("--tag", default="", metavar="TAG", help="Only models with this tag.")
@click.option("--creator", default="", metavar="NAME", help="Only models by this user.")
@click.option("--sort", type=click.Choice(["relevance", "downloads", "rating", "newest"]), default="relevance")
@click.option(
    "--period",
    type=click.Choice(["AllTime", "Year", "Month", "Week", "Day"], case_sensitive=False),
    default="AllTime",
    help="Only models released in this time.",
)
@click.option(
    "--nsfw",
    type=click.Choice(["none", "soft", "mature", "all"]),
    default="none",
    help="The most explicit content to include.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many models.")
@click.option("--cursor", default="", metavar="C", help="Go on where an earlier search ended (its next_cursor).")
def command(**options: object) -> None:
    """Find models on a hub.

    \b
    hubtool search "pixel art" --base "SDXL 1.0" --base Pony
    hubtool search --tag style --sort downloads --limit 5 --json
    """
    from hubtool.hubs.hub import LORA_TYPES, Query
    from hubtool.hubs.opening import open_hub
    from hubtool.hubs.rows import summary

    names = {"query": "text", "bases": "base_models"}
    fields = {names.get(name, name): value for name, value in options.items()}
    query = Query(**fields | {"types": options["types"] or LORA_TYPES})  # type: ignore[arg-type]  # click made the types
    page = open_hub(current_run().settings()).search(query)
    failures = [describe(failure) for failure in page.failures]
    rows = [summary(model) for model in page.models]
    answer({"results": rows, "next_cursor": page.next_cursor, "failures": failures}, lambda: _text(page))
    for failure in page.failures:
        say(f"Not every hub answered: {failure}", always=True)
    finish([0, *(exit_code(failure.code) for failure in page.failures)])


def _text(page: SearchPage) -> str:
    if page.next_cursor:
        say(f"More with --cursor {page.next_cursor}")
    if not page.models:
        say("Nothing found.", always=True)
        return ""
    return table([_row(model) for model in page.models], _HEADINGS)


def _row(model: Model) -> tuple[object, ...]:
    bases = ", ".join(model.base_models[:2])
    return model.id, model.name, model.type, bases, "" if model.downloads is None else model.downloads, model.creator
