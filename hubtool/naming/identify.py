"""Which dialect and architecture a set of keys is: ranked candidates with evidence, never a guess.

Order (the contract's): share of tensors explained with matching dimensions, share of the touched module families that is
present, metadata, the architecture's prior, fewest untouched modules. Before the prior comes the share of modules spelt as the
dialect itself writes them: bare names of diffusers' are Qwen-Image's way, FLUX's bare names are the authors'.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import Architecture, Shape, architecture
from hubtool.naming.dialect import Dialect, dialect, dialects
from hubtool.naming.outline import shortlist

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.naming.spelling import Reader, Spelling


_NUMBER = re.compile(r"\d+")
ARCHITECTURE_KEY = "hubtool.architecture"  # metadata that our conversions leave where the new keys could be another's
_HALF = 0.5
_SAMPLE = 48  # groups looked at before tables are built


class Extent(NamedTuple):
    """What an adapter's tensors say about the weight they change; None where they say nothing."""

    rows: int | None = None  # output features
    columns: int | None = None  # input features × kernel
    either: int | None = None  # one side, without saying which (IA³)

    def fits(self, shape: Shape) -> bool:
        """Whether a weight of this shape can be meant (1×1 convolutions and linear layers are the same)."""
        rows, columns = shape[0], prod(shape[1:])
        if self.either is not None and self.either not in {rows, columns, *shape[1:2]}:
            return False
        return self.rows in {None, rows} and self.columns in {None, columns}


class Base(NamedTuple):
    """What the part of a key in front of the suffix means, and in which spelling it is."""

    module: ModuleRef
    spelling: Spelling


class Group(NamedTuple):
    """The tensors that share everything in front of the suffix."""

    base: str
    suffixes: frozenset[str]
    extent: Extent


@dataclass(frozen=True, slots=True)
class Candidate:
    """One explanation of a file."""

    dialect: str
    architecture: str
    coverage: float  # share of tensors explained with matching dimensions
    fill: float  # share of the touched module families that is there in full
    malformed: bool
    evidence: tuple[str, ...]
    explained: Mapping[str, Base]  # base → meaning, for the groups explained
    hint: str = ""  # the metadata entry that names this architecture


@dataclass(frozen=True, slots=True)
class Identification:
    """All explanations of a file, best first; empty when nothing explains half of it."""

    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate | None:
        """The explanation that commands act on."""
        return self.candidates[0] if self.candidates else None

    @property
    def ambiguous(self) -> bool:
        """Whether keys and shapes alone leave a choice between architectures."""
        return len({candidate.architecture for candidate in self.candidates}) > 1


def identify(groups: Sequence[Group], tensors: int, metadata: Mapping[str, str]) -> Identification:
    """Rank every (dialect, architecture) that explains at least half of `tensors`.

    Only those that tie with the best in coverage and fill are kept. Where names fit and no shape does, names alone decide
    and the evidence says so.
    """
    found = _explanations(groups, tensors, metadata)
    if not found:
        nameless = [group._replace(extent=Extent()) for group in groups]
        found = _explanations(nameless, tensors, metadata, "names fit, shapes do not")
    if not found:
        return Identification(())
    found.sort(key=lambda pair: _order(*pair))
    best = found[0][0]
    ties = [pair for pair in found if (pair[0].coverage, pair[0].fill) == (best.coverage, best.fill)]
    closest = max(hint.length for _, hint in ties)
    return Identification(tuple(_with_evidence(found, hint.entry * (hint.length == closest)) for found, hint in ties))


def _explanations(
    groups: Sequence[Group], tensors: int, metadata: Mapping[str, str], remark: str = ""
) -> list[tuple[Candidate, Hint]]:
    """Each architecture's best explanation that covers half, with the metadata entry that speaks for it."""
    found = []
    for id in shortlist([group.base for group in groups]):
        explained = _best_dialect(architecture(id), groups, tensors)
        if explained is not None and explained.coverage >= _HALF:
            remarked = replace(explained, evidence=(remark,) if remark else ())
            found.append((remarked, _hint(architecture(id), metadata)))
    return found


def explain(target: Architecture, spoken: Dialect, groups: Sequence[Group], *, share: float = 0.0) -> dict[str, Base]:
    """The groups that a dialect explains: base → module and spelling.

    What no proper spelling explains is tried as a malformed hybrid: dots flattened, a stray trailing underscore removed.
    Nothing is tried at all if a sample shows that less than `share` can be explained.
    """
    if not _plausible(target, spoken, groups, share):
        return {}
    meanings = ((group.base, _any_meaning(target, spoken, group)) for group in groups)
    return {base: meaning for base, meaning in meanings if meaning is not None}


def _read(target: Architecture, tables: Sequence[Reader], group: Group, base: str) -> Base | None:
    """The first meaning of a base whose suffixes and dimensions agree with the group's."""
    for prefix, paths, spelling in tables:
        if base.startswith(prefix):
            module = paths.get(base[len(prefix) :])
            if module is not None and _matches(target, module, spelling, group):
                return Base(module, spelling)
    return None


def _matches(target: Architecture, module: ModuleRef, spelling: Spelling, group: Group) -> bool:
    if not group.suffixes <= _suffixes(spelling):
        return False
    return any(group.extent.fits(shape) for shape in target.shapes(module))


@lru_cache(maxsize=256)
def _suffixes(spelling: Spelling) -> frozenset[str]:
    return frozenset(suffix for row in spelling.suffixes.values() for suffix in row)


