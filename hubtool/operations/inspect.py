"""What a file is, from its header alone: dialect, architecture, parametrizations, ranks, and who says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.grouping import group_tensors
from hubtool.adapters.metadata import read_json
from hubtool.errors import NotAnAdapter, UnknownArchitecture
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.hashing import Hashes
    from hubtool.formats.tensor import LazyTensor

#: Beginnings or parts of keys that only a checkpoint has.
_CHECKPOINT_MARKS = (
    "model.diffusion_model.", "cond_stage_model.", "conditioner.embedders.", "first_stage_model.",
    "model.layers.", "lm_head.", "text_model.encoder.", "double_blocks.", "joint_blocks.", "down_blocks.", "input_blocks.",
    "transformer_blocks.", "blocks.0.",
)  # fmt: skip
_CONTROLNET_MARKS = (
    "control_model.",
    "controlnet_cond_embedding.",
    "lora_controlnet",
    "controlnet_down_blocks.",
    "zero_convs.",
)
_VAE_MARKS = ("decoder.up.", "decoder.up_blocks.", "decoder.conv_in.", "encoder.conv_in.", "post_quant_conv.")
_EMBEDDING_KEYS = {"emb_params", "clip_l", "clip_g", "string_to_param", "t5xxl"}
_LONGEST_WORDS = 20_000  # characters of trigger words
_TRIGGER_KEYS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words", "instance_prompt")


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


def inspect(path: Path, *, hashes: bool = False, architecture: str | None = None) -> Inspection:
    """Describe a file. Reads the header only, unless `hashes` are wanted.

    Raises:
        FileProblem: the file is no sound safetensors file.
    """
    return inspect_file(read_safetensors(path), hashes=hashes, architecture=architecture)


def inspect_file(file: SafetensorsFile, *, hashes: bool = False, architecture: str | None = None) -> Inspection:
    """Describe an open file (see `inspect`)."""
    adapter = _adapter(file, architecture)
    kind, what = kind_of(file, adapter)
    layers = list(adapter.layers.values()) if adapter else []
    candidates = adapter.identification.candidates if adapter else ()
    ranks = [rank for layer in layers if (rank := layer.rank)]
    return Inspection(
        path=file.path,
        kind=kind,
        what=what,
        dialect=adapter.dialect if adapter else None,
        architecture=adapter.architecture.id if adapter else None,
        candidates=tuple(CandidateReport(c.dialect, c.architecture, c.coverage, c.evidence) for c in candidates),
        ambiguous=bool(adapter and adapter.identification.ambiguous),
        malformed=bool(adapter and adapter.malformed),
        parametrizations=dict(Counter(family.id for layer in layers if (family := layer.parametrization))),
        modifiers=tuple(sorted({modifier for layer in layers for modifier in layer.modifiers})),
        components=dict(Counter(module.component.value for module in adapter.layers)) if adapter else {},
        modules=len(layers),
        rank=_range(ranks),
        alpha=_range(_alphas(layers)),
        dtypes=dict(Counter(tensor.dtype for tensor in file.tensors.values())),
        coverage=_coverage(file, adapter),
        leftovers=tuple(adapter.leftovers) if adapter else tuple(file.tensors) if kind == "other" else (),
        trigger_words=trigger_words(file.metadata),
        base_model=_first(file.metadata, "ss_base_model_version", "modelspec.architecture"),
        title=_first(file.metadata, "modelspec.title", "ss_output_name", "ssmd_display_name"),
        size_bytes=file.size_bytes,
        tensors=len(file.tensors),
        hashes=_hashes(file.path) if hashes else None,
        metadata=file.metadata,
    )


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


def _first(metadata: Mapping[str, str], *keys: str) -> str | None:
    """The first entry that says something; trainers write "None" for nothing."""
    return next((metadata[key] for key in keys if metadata.get(key, "None") not in {"", "None"}), None)


# ---------------------------------------------------------------- kinds


def kind_of(file: SafetensorsFile, adapter: Adapter | None) -> tuple[str, str]:
    """(kind of the contract, the same in words); `adapter` is what the file was read as, if anything."""
    keys = file.tensors
    if adapter is not None and 2 * len(adapter.leftovers) <= len(keys):
        return "adapter", "a LoRA-family adapter"
    if adapter is None and group_tensors(keys).size * 2 > len(keys):
        return "adapter", "an adapter of an unknown architecture"
    return _other_kind(keys)


def _other_kind(keys: Mapping[str, LazyTensor]) -> tuple[str, str]:
    if _marked(keys, _CONTROLNET_MARKS):
        return "other", "a ControlNet"
    if keys.keys() <= _EMBEDDING_KEYS or any(key.startswith("string_to_param") for key in keys):
        return "embedding", "a textual-inversion embedding"
    if _marked(keys, _VAE_MARKS) and not _marked(keys, ("model.diffusion_model.",)):
        return "other", "a VAE"
    if _marked(keys, _CHECKPOINT_MARKS):
        return "checkpoint", "a checkpoint (whole model weights)"
    return "other", "no LoRA-family file"


def _marked(keys: Iterable[str], marks: tuple[str, ...]) -> bool:
    return any(mark in key for key in keys for mark in marks)


# ---------------------------------------------------------------- words


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Trigger words that the header states outright, or the class tokens it was trained with; never frequent tags.

    `ss_datasets` is JSON of a trainer.
    """
    for key in _TRIGGER_KEYS:
        words = metadata.get(key, "")[:_LONGEST_WORDS].split(",")
        if found := tuple(dict.fromkeys(word.strip() for word in words if word.strip())):
            return found
    return tuple(dict.fromkeys(_class_tokens(metadata.get("ss_datasets", ""))))


def _class_tokens(text: str) -> list[str]:
    datasets = read_json(text)
    rows = [row for row in datasets if isinstance(row, dict)] if isinstance(datasets, list) else []
    subsets = [subset for row in rows if isinstance(row.get("subsets"), list) for subset in row["subsets"]]
    tokens = [subset.get("class_tokens") for subset in subsets if isinstance(subset, dict)]
    return [token for token in tokens if isinstance(token, str) and token]
