"""What an adapter does, in figures: norms, ranks as stored and as used, spectra, by module and by block.

Effective rank is exp of the entropy of pᵢ = σᵢ/Σσ (Roy & Vetterli 2007); stable rank is ‖ΔW‖²/σ₁² (Rudelson & Vershynin 2007).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.formats.safetensors import read_safetensors
from hubtool.operations.factors import changes_weight, is_additive, singular_values
from hubtool.operations.model_blocks import block_of, blocks
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import shape_of
from hubtool.operations.validate import refuse_broken

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.naming.address import ModuleRef


@dataclass(frozen=True, slots=True)
class ModuleStats:
    """One module; figures of the change are None where it depends on the base model."""

    module: str
    component: str
    block: str
    parametrization: str | None
    shape: tuple[int, ...]
    rank: int | None  # as stored
    alpha: float | None
    scale: float
    norm: float | None  # ‖ΔW‖
    rms: float | None  # of ΔW's elements: what compares modules of different sizes
    largest: float | None  # σ₁
    effective_rank: float | None
    stable_rank: float | None
    rank_90: int | None  # directions that hold 90 % of the energy
    rank_99: int | None


@dataclass(frozen=True, slots=True)
class BlockStats:
    """One block."""

    block: str
    modules: int
    norm: float | None  # of the modules that have one; None where none has
    energy_share: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """What `stats` found."""

    path: Path
    architecture: str
    dialect: str
    modules: int
    parametrizations: Mapping[str, int]
    norm: float | None  # of the modules that have one; None where none has
    effective_rank: float | None  # mean over the modules, weighted with their energy
    rank_90: int | None  # the rank that holds 90 % of the energy in nine modules of ten
    rank_99: int | None
    untrained: int  # modules whose change is nothing
    blocks: tuple[BlockStats, ...]
    layers: tuple[ModuleStats, ...]
    notes: tuple[str, ...]


def stats(
    path: Path,
    architecture_id: str | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Stats:
    """Figures of the adapter at `path`.

    Raises:
        FileProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter, NonFinite: the file cannot be used.
    """
    file = read_safetensors(path)
    adapter = decode(file, architecture_id=architecture_id)
    refuse_broken(file, adapter)
    modules = list(adapter.layers)
    rows = for_each(modules, lambda module: _module(adapter, module), workers=workers, progress=progress)
    energies = [row.norm**2 for row in rows if row.norm is not None]
    total = sum(energies)
    measured = [row for row in rows if row.norm]
    weighted = sum((row.effective_rank or 0.0) * (row.norm or 0.0) ** 2 for row in measured)
    return Stats(
        path=path,
        architecture=adapter.architecture.id,
        dialect=adapter.dialect,
        modules=len(rows),
        parametrizations=dict(Counter(row.parametrization for row in rows if row.parametrization)),
        norm=math.sqrt(total) if energies else None,
        effective_rank=weighted / total if total else None,
        rank_90=_nine_in_ten([row.rank_90 for row in measured if row.rank_90]),
        rank_99=_nine_in_ten([row.rank_99 for row in measured if row.rank_99]),
        untrained=sum(row.norm == 0 for row in rows),
        blocks=tuple(_blocks(adapter, rows, total)),
        layers=tuple(rows),
        notes=tuple(_notes(adapter)),
    )


def _module(adapter: Adapter, module: ModuleRef) -> ModuleStats:
    layer = adapter.layers[module]
    shape = shape_of(adapter.architecture, module, layer)
    values = _values(layer, shape)
    energies = None if values is None else values.square()
    norm = None if energies is None else math.sqrt(float(energies.sum()))
    kind = layer.parametrization
    return ModuleStats(
        module=module.path,
        component=module.component.value,
        block=block_of(adapter.architecture, module),
        parametrization=kind.id if kind else None,
        shape=shape,
        rank=layer.rank,
        alpha=layer.alpha,
        scale=layer.scale,
        norm=norm,
        rms=None if norm is None else norm / math.sqrt(math.prod(shape)),
        largest=None if values is None else float(values[:1].sum()),
        effective_rank=_effective(values) if norm and values is not None else None,
        stable_rank=norm**2 / float(values[0]) ** 2 if norm and values is not None else None,
        rank_90=_needed(energies, 0.9) if norm and energies is not None else None,
        rank_99=_needed(energies, 0.99) if norm and energies is not None else None,
    )


def _values(layer: Layer, shape: tuple[int, ...]) -> Tensor | None:
    """Singular values of the change; None where there is none, or it depends on the base model."""
    if not changes_weight(layer) or not is_additive(layer):
        return None
    return singular_values(layer, shape)


def _effective(values: Tensor) -> float:
    shares = values[values > 0] / values.sum()
    return float((-(shares * shares.log()).sum()).exp())


def _needed(energies: Tensor, share: float) -> int:
    sums = torch.cumsum(energies, 0)
    return min(int((sums < share * float(sums[-1])).sum()) + 1, len(energies))


def _nine_in_ten(values: Sequence[int]) -> int | None:
    return sorted(values)[math.ceil(0.9 * len(values)) - 1] if values else None


def _blocks(adapter: Adapter, rows: Sequence[ModuleStats], total: float) -> list[BlockStats]:
    found = []
    for name in blocks(adapter.architecture):
        inside = [row for row in rows if row.block == name]
        energies = [row.norm**2 for row in inside if row.norm is not None]
        if energies:
            share = sum(energies) / total if total else 0.0
            found.append(BlockStats(name, len(inside), math.sqrt(sum(energies)), share))
        elif inside:
            found.append(BlockStats(name, len(inside), None, None))
    return found


def _notes(adapter: Adapter) -> list[str]:
    dependent = [layer for layer in adapter.layers.values() if changes_weight(layer) and not is_additive(layer)]
    kinds = {"DoRA" if "dora" in layer.modifiers else kind.id for layer in dependent if (kind := layer.parametrization)}
    what = f" ({', '.join(sorted(kinds))})" if kinds else ""
    note = (
        f"{len(dependent)} modules{what} depend on the base model: how large their change is can't be told without it."
    )
    return [note] * bool(dependent)
