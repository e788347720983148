"""What an extraction says about itself: figures of the file and of every module, in what it falls short, which rank would do."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.tensors import to_torch
from hubtool.operations.extract_difference import Workspace
from hubtool.operations.svd import squared_norm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hubtool.operations.extract_layers import Extracted
    from hubtool.operations.extract_options import ExtractOptions
    from hubtool.operations.extract_pairs import Comparison, Pair
    from hubtool.operations.extract_small import SmallChange

MOST = 0.9  # share of the change's energy that `suggested_rank` holds
_NOISY = 0.25  # share of the change that rounding explains, from which on it is worth a warning
_NOTHING_BUT = 0.8  # from which on there is hardly anything else


@dataclass(frozen=True, slots=True)
class ExtractedLayer:
    """One module of the result."""

    module: str
    component: str
    rank: int
    energy: float  # share of ‖ΔW‖² that the factors hold
    relative_error: float  # ‖ΔW − BA‖ / ‖ΔW‖ with the factors as stored
    singular_values: tuple[float, ...]  # those that were kept, descending; none for LoKr, full and Tucker


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
    parametrization: str
    components: dict[str, int]  # modules of each
    modules: int
    rank: Ranks | None
    energy: float | None
    relative_error: float | None
    suggested_rank: (
        int | None
    )  # holds nine tenths of the energy in all modules; a lower bound beyond the largest rank found
    rounding: float | None  # share of the change that the rounding of the two checkpoints explains
    left_out: float | None  # share of the change outside what was extracted
    skipped_unchanged: int
    size_bytes: int | None
    seconds: float
    peak_memory_bytes: int | None  # of this process so far, mapped pages included; None where it is not to be had
    notes: tuple[str, ...]
    layers: tuple[ExtractedLayer, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was compared and what came of it."""

    pairs: Sequence[Pair]
    layers: Sequence[Extracted]  # of modules that changed; none in a dry run
    small: Sequence[SmallChange]
    started: float  # time.perf_counter()


def report(output: Path, comparison: Comparison, options: ExtractOptions, outcome: Outcome) -> Extraction:
    """The figures of an extraction."""
    kept = [layer for layer in outcome.layers if layer.rank]
    norm = sum(layer.squared_norm for layer in outcome.layers)
    error = sum(layer.squared_error for layer in outcome.layers)
    rounding = sum(layer.rounding for layer in outcome.layers) / norm if norm else None
    modules = [layer.module for layer in kept] if outcome.layers else [pair.module for pair in outcome.pairs]
    names = [module.component.value for module in modules]
    written = {name for change in outcome.small for name in change.names}
    beside = {} if options.dry_run else change_beside(comparison, written)
    left_out = sum(change for change in beside.values() if math.isfinite(change))
    changed = norm + left_out + sum(squared_norm(to_torch(change.values)[None].float()) for change in outcome.small)
    return Extraction(
        output=output,
        base=comparison.base.path,
        tuned=comparison.tuned.path,
        architecture=comparison.architecture.id,
        dialect=options.dialect,
        dtype=options.dtype,
        parametrization=options.parametrization,
        components={name: names.count(name) for name in dict.fromkeys(names)},
        modules=len(modules),
        rank=Ranks(min(layer.rank for layer in kept), max(layer.rank for layer in kept)) if kept else None,
        energy=1 - error / norm if norm else None,
        relative_error=math.sqrt(error / norm) if norm else None,
        suggested_rank=suggested_rank(outcome.layers),
        rounding=None if rounding is None else min(rounding, 1.0),
        left_out=left_out / changed if changed else None,
        skipped_unchanged=len(outcome.pairs) - len(outcome.layers) if outcome.layers else 0,
        size_bytes=None if options.dry_run else output.stat().st_size,
        seconds=time.perf_counter() - outcome.started,
        peak_memory_bytes=peak_memory_bytes(),
        notes=(*comparison.notes, *_remarks(outcome, beside, rounding or 0.0)),
        layers=tuple(_layer(layer) for layer in kept),
    )


