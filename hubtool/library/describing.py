"""Sidecars of installed files shown, written, brought together: who says what, and who is believed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from hubtool.library.digest import hashed
from hubtool.library.history import changes_of
from hubtool.library.record import Own
from hubtool.library.sidecar import Card, Filling, all_sidecars, can_fill, fill, read_sidecars
from hubtool.library.sidecars.preview import existing_preview

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubtool.library.history import Change
    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.library.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class Layers:
    """Everything that is known of one file, by who says it."""

    name: str
    path: Path
    sidecars: Mapping[str, Path]  # formats that are there
    header: Mapping[str, object]
    hub: Mapping[str, object]
    user: Mapping[str, object]
    in_force: Mapping[str, Mapping[str, object]]  # field → value, and from whom
    history: Sequence[Change]  # what the sidecars said before


def layers_of(model: Installed) -> Layers:
    """What header, hub and user say of a file, and what holds where they disagree."""
    there = {id: one.path(model.path) for id, one in all_sidecars().items() if one.is_beside(model.path)}
    own, origin = model.said, model.origin
    hub = {key: value for key, value in asdict(origin).items() if value and key != "snapshot"} if origin else {}
    said = {key: value for key, value in asdict(own).items() if value}
    words = model.trigger_words
    by = "user" if own.trigger_words else "hub" if origin and words == origin.trigger_words else "header"
    force: dict[str, dict[str, object]] = {
        "trigger_words": {"value": words, "from": by},
        "base_model": {"value": model.base_model, "from": "hub" if origin and origin.base_model else "header"},
        "preferred_weight": {"value": own.preferred_weight, "from": "user"},
        "negative": {"value": own.negative, "from": "user"},
        "notes": {"value": own.notes, "from": "user"},
    }
    header = {key: value for key, value in asdict(model.facts).items() if value}
    holds = {key: row for key, row in force.items() if row["value"]}
    return Layers(model.name, model.path, there, header, hub, said, holds, changes_of(model.path))


def write_sidecars(
    index: Index, model: Installed, formats: Sequence[Sidecar], *, dry_run: bool = False
) -> tuple[Path, ...]:
    """Write or complete sidecars with what is known; those that are there afterwards, or would be.

    Raises:
        StorageProblem: one cannot be written. FileProblem: the model cannot be read.
    """
    # LoRA Manager and Stability Matrix know a file by its hash
    card = card_of(index, hashed(index, model))
    written = ((one, one.fields(card)) for one in formats)
    fillings = [Filling(one.path(model.path), fields, one.identity, one.placed) for one, fields in written if fields]
    return tuple(one.path for one in fillings if (can_fill(one.path) if dry_run else one.write()))


def import_sidecars(index: Index, model: Installed, *, dry_run: bool = False) -> Own:
    """Take over what the sidecars of other programs say into our own sidecar and the index; what that is.

    Raises:
        StorageProblem: it cannot be written.
    """
    own, origin = read_sidecars(model.path)
    if dry_run:
        return own
    if own != Own():
        mine = all_sidecars()["hubtool"]
        said = replace(model, own=own, origin=model.origin or origin).said
        fill(mine.path(model.path), mine.fields(Card(own=said, model=model.path)))
    with index.writing():
        index.store(replace(model, own=own, origin=None if model.origin else origin))
    return own


def sync_sidecars(index: Index, model: Installed, *, dry_run: bool = False) -> tuple[Path, ...]:
    """Complete every sidecar that is there with what the others know; nothing that says something is changed.

    Raises:
        StorageProblem: one cannot be written.
    """
    there = [one for one in all_sidecars().values() if one.is_beside(model.path)]
    return write_sidecars(index, model, there, dry_run=dry_run)


def card_of(index: Index, model: Installed) -> Card:
    """Everything that sidecars may say about a file."""
    complete = index.with_snapshot(model)
    return Card(
        architecture=model.facts.architecture,
        trigger_words=complete.trigger_words,
        origin=complete.origin,
        own=complete.said,
        model=model.path,
        picture=existing_preview(model.path),
        sha256=model.digests.sha256,
        size_bytes=model.stamp.size_bytes,
    )
