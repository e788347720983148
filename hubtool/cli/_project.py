"""What the manifest's commands share: the project's folder, its LoRA folder, and the library."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._output import say
from hubtool.library.project import Project
from hubtool.library.scan import fresh_index, scan_place
from hubtool.library.target import choose_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.library.target import Place
    from hubtool.settings import Settings


@contextlib.contextmanager
def project(target: str | None = None, to: Path | None = None, *, dry_run: bool = False) -> Iterator[Project]:
    """The project of the current folder, with an index that is up to date."""
    settings = current_run().settings()
    with _opened(settings, choose_place(settings, target, to), dry_run=dry_run) as work:
        yield work


@contextlib.contextmanager
def project_of(folder: Path, *, dry_run: bool = False) -> Iterator[Project]:
    """As `project`, for a folder that is looked into with all its subfolders, whatever was known of it."""
    settings = current_run().settings()
    with _opened(settings, replace(choose_place(settings, to=folder), deep=True), dry_run=dry_run) as work:
        yield work


@contextlib.contextmanager
def _opened(settings: Settings, place: Place, *, dry_run: bool) -> Iterator[Project]:
    if dry_run:
        say("This is a trial: nothing is written.")
    with fresh_index(settings, say) as index:
        scan_place(index, place)
        yield Project(Path(), settings, place, index, say, dry_run)
