"""A prompt against the library: which of the adapters that it names are here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.library.digest import hashed
from hubtool.library.prompts import LORA_KINDS, parse
from hubtool.library.resolve import Names
from hubtool.library.target import known_places

if TYPE_CHECKING:
    from hubtool.library.block_weights import BlockWeights
    from hubtool.library.index import Index
    from hubtool.library.prompts import Tag
    from hubtool.library.record import Label
    from hubtool.settings import Settings


_MAX_SUGGESTED = 50  # names of a prompt; each takes 10 ms in a library of ten thousand


@dataclass(frozen=True, slots=True)
class Reference:
    """One tag, and the file that it means."""

    kind: str
    name: str
    text_encoder: float
    denoiser: float
    dyn: int | None
    raw: str
    path: Path | None
    have: bool
    sha256: str | None
    blocks: tuple[float, float, float] | None
    steps: str
    block_weights: BlockWeights | None
    extras: tuple[str, ...]
    section: str
    suggestions: list[str]  # installed names that are close, when the name means nothing
    problem: str


@dataclass(frozen=True, slots=True)
class References:
    """A prompt's tags resolved; the fields are the contract's."""

    tags: list[Reference]
    prompt: str
    missing: list[str]  # names of adapters that are not here, each once


class Shelves:
    """The names of the library: those in the configured UI's folders count before all others."""

    def __init__(self, index: Index, settings: Settings) -> None:
        self.labels = index.labels()
        near = {str(place.folder) for place in known_places(settings)}
        self._near = Names(label for label in self.labels if label.folder in near)
        self.everything = Names(self.labels) if len(near) < len(index.folders()) else self._near

    def find(self, name: str, dialect: str) -> Label | None:
        """The file that this name means in a prompt of this dialect; None if there is none."""
        return self._near.find(name, dialect) or self.everything.find(name, dialect)


def read_prompt(index: Index, settings: Settings, text: str, dialect: str, *, negative: bool = False) -> References:
    """Take a prompt (or a negative one) apart and look every adapter up, first in the configured folder, then in all known.

    The files that it names are hashed if that was never done, so that the answer identifies them.

    Raises:
        UsageProblem: no such dialect.
    """
    parsed = parse(text, dialect, negative=negative)
    shelves = Shelves(index, settings)
    tags = [_reference(index, shelves, tag, dialect) for tag in parsed.tags]
    missing = list(dict.fromkeys(tag.name for tag in tags if tag.kind in LORA_KINDS and not tag.have))
    close = {name: shelves.everything.suggestions(name) for name in missing[:_MAX_SUGGESTED]}
    tags = [tag if tag.have else replace(tag, suggestions=close.get(tag.name, [])) for tag in tags]
    return References(tags, parsed.prompt, missing)


def _reference(index: Index, shelves: Shelves, tag: Tag, dialect: str) -> Reference:
    label = shelves.find(tag.name, dialect) if tag.kind in LORA_KINDS else None
    found = index.at(Path(label.path)) if label else None
    if found:
        found = hashed(index, found)
    return Reference(
        kind=tag.kind,
        name=tag.name,
        text_encoder=tag.text_encoder,
        denoiser=tag.denoiser,
        dyn=tag.dyn,
        raw=tag.raw,
        path=found.path if found else None,
        have=found is not None,
        sha256=found.digests.sha256 if found else None,
        blocks=tag.blocks,
        steps=tag.steps,
        block_weights=tag.block_weights,
        extras=tag.extras,
        section=tag.section,
        suggestions=[],
        problem=tag.problem,
    )
