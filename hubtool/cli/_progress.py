"""Progress bars for transfers: on stderr, and only when a person is looking."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from hubtool.cli._output import show_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

    from hubtool.hubs.transfer import Report, Watch

_REDRAW_S = 0.1


@contextlib.contextmanager
def transfer_bars() -> Iterator[Watch]:
    """What `Transfer.watch` takes. Threads may share it."""
    if not show_progress():
        yield _ignored
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress).watch


class Bars:
    """A bar for each file that is on its way, and one for all of them as soon as there were two."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._whole: TaskID | None = None
        self._counts: list[tuple[int, int]] = []  # (bytes there, bytes in all) of every file so far
        self._finished = 0

    @contextlib.contextmanager
    def watch(self, name: str) -> Iterator[Report]:
        """Show one file for as long as the block runs."""
        from rich.text import Text

        with self._lock:
            index = len(self._counts)
            self._counts.append((0, 0))
            if index == 1:
                self._whole = self._progress.add_task("", total=None)
        task = self._progress.add_task(Text(name, overflow="ellipsis").plain, total=None)
        try:
            yield self._report(task, index)
        finally:
            self._progress.remove_task(task)
            with self._lock:
                self._finished += 1
            self._show_whole()

    def _report(self, task: TaskID, index: int) -> Callable[[int, int | None], None]:
        shown_s = 0.0

        def report(done: int, total: int | None) -> None:
            nonlocal shown_s
            self._counts[index] = (done, total or done)
            now = time.monotonic()
            if now - shown_s >= _REDRAW_S:
                shown_s = now
                self._progress.update(task, completed=done, total=total)
                self._show_whole()

        return report

    def _show_whole(self) -> None:
        if self._whole is not None:
            words = f"{self._finished} of {len(self._counts)} files begun"
            done, total = (sum(column) for column in zip(*self._counts, strict=True))
            self._progress.update(self._whole, description=words, completed=done, total=total)


@contextlib.contextmanager
def _ignored(_: str) -> Iterator[Report]:
    yield lambda _done, _total: None
