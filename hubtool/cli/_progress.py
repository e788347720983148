"""Progress bars for transfers: on stderr, and only when a person is looking."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hubtool.cli._output import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[int, int | None], None]


@contextlib.contextmanager
def transfer_bars() -> Iterator[Callable[[str], Report]]:
    """What `Transfer.watch` takes: file name → report of (bytes there, bytes in all). Threads may share it."""
    if not show_progress():
        yield lambda _: _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def begin(name: str) -> Report:
            task = progress.add_task(Text(name, overflow="ellipsis").plain, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin


def _ignore(_done: int, _total: int | None) -> None:
    """Report to nobody."""
