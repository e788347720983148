"""What a file is, from its header alone: dialect, architecture, parametrizations, ranks, and who says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.dylora import is_dylora
from hubtool.adapters.grouping import group_tensors
from hubtool.adapters.unknown import decode_unknown
from hubtool.errors import NotAnAdapter, UnknownArchitecture
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.naming.address import Role
from hubtool.naming.unknown import Relative, relatives
from hubtool.operations.header_words import title_of, trained_base, trigger_words
from hubtool.operations.kinds import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.hashing import Hashes
    from hubtool.formats.tensor import LazyTensor


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest of several numbers."""

    min: float
    max: float


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One explanation of the keys."""

    dialect: str
    architecture: str
    coverage: float
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that the header says; the fields are the contract's."""

    path: Path
    kind: str  # "adapter", "checkpoint", "embedding" or "other"
    what: str  # the kind in words
    dialect: str | None
    architecture: str | None
    candidates: tuple[CandidateReport, ...]
    ambiguous: bool
    malformed: bool
    parametrizations: Mapping[str, int]
    modifiers: tuple[str, ...]
    components: Mapping[str, int]
    modules: int
    rank: Range | None
    alpha: Range | None
    dtypes: Mapping[str, int]
    coverage: float
    leftovers: tuple[str, ...]
    trigger_words: tuple[str, ...]
    base_model: str | None
    title: str | None
    size_bytes: int
    tensors: int
    hashes: Hashes | None
    metadata: Mapping[str, str]
    relatives: tuple[Relative, ...] = ()  # the nearest known architectures, where none explains the adapter


def inspect(path: Path, *, hashes: bool = False, architecture: str | None = None) -> Inspection:
    """Describe a file. Reads the header only, unless `hashes` are wanted.

    Raises:
        FileProblem: the file is no sound safetensors file.
    """
    return inspect_file(read_safetensors(path), hashes=hashes, architecture=architecture)


def inspect_file(file: SafetensorsFile, *, hashes: bool = False, architecture: str | None = None) -> Inspection:
    """Describe an open file (see `inspect`)."""
    explained = _adapter(file, architecture)
    kind, what = kind_of(file, explained)
    adapter = explained or (decode_unknown(file) if kind == "adapter" else None)
    layers = list(adapter.layers.values()) if adapter else []
    candidates = adapter.identification.candidates if adapter else ()
    ranks = [rank for layer in layers if (rank := layer.rank)]
    return Inspection(
        path=file.path,
        kind=kind,
        what=what,
        dialect=adapter.dialect if adapter else None,
        architecture=explained.architecture.id if explained else None,
        candidates=tuple(CandidateReport(c.dialect, c.architecture, c.coverage, c.evidence) for c in candidates),
        ambiguous=bool(adapter and adapter.identification.ambiguous),
        malformed=bool(adapter and adapter.malformed),
        parametrizations=_families(layers, file.metadata),
        modifiers=tuple(sorted({modifier for layer in layers for modifier in layer.modifiers})),
        components=dict(Counter(module.component.value for module in explained.layers)) if explained else {},
        modules=len(layers),
        rank=_range(ranks),
        alpha=_range(_alphas(layers)),
        dtypes=dict(Counter(tensor.dtype for tensor in file.tensors.values())),
        coverage=_coverage(file, explained),
        leftovers=tuple(adapter.leftovers) if adapter else tuple(file.tensors) if kind == "other" else (),
        trigger_words=trigger_words(file.metadata),
        base_model=trained_base(file.metadata),
        title=title_of(file.metadata),
        size_bytes=file.size_bytes,
        tensors=len(file.tensors),
        hashes=_hashes(file.path) if hashes else None,
        metadata=file.metadata,
        relatives=_relatives(file) if adapter and not explained else (),
    )


def _relatives(file: SafetensorsFile) -> tuple[Relative, ...]:
    grouped = group_tensors(file.tensors)
    return relatives(grouped.groups, grouped.size)


def _families(layers: Iterable[Layer], metadata: Mapping[str, str]) -> dict[str, int]:
    """Modules of each family; DyLoRA's tensors are LoRA's, and the metadata say which it is."""
    lora = "dylora" if is_dylora(metadata) else "lora"
    families = (family.id for layer in layers if (family := layer.parametrization))
    return dict(Counter(lora if family == "lora" else family for family in families))


def _hashes(path: Path) -> Hashes:
    from hubtool.formats.hashing import hash_file  # noqa: PLC0415  # 20 ms that a look at the header never needs

    return hash_file(path)


def _adapter(file: SafetensorsFile, architecture: str | None) -> Adapter | None:
    try:
        return decode(file, architecture_id=architecture)
    except (NotAnAdapter, UnknownArchitecture):
        if architecture:
            raise
        return None


def _coverage(file: SafetensorsFile, adapter: Adapter | None) -> float:
    if adapter is None or not file.tensors:
        return 0.0
    return 1 - len(adapter.leftovers) / len(file.tensors)


def _alphas(layers: Iterable[Layer]) -> list[float]:
    """Alphas that are plain numbers; validation names the others."""
    tensors = (layer.tensors.get(Role.ALPHA) for layer in layers)
    return [value for tensor in tensors if tensor is not None and (value := _number(tensor)) is not None]


def _number(tensor: LazyTensor) -> float | None:
    try:
        value = tensor.scalar()
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _range(values: Iterable[float]) -> Range | None:
    found = list(values)
    return Range(min(found), max(found)) if found else None