def _own_share(candidate: Candidate) -> float:
    """Share of the modules that are spelt as the dialect itself writes them."""
    if not candidate.explained:
        return 0.0
    spoken = dialect(candidate.dialect)
    own = [spoken.spelling_of(part) for part in Component]
    hits = sum(meaning.spelling in own for meaning in candidate.explained.values())
    return hits / len(candidate.explained)


def _best_dialect(target: Architecture, groups: Sequence[Group], tensors: int) -> Candidate | None:
    candidates = []
    for spoken in dialects().values():
        explained = explain(target, spoken, groups, share=_HALF / 2)
        if explained:
            candidates.append((_candidate(target, spoken, explained, groups, tensors), spoken.rank_order))
    if not candidates:
        return None
    return min(candidates, key=lambda pair: (-pair[0].coverage, pair[0].malformed, pair[1]))[0]


def _plausible(target: Architecture, spoken: Dialect, groups: Sequence[Group], share: float) -> bool:
    """Whether any group begins as the dialect's keys do, and at least `share` of a sample can be read."""
    sample = groups[:: max(1, len(groups) // _SAMPLE)] if share else groups
    beginnings = _beginnings(spoken, target)
    if not any(group.base.startswith(beginnings) for group in sample):
        return False
    hits, enough = 0, share * len(sample)
    for left, group in zip(reversed(range(len(sample))), sample, strict=True):
        if hits >= enough or hits + left + 1 < enough:
            break
        hits += _any_meaning(target, spoken, group) is not None
    return hits >= enough


@lru_cache(maxsize=1024)
def _beginnings(spoken: Dialect, target: Architecture) -> tuple[str, ...]:
    encoders = target.encoders.values()
    found: set[str] = set()
    for spelling in spoken.spellings:
        found.update(spelling.denoiser_prefixes(target))
        found.update(prefix for encoder in encoders for prefix in spelling.encoder_prefixes(encoder))
    return tuple(found)


def _any_meaning(target: Architecture, spoken: Dialect, group: Group) -> Base | None:
    """The properly spelt meaning of a group, else a malformed one."""
    meaning = _read(target, spoken.readers(target), group, group.base)
    if meaning is None and any(spelling.malformed for spelling in spoken.spellings):
        hybrids = spoken.readers(target, malformed=True)
        flat = group.base.replace(".", "_").rstrip("_")
        meaning = _read(target, hybrids, group, flat) or _read(target, hybrids, group, group.base)
    return meaning


def _candidate(
    target: Architecture, spoken: Dialect, explained: Mapping[str, Base], groups: Sequence[Group], tensors: int
) -> Candidate:
    covered = sum(len(group.suffixes) for group in groups if group.base in explained)
    return Candidate(
        dialect=spoken.id,
        architecture=target.id,
        coverage=covered / tensors if tensors else 0.0,
        fill=_fill(target, {meaning.module for meaning in explained.values()}),
        malformed=any(meaning.spelling.malformed for meaning in explained.values()),
        evidence=(),
        explained=explained,
    )


def family(path: str) -> str:
    """A module path with its indices blanked: what trainers switch on or off as a whole.

    >>> family("transformer_blocks.3.attn.to_q")
    'transformer_blocks.#.attn.to_q'
    """
    return _NUMBER.sub("#", path)


@lru_cache(maxsize=64)
def _family_sizes(target: Architecture) -> Mapping[tuple[Component, str], int]:
    sizes: Counter[tuple[Component, str]] = Counter()
    for path in (*target.modules, *target.fused):
        sizes[Component.DENOISER, family(path)] += 1
    for encoder in target.encoders.values():
        sizes.update((encoder.component, family(path)) for path in encoder.modules)
    return sizes


def _fill(target: Architecture, modules: set[ModuleRef]) -> float:
    """Share of the touched module families that is there in full.

    Whole families say how many blocks the model has; the few modules of a partial file say nothing about that.
    """
    sizes = _family_sizes(target)
    touched = Counter((module.component, family(module.path)) for module in modules)
    return sum(sizes[key] == count for key, count in touched.items()) / len(touched) if touched else 0.0


class Hint(NamedTuple):
    """A metadata entry that names an architecture; the longer the part that matches, the closer it is meant."""

    entry: str = ""
    length: int = 0


def metadata_hint(target: Architecture, metadata: Mapping[str, str]) -> str:
    """The metadata entry that names this architecture, as `key=value`; empty if none does."""
    return _hint(target, metadata).entry


def _hint(target: Architecture, metadata: Mapping[str, str]) -> Hint:
    if ARCHITECTURE_KEY in metadata:
        named = metadata[ARCHITECTURE_KEY] == target.id
        return Hint(f"{ARCHITECTURE_KEY}={target.id}", len(target.id)) if named else Hint()
    for key in ("modelspec.architecture", "ss_base_model_version"):
        value = metadata.get(key, "")
        matching = [len(hint) for hint in target.hints if value.lower().startswith(hint.lower())]
        if matching:
            return Hint(f"{key}={value[:80]}", max(matching))
    return Hint()


def _order(candidate: Candidate, hint: Hint) -> tuple[float, float, int, float, int, int]:
    target = architecture(candidate.architecture)
    untouched = len(target.modules) - len(candidate.explained)
    return (-candidate.coverage, -candidate.fill, -hint.length, -_own_share(candidate), target.prior, untouched)


def _with_evidence(candidate: Candidate, hint: str) -> Candidate:
    counts = Counter(meaning.module.component.value for meaning in candidate.explained.values())
    evidence = [f"{number} modules of {name} named and sized" for name, number in sorted(counts.items())]
    evidence.append(f"{candidate.fill:.0%} of the touched module families complete")
    if hint:
        evidence.append(f"metadata: {hint}")
    return replace(candidate, evidence=(*candidate.evidence, *evidence), hint=hint)
