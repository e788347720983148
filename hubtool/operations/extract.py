"""Extract a LoRA from a tuned checkpoint and the base it was trained from: ΔW = tuned − base, factorised module by module.

Streaming: both checkpoints stay mapped files, and memory holds a few modules at a time. The method is `hubtool.operations.svd`.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import encode
from hubtool.adapters.fusion import fit
from hubtool.adapters.layer import Layer
from hubtool.errors import IncompatibleCheckpoints, OutputExists, UsageProblem
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import write_safetensors
from hubtool.naming.address import Role
from hubtool.naming.dialect import dialect
from hubtool.operations.extract_allocation import HEADROOM, even_rank, fit_to_size
from hubtool.operations.extract_difference import Workspace
from hubtool.operations.extract_layers import Extracted, Plan, extract_layers
from hubtool.operations.extract_metadata import describe
from hubtool.operations.extract_pairs import Comparison, Pair, as_named, compare
from hubtool.operations.ranks import EnergyRank, FixedRank, RankRule, ThresholdRank

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hubtool.formats.tensor import LazyTensor

DEFAULT_RANK = 32
MAX_WORKERS = 4  # each holds the largest module; more than this many hardly gain, the memory bus being the limit
_NO_LIMIT = 1 << 30
_NOISY = 0.25  # share of the change that rounding explains, from which on it is worth a warning


@dataclass(frozen=True, slots=True)
class ExtractOptions:
    """What to extract and how; at most one of `energy`, `threshold` and `max_size`, whose ranks `rank` then limits."""

    rank: int | None = None  # of linear layers and 1×1 convolutions; None: DEFAULT_RANK, or no limit
    conv_rank: int | None = None  # of larger convolutions; None: as `rank`; 0: no resnets and samplers at all
    energy: float | None = None  # smallest rank per module that holds this share of ‖ΔW‖²
    threshold: float | None = None  # keep singular values greater than this
    max_size: int | None = None  # bytes of the file; ranks go where they hold the most energy per byte
    components: Sequence[str] = ()  # empty: all that both checkpoints hold
    dialect: str = "kohya"
    dtype: str = "F16"
    method: Literal["randomized", "exact"] = "randomized"
    workers: int | None = None  # None: the cores at hand, at most MAX_WORKERS
    hash_inputs: bool = False
    force: bool = False
    dry_run: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)  # bytes compared, bytes in all


@dataclass(frozen=True, slots=True)
class ExtractedLayer:
    """One module of the result."""

    module: str
    component: str
    rank: int
    energy: float  # share of ‖ΔW‖² that the factors hold
    relative_error: float  # ‖ΔW − BA‖ / ‖ΔW‖ with the factors as stored


@dataclass(frozen=True, slots=True)
class Ranks:
    """Smallest and largest rank."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extraction did; the fields are the contract's. Figures are None when nothing was computed (`dry_run`)."""

    output: Path
    base: Path
    tuned: Path
    architecture: str
    dialect: str
    dtype: str
    components: dict[str, int]  # modules of each
    modules: int
    rank: Ranks | None
    energy: float | None
    relative_error: float | None
    rounding: float | None  # share of the change that the rounding of the two checkpoints explains
    left_out: float | None  # share of the change outside the modules that a LoRA targets
    skipped_unchanged: int
    size_bytes: int | None
    seconds: float
    peak_memory_bytes: int | None  # of this process so far, mapped pages included; None where it is not to be had
    notes: tuple[str, ...]
    layers: tuple[ExtractedLayer, ...]


