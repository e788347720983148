"""Files of base models that no architecture here describes: whose prefixes and suffixes they have, and whose names they share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.architecture import Architecture, architecture, architecture_ids
from hubtool.naming.dialect import dialects
from hubtool.naming.identify import explain
from hubtool.naming.outline import known_outlines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.naming.identify import Group
    from hubtool.naming.spelling import Spelling

UNKNOWN = "unknown"
_SAMPLE = 128  # groups looked at
_NEAREST = 3
#: What stands for a name that only an architecture knows.
_PLACES = {
    "{denoiser}": r"(?:unet|transformer)(?:_\d)?",
    "{diffusers}": r"text_encoder(?:_\d)?",
    "{kohya}": r"te\d?",
    "{onetrainer}": r"te\d?",
    "{comfyui}": r"\w+",
    "{component}": r"(?:clip_[lgh]|t5|llama|gemma|qwen)",
}


class Cut(NamedTuple):
    """A base cut after its prefix."""

    prefix: str
    path: str
    is_denoiser: bool


@dataclass(frozen=True, slots=True)
class Relative:
    """A known architecture whose names an unknown one shares in part."""

    architecture: str
    names: float  # share of the modules whose name, numbers aside, it has too
    coverage: float  # share of the tensors that fit its modules, numbers and sizes included
    evidence: tuple[str, ...]


def unknown_architecture(denoiser: str, modules: Mapping[str, tuple[int, ...]]) -> Architecture:
    """An architecture that stands for one we do not know: the modules of one file, under their own names."""
    empty: Mapping[str, str] = MappingProxyType({})
    return Architecture(
        id=UNKNOWN,
        title="an unknown base model",
        denoiser=denoiser,
        kohya="diffusers",
        prior=1000,
        hints=(),
        modules=modules,
        original=empty,
        fused=MappingProxyType({}),
        encoders=MappingProxyType({}),
    )


# ---------------------------------------------------------------- dialects


def likeliest_dialect(groups: Sequence[Group]) -> str:
    """The dialect whose prefixes and suffixes most groups have; a prefix counts for more than none."""
    sample = groups[:: max(1, len(groups) // _SAMPLE)]
    points = {spoken.id: sum(_points(spoken.id, group) for group in sample) for spoken in dialects().values()}
    return min(dialects().values(), key=lambda spoken: (-points[spoken.id], spoken.rank_order)).id


def cut(base: str, dialect_id: str) -> Cut:
    """What a dialect puts in front of a module's name, and the name; no prefix where it has none of the dialect's."""
    for pattern, is_denoiser in _patterns(dialect_id):
        if found := pattern.match(base):
            return Cut(found[0], base[found.end() :], is_denoiser)
    return Cut("", base, is_denoiser=True)


def _points(dialect_id: str, group: Group) -> int:
    """3 for a prefix and the suffixes, 2 if that is a malformed hybrid, 1 for the suffixes alone."""
    best = 0
    for spelling in _plain(dialect_id):
        known = {suffix for row in spelling.suffixes.values() for suffix in row}
        if group.suffixes <= known:
            named = any(pattern.match(group.base) for pattern, _ in _of(spelling))
            best = max(best, 3 - spelling.malformed if named else int("" in spelling.denoiser))
    return best


def _plain(dialect_id: str) -> list[Spelling]:
    """Spellings of any model that leave a module's path as it is."""
    return [s for s in dialects()[dialect_id].spellings if not (s.respell or s.only) or s.naming == "numbered"]


@lru_cache(maxsize=256)
def _of(spelling: Spelling) -> tuple[tuple[re.Pattern[str], bool], ...]:
    """What its prefixes look like, the longest first, and whether they are the denoiser's."""
    rows = [(prefix, True) for prefix in spelling.denoiser] + [(prefix, False) for prefix in spelling.encoder]
    found = []
    for template, is_denoiser in sorted(rows, key=lambda row: -len(row[0])):
        text = re.escape(template)
        for place, pattern in _PLACES.items():
            text = text.replace(re.escape(place), pattern)
        if template:
            found.append((re.compile(text), is_denoiser))
    return tuple(found)


@lru_cache(maxsize=64)
def _patterns(dialect_id: str) -> tuple[tuple[re.Pattern[str], bool], ...]:
    rows = [row for spelling in _plain(dialect_id) for row in _of(spelling)]
    return tuple(sorted(rows, key=lambda row: -len(row[0].pattern)))


# ---------------------------------------------------------------- relatives


def relatives(groups: Sequence[Group], tensors: int) -> tuple[Relative, ...]:
    """The known architectures nearest to a file of none of them, best first; empty if no name is shared."""
    bases = [group.base for group in groups[:: max(1, len(groups) // _SAMPLE)]]
    shares = {id: len(known_outlines(bases, id)) / len(bases) for id in architecture_ids()} if bases else {}
    near = sorted((id for id in shares if shares[id]), key=lambda known: (-shares[known], architecture(known).prior))
    found = [_relative(architecture(id), shares[id], groups, tensors) for id in near[:_NEAREST]]
    return tuple(sorted(found, key=lambda relative: (-relative.coverage, -relative.names)))


def _relative(target: Architecture, share: float, groups: Sequence[Group], tensors: int) -> Relative:
    explained = max((explain(target, spoken, groups) for spoken in dialects().values()), key=len)
    covered = sum(len(group.suffixes) for group in groups if group.base in explained)
    coverage = covered / tensors if tensors else 0.0
    names = f"{share:.0%} of the module names, numbers aside, are {target.title}'s too"
    return Relative(target.id, share, coverage, (names, f"{coverage:.0%} of the tensors fit its modules"))
