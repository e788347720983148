"""Which dialect and architecture a set of keys is: ranked candidates with evidence, never a guess.

Order (the contract's): share of tensors explained with matching dimensions, share of the touched module families that is
present, metadata, the architecture's prior, fewest untouched modules.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import Architecture, Shape, architecture, architecture_ids
from hubtool.naming.dialect import Base, Dialect, dialects

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NUMBER = re.compile(r"\d+")
_HALF = 0.5


class Extent(NamedTuple):
    """What an adapter's tensors say about the weight they change; None where they say nothing."""

    rows: int | None = None  # output features
    columns: int | None = None  # input features × kernel
    either: int | None = None  # one side, without saying which (IA³)

    def fits(self, shape: Shape) -> bool:
        """Whether a weight of this shape can be meant (1×1 convolutions and linear layers are the same)."""
        rows, columns = shape[0], prod(shape[1:])
        if self.either is not None and self.either not in {rows, columns}:
            return False
        return self.rows in {None, rows} and self.columns in {None, columns}


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
    fill: float  # share of the touched module families that is present
    malformed: bool
    evidence: tuple[str, ...]
    modules: Mapping[str, ModuleRef]  # base → module, for the groups explained


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
    return Identification(tuple(_with_evidence(*pair) for pair in ties))


def _explanations(
    groups: Sequence[Group], tensors: int, metadata: Mapping[str, str], remark: str = ""
) -> list[tuple[Candidate, str]]:
    """Each architecture's best explanation that covers half, with the metadata entry that speaks for it."""
    found = []
    for id in architecture_ids():
        explained = _best_dialect(architecture(id), groups, tensors)
        if explained is not None and explained.coverage >= _HALF:
            remarked = replace(explained, evidence=(remark,) if remark else ())
            found.append((remarked, _metadata_hint(architecture(id), metadata)))
    return found


def explain(target: Architecture, spoken: Dialect, groups: Iterable[Group]) -> dict[str, Base]:
    """The groups that a dialect explains: base → module and spelling.

    A malformed hybrid is looked up with its dots flattened and a stray trailing underscore removed.
    """
    bases = spoken.bases(target)
    found: dict[str, Base] = {}
    for group in groups:
        meanings = bases.get(group.base) or bases.get(group.base.replace(".", "_").rstrip("_"), ())
        strict = group.base in bases
        for meaning in meanings:
            if (strict or meaning.spelling.malformed) and _matches(target, meaning, group):
                found[group.base] = meaning
                break
    return found


def _matches(target: Architecture, meaning: Base, group: Group) -> bool:
    if not group.suffixes <= _suffixes(meaning):
        return False
    return any(group.extent.fits(shape) for shape in target.shapes(meaning.module))


def _suffixes(meaning: Base) -> frozenset[str]:
    return _suffix_set(tuple(suffix for row in meaning.spelling.suffixes.values() for suffix in row))


@lru_cache(maxsize=64)
def _suffix_set(suffixes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(suffixes)


def _best_dialect(target: Architecture, groups: Sequence[Group], tensors: int) -> Candidate | None:
    candidates = []
    for spoken in dialects().values():
        if not _plausible(spoken.prefixes(target), groups):
            continue
        explained = explain(target, spoken, groups)
        if explained:
            candidates.append((_candidate(target, spoken, explained, groups, tensors), spoken.rank_order))
    if not candidates:
        return None
    return min(candidates, key=lambda pair: (-pair[0].coverage, pair[0].malformed, pair[1]))[0]


def _plausible(prefixes: frozenset[str], groups: Sequence[Group]) -> bool:
    """Whether any of a sample of bases begins as the dialect's keys do."""
    beginnings = tuple(prefixes)
    sample = [*groups[:32], *groups[-32:], *groups[:: max(1, len(groups) // 32)]]
    return any(group.base.startswith(beginnings) for group in sample)


def _candidate(
    target: Architecture, spoken: Dialect, explained: Mapping[str, Base], groups: Sequence[Group], tensors: int
) -> Candidate:
    covered = sum(len(group.suffixes) for group in groups if group.base in explained)
    modules = {base: meaning.module for base, meaning in explained.items()}
    return Candidate(
        dialect=spoken.id,
        architecture=target.id,
        coverage=covered / tensors if tensors else 0.0,
        fill=_fill(target, set(modules.values())),
        malformed=any(meaning.spelling.malformed for meaning in explained.values()),
        evidence=(),
        modules=modules,
    )


def family(path: str) -> str:
    """A module path with its indices blanked: what trainers switch on or off as a whole.

    >>> family("transformer_blocks.3.attn.to_q")
    'transformer_blocks.#.attn.to_q'
    """
    return _NUMBER.sub("#", path)


@lru_cache(maxsize=64)
def _family_sizes(id: str) -> Mapping[tuple[Component, str], int]:
    target = architecture(id)
    sizes: Counter[tuple[Component, str]] = Counter()
    for path in (*target.modules, *target.fused):
        sizes[Component.DENOISER, family(path)] += 1
    for encoder in target.encoders.values():
        sizes.update((encoder.component, family(path)) for path in encoder.modules)
    return sizes


def _fill(target: Architecture, modules: set[ModuleRef]) -> float:
    sizes = _family_sizes(target.id)
    touched = {(module.component, family(module.path)) for module in modules}
    present = sum(sizes[key] for key in touched)
    return len(modules) / present if present else 0.0


def _metadata_hint(target: Architecture, metadata: Mapping[str, str]) -> str:
    """The metadata entry that names this architecture, as `key=value`; empty if none does."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        value = metadata.get(key, "")
        if value and value.lower().startswith(tuple(hint.lower() for hint in target.hints)):
            return f"{key}={value[:80]}"
    return ""


def _order(candidate: Candidate, hint: str) -> tuple[float, float, bool, int, int]:
    target = architecture(candidate.architecture)
    untouched = len(target.modules) - len(candidate.modules)
    return (-candidate.coverage, -candidate.fill, not hint, target.prior, untouched)


def _with_evidence(candidate: Candidate, hint: str) -> Candidate:
    counts = Counter(module.component.value for module in candidate.modules.values())
    evidence = [f"{number} modules of {name} named and sized" for name, number in sorted(counts.items())]
    evidence.append(f"{candidate.fill:.0%} of the touched families present")
    if hint:
        evidence.append(f"metadata: {hint}")
    return replace(candidate, evidence=(*candidate.evidence, *evidence))
