"""What is put beside an installed model: sidecars and a picture, from the hub or from where the file came from."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.library.sidecar import fill, merge, read_table
from hubtool.library.sidecars.preview import MAX_BYTES, existing_preview, fetch_preview, write_preview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubtool.library.sidecar import Card, Sidecar


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a preview may come from."""

    urls: tuple[str, ...] = ()  # the hub's, best first
    fetch: Callable[[str, int], bytes] | None = None  # (url, most bytes) → body, or a HubProblem


def write_sidecars(model: Path, formats: Sequence[Sidecar], card: Card, source: Path | None) -> tuple[Path, ...]:
    """Write or complete the sidecars; those that are there afterwards.

    What lies beside `source`, the file that was installed, goes before what we have to say.

    Raises:
        StorageProblem: one cannot be written.
    """
    written: list[Path] = []
    for sidecar in formats:
        theirs = read_table(sidecar.path(source)) if source else None
        fields = merge(theirs or {}, sidecar.fields(card))
        if fields and fill(sidecar.path(model), fields, sidecar.identity):
            written.append(sidecar.path(model))
    return tuple(written)


def add_preview(model: Path, pictures: Pictures, source: Path | None) -> Path | None:
    """The model's picture: the one that is there, else the source's, else the hub's; None if there is none.

    Raises:
        StorageProblem: it cannot be written.
    """
    if (found := existing_preview(model)) is not None:
        return found
    if source and (picture := existing_preview(source)) is not None:
        with contextlib.suppress(OSError):  # an unreadable picture is as good as none
            if picture.stat().st_size <= MAX_BYTES:
                return write_preview(model, picture.read_bytes())
    return fetch_preview(model, pictures.urls, pictures.fetch) if pictures.fetch else None
