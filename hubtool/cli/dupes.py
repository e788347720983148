"""`hubtool dupes`: files that are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import answer, row_of, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.library.dupes import Group


@click.command(cls=HubtoolCommand)
@click.option(
    "--link", "wants_links", is_flag=True, help="Keep one copy of equal files, the others as hard links to it."
)
@click.option(
    "--near", "wants_near", is_flag=True, help="Also those that do the same at another rank, dtype or dialect."
)
@dry_run_option
def command(*, wants_links: bool, wants_near: bool, dry_run: bool) -> None:
    """Find installed files that are equal: in every byte, or in every tensor under another header.

    Only files that could be equal are read. With --link, files equal in every byte take up their space once a disk. With --near
    (which needs torch), files are compared by what they do to the model, too: cosine at least 0.95, norms within a quarter.

    \b
    hubtool dupes
    hubtool dupes --near
    hubtool dupes --link
    """
    from hubtool.library.dupes import duplicates, link, near_duplicates
    from hubtool.library.scan import fresh_index

    with fresh_index(current_run().settings(), say) as index:
        groups = duplicates(index, lambda one: say(f"Reading {one.path}"))
        if wants_near:
            groups += near_duplicates(index, groups, lambda path: say(f"Reading {path}"))
    equal = [group for group in groups if group.kind == "bytes"] if wants_links and not dry_run else []
    linked = [link(group) for group in equal]
    left = [path for one in linked for path in one.left]
    for path in left:
        say(f"Left as it is, being a symbolic link or on another disk: {path}")
    rows = [row_of(group) for group in groups]
    freed = sum(one.freed_bytes for one in linked)
    answer({"groups": rows, "freed_bytes": freed, "left": left}, lambda: _text(groups))


def _text(groups: Sequence[Group]) -> str:
    if not groups:
        say("No two files are the same.")
    return "\n".join(line for group in groups for line in (_title(group), *map(_line, group.paths)))


def _title(group: Group) -> str:
    alike = f" (cosine {group.cosine:.3f})" if group.cosine is not None else ""
    return f"{group.kind}{alike}, {group.wasted_bytes} bytes too many:"


def _line(path: object) -> str:
    return f"  {path}"