def extract(tuned: Path, base: Path, output: Path, options: ExtractOptions | None = None) -> Extraction:
    """Write to `output` the LoRA that turns `base` into `tuned`, as nearly as its rank allows.

    Raises:
        UsageProblem: options that contradict each other.
        FileProblem, CheckpointProblem: a checkpoint cannot be read.
        IncompatibleCheckpoints: the two do not belong together, or are the same.
        NonFinite: NaN or infinity among the weights.
        NotRepresentable: the dialect cannot name a module.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    started = time.perf_counter()
    options = options or ExtractOptions()
    _check(options, output, (tuned, base))
    comparison = compare(base, tuned, options.components)
    pairs = as_named(comparison.targets, comparison.architecture, options.dialect)
    pairs = [pair for pair in pairs if options.conv_rank != 0 or not pair.is_convolutional]
    _check_dialect(comparison, pairs, options.dialect)
    layers: list[Extracted] = []
    if not options.dry_run:
        even = even_rank(pairs, options.dtype, options.max_size) if options.max_size is not None else DEFAULT_RANK
        plan = Plan(lambda pair: _rule(options, pair, even), options.dtype, options.method == "exact")
        results = extract_layers(pairs, plan, options.workers or _workers(), options.progress)
        layers = [layer for layer in results if layer is not None]
        if options.max_size is not None:
            layers = fit_to_size(layers, options.max_size)
        if not layers:
            message = (
                f"{tuned.name} and {base.name} are the same in all {len(pairs)} modules: there is nothing to extract."
            )
            raise IncompatibleCheckpoints(tuned, message, hint="Check that these are the files you mean.")
        _write(output, comparison, layers, options)
    return _report(output, comparison, options, _Outcome(pairs, layers, started))


# ---------------------------------------------------------------- before


def _check(options: ExtractOptions, output: Path, inputs: Sequence[Path]) -> None:
    asked = [name for name in ("energy", "threshold", "max_size") if getattr(options, name) is not None]
    if len(asked) > 1:
        flags = " and ".join(f"`--{name.replace('_', '-')}`" for name in asked)
        raise UsageProblem(f"{flags} each decide the ranks.", hint="Give one of them.")
    if options.energy is not None and not 0 < options.energy <= 1:
        raise UsageProblem(f"An energy is a share between 0 and 1, not {options.energy}.", hint="Try `--energy 0.9`.")
    if options.threshold is not None and not 0 < options.threshold < math.inf:
        raise UsageProblem(f"A threshold is a positive number, not {options.threshold}.")
    if options.rank is not None and options.rank < 1:
        raise UsageProblem(f"A rank is at least 1, not {options.rank}.")
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise UsageProblem(f"{output} is an input.", hint="Choose another name with `-o`.")
    if os.path.lexists(output) and not options.force:
        raise OutputExists(output)
    dialect(options.dialect)


def _check_dialect(comparison: Comparison, pairs: Sequence[Pair], dialect_id: str) -> None:
    """Fail before the work, not after it: every module has a name, or (with halves swapped) gets one when it is written."""
    target, spoken = comparison.architecture, dialect(dialect_id)
    swapped = {part for row in target.fused.values() if row.swapped for part in row.parts}
    for pair in pairs:
        if pair.module.path not in swapped:
            spoken.base(target, pair.module)


def _rule(options: ExtractOptions, pair: Pair, even: int) -> RankRule:
    """How many singular values a module keeps; `even` is the rank where nothing is said."""
    rank = options.conv_rank if pair.is_kernel and options.conv_rank is not None else options.rank
    if options.energy is not None:
        return EnergyRank(options.energy, rank or _NO_LIMIT)
    if options.threshold is not None:
        return ThresholdRank(options.threshold, rank or _NO_LIMIT)
    most = HEADROOM * even if options.max_size is not None else even
    return FixedRank(min(rank or most, pair.shape[0], math.prod(pair.shape[1:])))


def _workers() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_WORKERS)


# ---------------------------------------------------------------- after


def _write(output: Path, comparison: Comparison, layers: Sequence[Extracted], options: ExtractOptions) -> None:
    """The adapter in the dialect asked for. Its scale is 1 (alpha = rank), so a dialect without alphas loses nothing."""
    spoken = dialect(options.dialect)
    found = {}
    for layer in layers:
        if layer.rank:
            spoken_alpha = spoken.says(Role.ALPHA, layer.module.component)
            found[layer.module] = Layer(
                {role: tensor for role, tensor in layer.tensors.items() if spoken_alpha or role is not Role.ALPHA}
            )
    adapter = Adapter(comparison.architecture, found, describe(comparison, layers, options, output.stem))
    fitted = fit(adapter, options.dialect).adapter
    tensors: dict[str, LazyTensor] = encode(fitted, options.dialect)
    with atomic_output(output, force=options.force) as out:
        write_safetensors(out, tensors, fitted.metadata)


@dataclass(frozen=True, slots=True)
class _Outcome:
    pairs: Sequence[Pair]
    layers: Sequence[Extracted]
    started: float


def _report(output: Path, comparison: Comparison, options: ExtractOptions, outcome: _Outcome) -> Extraction:
    kept = [layer for layer in outcome.layers if layer.rank]
    norm = sum(layer.squared_norm for layer in outcome.layers)
    error = sum(max(layer.squared_error, 0.0) for layer in outcome.layers)
    rounding = sum(layer.rounding for layer in outcome.layers)
    modules = [layer.module for layer in kept] if outcome.layers else [pair.module for pair in outcome.pairs]
    names = [module.component.value for module in modules]
    beside = _change_beside(comparison) if norm else {}
    return Extraction(
        output=output,
        base=comparison.base.path,
        tuned=comparison.tuned.path,
        architecture=comparison.architecture.id,
        dialect=options.dialect,
        dtype=options.dtype,
        components={name: names.count(name) for name in dict.fromkeys(names)},
        modules=len(modules),
        rank=Ranks(min(layer.rank for layer in kept), max(layer.rank for layer in kept)) if kept else None,
        energy=1 - error / norm if norm else None,
        relative_error=math.sqrt(error / norm) if norm else None,
        rounding=min(rounding / norm, 1.0) if norm else None,
        left_out=sum(beside.values()) / (norm + sum(beside.values())) if norm else None,
        skipped_unchanged=len(outcome.pairs) - len(outcome.layers) if outcome.layers else 0,
        size_bytes=output.stat().st_size if outcome.layers else None,
        seconds=time.perf_counter() - outcome.started,
        peak_memory_bytes=peak_memory_bytes(),
        notes=(*comparison.notes, *_remarks(comparison, beside, rounding / norm if norm else 0.0)),
        layers=tuple(_layer(layer) for layer in kept),
    )


def _layer(layer: Extracted) -> ExtractedLayer:
    error = max(layer.squared_error, 0.0) / layer.squared_norm
    return ExtractedLayer(layer.module.path, layer.module.component.value, layer.rank, 1 - error, math.sqrt(error))


def _change_beside(comparison: Comparison) -> dict[str, float]:
    """‖change‖² of everything that a LoRA does not carry, by name; only what did change."""
    workspace = Workspace()
    changes = {name: workspace.squared_change(base, tuned) for name, base, tuned in comparison.beside}
    return {name: change for name, change in changes.items() if change and math.isfinite(change)}


def _remarks(comparison: Comparison, beside: dict[str, float], rounding: float) -> list[str]:
    remarks = []
    if beside:
        first = max(beside, key=lambda name: beside[name])
        remarks.append(
            f"{len(beside)} tensors changed that a LoRA does not carry (outer layers, norms, biases, embeddings, VAE), "
            f"most of all {first}."
        )
    if rounding > _NOISY:
        dtypes = sorted(
            {weight.tensor.dtype for pair in comparison.targets for rows in pair.rows for weight in rows.weights}
        )
        remarks.append(
            f"About {min(rounding, 1):.0%} of the difference is what rounding to {' and '.join(dtypes)} makes; "
            "checkpoints in higher precision would show the change itself."
        )
    return remarks


def peak_memory_bytes() -> int | None:
    """The most memory that this process held, mapped pages included; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # not ru_maxrss, which a process inherits from the one that started it
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(rows["VmHWM"].split()[0]) * 1024
    try:
        import resource  # noqa: PLC0415  # there is none on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
