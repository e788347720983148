"""What is put beside an installed model: sidecars and a picture, from the hub or from where the file came from.

The model is installed by then; what goes wrong here is noted, and the next installation of the same file tries again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.library.sidecar import Filling, merge, read_table
from hubtool.library.sidecars.preview import EXTENSIONS, MAX_BYTES, existing_preview, fetch_preview, write_preview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from hubtool.library.sidecar import Card, Sidecar


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where a preview may come from."""

    urls: tuple[str, ...] = ()  # the hub's, best first
    fetch: Callable[[str, int], bytes] | None = None  # (url, most bytes) → body, or a HubProblem


@dataclass(frozen=True, slots=True)
class Beside:
    """The surroundings of an installed model."""

    model: Path
    source: Path | None  # the local file that was installed; what lies beside it comes along
    infix: str = ".preview"  # between the model's name and the picture's extension, as the UI wants it
    shown: frozenset[str] = frozenset(EXTENSIONS)  # pictures that the UI shows
    notes: list[str] = field(default_factory=list)  # what went wrong, as sentences

    def fillings(self, formats: Sequence[Sidecar], card: Card) -> tuple[Filling, ...]:
        """What is to be said in each sidecar: what lies beside the source goes before what we have to say."""
        found = ((sidecar, self._fields(sidecar, card)) for sidecar in formats)
        return tuple(
            Filling(sidecar.path(self.model), fields, sidecar.identity, sidecar.placed)
            for sidecar, fields in found
            if fields
        )

    def write_sidecars(self, formats: Sequence[Sidecar], card: Card) -> tuple[Path, ...]:
        """Write or complete the sidecars; those that are there afterwards."""
        return tuple(one.path for one in self.fillings(formats, card) if self._wrote(one))

    def add_preview(self, pictures: Pictures) -> Path | None:
        """The model's picture: the one that is there, else the source's, else the hub's; None if there is none."""
        try:
            found = existing_preview(self.model, self._infixes) or self._copied() or self._fetched(pictures)
        except HubtoolError as error:
            self.notes.append(f"There is no preview: {error}")
            return None
        return found

    @property
    def _infixes(self) -> tuple[str, ...]:
        """Which pictures the UI finds: every one finds those without an infix."""
        return tuple(dict.fromkeys(("", self.infix)))

    def _fields(self, sidecar: Sidecar, card: Card) -> dict[str, object]:
        theirs = read_table(sidecar.path(self.source)) if self.source else None
        ours = sidecar.fields(card)
        return merge(theirs or {}, ours) | {key: ours[key] for key in sidecar.placed if key in ours}

    def _wrote(self, filling: Filling) -> bool:
        try:
            done = filling.write()
        except HubtoolError as error:
            self.notes.append(f"A sidecar could not be written: {error}")
            return False
        if not done:
            self.notes.append(f"{filling.path.name} holds something else and was left alone.")
        return done

    def _copied(self) -> Path | None:
        picture = next(filter(None, (existing_preview(place) for place in (self.model, self.source) if place)), None)
        if picture is None:
            return None
        with contextlib.suppress(OSError):  # an unreadable picture is as good as none
            if picture.stat().st_size <= MAX_BYTES:
                return write_preview(self.model, picture.read_bytes(), self.infix)
        return None

    def _fetched(self, pictures: Pictures) -> Path | None:
        if not pictures.fetch or not pictures.urls:
            return None
        found = fetch_preview(self.model, pictures.urls, pictures.fetch, self.infix, self.shown)
        if found is None:
            self.notes.append("The hub's pictures could not be fetched.")
        return found
