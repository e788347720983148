"""What `rename`, `organize`, `trash` and `restore` share: the library opened, and the rows shown."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._output import answer, row_of, say
from hubtool.library.scan import fresh_index
from hubtool.library.tidying import Tidier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hubtool.library.tidying import Moved

_WORDS = {"moved": "", "planned": "Would be: ", "unchanged": "Stays: ", "name taken": "Stays, for the name is taken: "}


@contextlib.contextmanager
def tidier(*, dry_run: bool) -> Iterator[Tidier]:
    """Moves files of the library, which is up to date."""
    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        yield Tidier(index, settings, dry_run)


def moved_rows(rows: Sequence[Moved]) -> None:
    """Show what was moved: old place and new one."""
    shown = [row for row in rows if row.status != "unchanged"]
    if not shown:
        say("Nothing to move.")
    lines = [f"{_WORDS.get(row.status, row.status + ': ')}{row.path} -> {row.target}" for row in shown]
    answer({"results": [row_of(row) | {"error": None} for row in rows]}, lambda: "\n".join(lines))
