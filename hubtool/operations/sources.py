"""Several adapters with their strengths, read as one architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.errors import AdapterProblem, IncompatibleAdapters, UsageProblem
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.naming.address import Component
from hubtool.naming.architecture import architecture
from hubtool.operations.model_blocks import LEAST, MOST, NO_BLOCKS, BlockWeights, is_strength
from hubtool.operations.validate import refuse_broken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.adapters.adapter import Adapter
    from hubtool.naming.address import ModuleRef

_TEXT_ENCODER = "te="


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and how strongly it is meant.

    Raises:
        UsageProblem: a strength that is no number of a sensible size.
    """

    path: Path
    strength: float = 1.0
    text_encoder: float | None = None  # None: as strong as the denoiser
    blocks: BlockWeights = NO_BLOCKS

    def __post_init__(self) -> None:
        """Refuse what nothing can be multiplied with."""
        for number in (self.strength, self.text_encoder):
            if number is not None and not is_strength(number):
                message = f"{number:g} is no strength for {self.path.name}: it is 0, or between {LEAST:g} and {MOST:g}."
                raise UsageProblem(message, hint="Write it like style.safetensors:0.7; negative ones subtract.")

    @property
    def label(self) -> str:
        """The file's name with its strengths, as they were typed."""
        encoder = "" if self.text_encoder is None else f":{_TEXT_ENCODER}{self.text_encoder:g}"
        return f"{self.path.name}:{self.strength:g}{encoder}"


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """An adapter that is read, and its strengths."""

    source: Source
    file: SafetensorsFile
    adapter: Adapter

    @property
    def is_off(self) -> bool:
        """Whether its strengths leave nothing of it."""
        return not any(map(self.strength, self.adapter.layers))

    def strength(self, module: ModuleRef) -> float:
        """What this module's change is multiplied with."""
        chosen = self.source.text_encoder if module.component is not Component.DENOISER else None
        base = self.source.strength if chosen is None else chosen
        return base * self.source.blocks.factor(self.adapter.architecture, module)


def parse_source(text: str) -> Source:
    """`FILE`, `FILE:0.7`, `FILE:0.7:te=0.3`; a file that exists under the whole name is that file.

    >>> parse_source("style.safetensors:0.7").strength
    0.7
    >>> str(parse_source(r"C:\\loras\\style.safetensors").path)
    'C:\\\\loras\\\\style.safetensors'

    Raises:
        UsageProblem: a strength that is no number of a sensible size.
    """
    rest, strength, encoder = text, 1.0, None
    while ":" in rest and not Path(rest).exists():
        head, _, tail = rest.rpartition(":")
        value = _number(tail.removeprefix(_TEXT_ENCODER))
        if value is None or not head:  # a name, or what follows a Windows drive
            break
        rest = head
        if not tail.startswith(_TEXT_ENCODER):
            strength = value
            break
        encoder = value
    return Source(Path(rest), strength, encoder)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_sources(sources: Sequence[Source], architecture_id: str | None = None) -> list[Weighted]:
    """Every file as an adapter of the one architecture that explains them all.

    Raises:
        FileProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter: a file cannot be used.
        IncompatibleAdapters: no architecture explains all of them.
        UsageProblem: block weights for blocks that there are not.
    """
    files = [read_safetensors(source.path) for source in sources]
    adapters = [decode(file, architecture_id=architecture_id) for file in files]
    for file, adapter in zip(files, adapters, strict=True):
        refuse_broken(file, adapter)
    common = _common(files, adapters)
    found = []
    for source, file, adapter in zip(sources, files, adapters, strict=True):
        read = adapter if adapter.architecture.id == common else decode(file, architecture_id=common)
        source.blocks.check(read.architecture, read.layers)
        found.append(Weighted(source, file, read))
    return found


def _common(files: Sequence[SafetensorsFile], adapters: Sequence[Adapter]) -> str:
    """The first architecture that is a candidate of every file."""
    possible = [candidates(adapter) for adapter in adapters]
    shared = [id for id in possible[0] if all(id in ids for ids in possible[1:])]
    if shared:
        return shared[0]
    other = next(i for i, ids in enumerate(possible) if not set(ids) & set(possible[0]))
    titles = [architecture(possible[i][0]).title for i in (0, other)]
    names = [files[i].path.name for i in (0, other)]
    raise IncompatibleAdapters(names[1], f"{names[0]} is for {titles[0]}, but {names[1]} is for {titles[1]}.")


def nothing_left(verb: str) -> AdapterProblem:
    """The error where strengths of 0 leave nothing to do."""
    message = f"Every strength is 0, so there is nothing to {verb}."
    return AdapterProblem("", message, hint="Give one of the files a strength, as in style.safetensors:0.7.")


def off_notes(files: Sequence[Weighted]) -> list[str]:
    """What is said of files whose strength is 0."""
    return [f"{file.source.path.name} is switched off: its strength is 0." for file in files if file.is_off]


def candidates(adapter: Adapter) -> list[str]:
    """Ids of the architectures that explain an adapter, the one it was read as first."""
    tied = [candidate.architecture for candidate in adapter.identification.candidates]
    return list(dict.fromkeys([adapter.architecture.id, *tied]))
