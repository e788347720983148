"""What `rename`, `organize`, `trash` and `restore` share: the library opened, and the rows shown."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._output import Row, finish, row_of, say, show_rows
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
    """Show what was moved: old place and new one, and what was left where it is."""
    if not any(row.status not in {"unchanged", "left"} for row in rows):
        say("Nothing to move.")
    for title, count in Counter(row.kept_by for row in rows if row.kept_by).items():
        say(f"{count} of {title} left alone: its own database says where they lie.")
    show_rows([_row(row) for row in rows], _line)
    finish([exit_code(row.error.code) if row.error else 0 for row in rows])


def _row(moved: Moved) -> Row:
    return row_of(moved) | {"error": describe(moved.error) if moved.error else None}


def _line(row: Row) -> str:
    status = str(row["status"])
    if status in {"unchanged", "left"}:
        return ""
    return f"{_WORDS.get(status, status + ': ')}{row['path']} -> {row['target']}"
