"""`hubtool list-links`: what a page of links offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, row_of, say, table

if TYPE_CHECKING:
    from hubtool.cli._output import Row
    from hubtool.hubs.link_lists import ListPage

_HEADINGS = ("Label", "Kind", "Category", "Triggers", "Note")


@click.command(cls=HubtoolCommand)
@click.argument("source", metavar="URL|FILE")
@click.option("--all", "show_all", is_flag=True, help="Also the links that are no models, and why.")
def command(source: str, *, show_all: bool) -> None:
    """Show which models a page of links offers: a rentry page, a README on GitHub or GitLab, any page or text file.

    Entries are fetched with `hubtool download list:URL#LABEL`; without a label, or with a pattern such as `*_style`, all that
    it means are. What was added, removed, moved or renamed since the list was last seen in another state is said.

    \b
    hubtool list-links https://rentry.org/ponyxl_loras_n_stuff
    hubtool list-links ./links.md --all
    hubtool list-links https://gitgud.io/someone/loras --json
    """
    from hubtool.hubs.link_lists import LinkList, checked_source

    page = LinkList(checked_source(source), current_run().settings()).page()
    rows = [_row(source, row_of(link)) for link in page.links if show_all or link.is_entry]
    fields = {
        "source": source,
        "fetched_from": page.fetched_from,
        "at": page.at,
        "results": rows,
        "changes": page.changes,
    }
    answer(fields, lambda: _text(page, rows))


def _row(source: str, row: Row) -> Row:
    fetchable = row["kind"] in {"file", "archive", "page"}
    return row | {"spec": f"list:{source}#{row['label']}" if fetchable else None, "error": None}


def _text(page: ListPage, rows: list[Row]) -> str:
    skipped = sum(not link.is_entry for link in page.links)
    say(f"{len(page.links) - skipped} entries, {skipped} other links, read on {page.at}.")
    for each in page.changes:
        say(f"{each.change}: {each.label}{f' (was {each.before})' if each.before else ''}")
    cells = [(r["label"] or r["url"], r["kind"], _last(r["category"]), _joined(r["triggers"]), _note(r)) for r in rows]
    return table(cells, _HEADINGS) if rows else ""


def _note(row: Row) -> str:
    also = f"also called {_joined(row['aliases'])}" if row["aliases"] else ""
    return "; ".join(str(part) for part in (row["reason"], also, row["note"]) if part)


def _last(values: object) -> str:
    return str(values[-1]) if isinstance(values, list) and values else ""


def _joined(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else ""