def _layer(layer: Extracted) -> ExtractedLayer:
    error = layer.squared_error / layer.squared_norm
    values = tuple(float(f"{math.sqrt(energy):.6g}") for energy in layer.energies)
    module = layer.module
    return ExtractedLayer(module.path, module.component.value, layer.rank, 1 - error, math.sqrt(error), values)


def suggested_rank(layers: Sequence[Extracted]) -> int | None:
    """The smallest rank, the same for all modules, that holds `MOST` of the energy.

    Beyond the directions that were found, each further one holds at most what the last one did: a lower bound. None if a
    module's directions are not known.
    """
    if not layers or any(not layer.energies for layer in layers):
        return None
    wanted = MOST * sum(layer.squared_norm for layer in layers)
    found, rank = 0.0, 0
    longest = max(len(layer.energies) for layer in layers)
    while rank < longest and found < wanted:
        found += sum(_energy(layer, rank) for layer in layers)
        rank += 1
    further = sum(layer.energies[-1] for layer in layers)
    return rank if found >= wanted or not further else rank + math.ceil((wanted - found) / further)


def _energy(layer: Extracted, index: int) -> float:
    """What the direction holds; at most what the last one that was found does, and no more than is left."""
    if index < len(layer.energies):
        return layer.energies[index]
    left = layer.squared_norm - sum(layer.energies) - (index - len(layer.energies)) * layer.energies[-1]
    return max(min(layer.energies[-1], left), 0.0)


def change_beside(comparison: Comparison, written: Collection[str] = ()) -> dict[str, float]:
    """‖change‖² of everything that was not extracted, by name; only what did change, NaN and infinity included."""
    workspace = Workspace()
    changes = {
        name: workspace.squared_change(base, tuned) for name, base, tuned in comparison.beside if name not in written
    }
    return {name: change for name, change in changes.items() if change}


def _remarks(outcome: Outcome, beside: Mapping[str, float], rounding: float) -> list[str]:
    remarks = []
    if outcome.small:
        remarks.append(f"{len(outcome.small)} changes of biases and norms are written whole; few tools read them.")
    if beside:
        remarks.append(
            f"{counted(beside)} changed that a LoRA does not carry (outer layers, norms, biases, embeddings, VAE), "
            f"most of all {most_changed(beside)}."
        )
    if broken := [name for name, change in beside.items() if not math.isfinite(change)]:
        remarks.append(
            f"There is NaN or infinity in {broken[0]}{f' and {len(broken) - 1} others' if broken[1:] else ''}."
        )
    if dropped := sum(not layer.rank for layer in outcome.layers):
        modules = "1 module that changed is" if dropped == 1 else f"{dropped} modules that changed are"
        remarks.append(f"{modules} not in the LoRA: the rule keeps no direction of them.")
    if rounding > _NOISY:
        weights = [weight for pair in outcome.pairs for rows in pair.rows for weight in rows.weights]
        dtypes = " and ".join(sorted({weight.tensor.dtype for weight in weights}))
        share = f"About {min(rounding, 1):.0%} of the difference is what rounding to {dtypes} makes"
        remarks.append(
            f"{share}: there is hardly any change beside it, and the LoRA would be noise."
            if rounding > _NOTHING_BUT
            else f"{share}; checkpoints in higher precision would show the change itself."
        )
    return remarks


def counted(beside: Mapping[str, float]) -> str:
    """How many tensors."""
    return "1 tensor" if len(beside) == 1 else f"{len(beside)} tensors"


def most_changed(beside: Mapping[str, float]) -> str:
    """The name of the tensor that changed most; what is NaN or infinite counts most of all."""
    return max(beside, key=lambda name: beside[name] if math.isfinite(beside[name]) else math.inf)


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
