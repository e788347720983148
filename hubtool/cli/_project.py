"""What the manifest's commands share: the project's folder, its LoRA folder, and the library."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._output import say
from hubtool.library.project import Project
from hubtool.library.scan import fresh_index, scan_place
from hubtool.library.target import choose_place

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def project(target: str | None = None, to: Path | None = None) -> Iterator[Project]:
    """The project of the current folder, with an index that is up to date."""
    settings = current_run().settings()
    place = choose_place(settings, target, to)
    with fresh_index(settings, say) as index:
        scan_place(index, place)
        yield Project(Path(), settings, place, index, say)
