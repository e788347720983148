"""One adapter that does what several do together: Σ strengthᵢ · ΔWᵢ, module by module, whatever they are spelt and stored as.

* `concat`: the factors side by side, exact at the sum of the ranks;
* `svd`: the nearest LoRA of a rank, through the stacked factors;
* `ties`, `dare`: the papers' rules (`hubtool.operations.merge_rules`), then the nearest LoRA of a rank.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.fusion import fit
from hubtool.adapters.rewriting import recast
from hubtool.errors import AdapterProblem, NotRepresentable, UsageProblem
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.adapter_output import (
    Made,
    ModuleFigures,
    Ranks,
    check_output,
    common_dtype,
    figures,
    lora_layer,
    rank_range,
    spelt,
    whole_error,
    write,
)
from hubtool.operations.extract_report import peak_memory_bytes
from hubtool.operations.factors import FACTOR_ROLES, Factors, added, changes_weight, is_additive, truncated
from hubtool.operations.merge_exact import VECTOR_ROLES, joined, scaled_layer, vectors
from hubtool.operations.merge_metadata import describe
from hubtool.operations.merge_rules import DARE_DENSITY, TIES_DENSITY, Magnitudes, dare, ties
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import Share, placed
from hubtool.operations.ranks import EnergyRank, FixedRank, RankRule
from hubtool.operations.sources import Source, Weighted, nothing_left, off_notes, read_sources

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.adapters.layer import Layer

Method = Literal["concat", "svd", "ties", "dare"]
_NO_LIMIT = 1 << 30
_ROUNDING = 1e-6  # share of the parts' norm that float32 leaves of a sum which is nothing
_PROBES = 8  # vectors: ‖ΔW·v‖² of a Gaussian one is ‖ΔW‖² on average, at a k-th of the cost of inner products


@dataclass(frozen=True, slots=True)
class MergeOptions:
    """How to merge."""

    method: Method | None = None  # None: `svd` where a rank or energy is given, else `concat`
    rank: int | None = None  # None: the largest rank of any input
    conv_rank: int | None = None  # of convolutions larger than 1×1; None: as `rank`
    energy: float | None = None  # share of each merged change that is kept; `rank` is then the most
    density: float | None = None  # of `ties` and `dare`; None: TIES_DENSITY, DARE_DENSITY
    seed: int = 0  # of `dare`
    dialect: str | None = None  # None: the first file's
    dtype: str | None = None  # None: the inputs' with the most digits
    architecture: str | None = None
    workers: int | None = None
    force: bool = False
    dry_run: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    @property
    def chosen(self) -> Method:
        """The method that is meant."""
        return self.method or ("concat" if self.rank is None and self.energy is None else "svd")


@dataclass(frozen=True, slots=True)
class MergedModule:
    """One module of the result; figures are None where nothing was approximated."""

    module: str
    component: str
    rank: int | None
    energy: float | None
    relative_error: float | None
    files: int  # that change it


@dataclass(frozen=True, slots=True)
class Merging:
    """What a merge did. Figures are None where nothing was approximated."""

    output: Path
    inputs: tuple[Source, ...]
    architecture: str
    dialect: str
    dtype: str
    method: str
    exact: bool  # but for the rounding of stored values
    modules: int
    rank: Ranks | None
    energy: float | None
    relative_error: float | None
    size_bytes: int | None
    seconds: float
    peak_memory_bytes: int | None  # of this process so far, mapped pages included
    notes: tuple[str, ...]
    layers: tuple[MergedModule, ...]


class Term(NamedTuple):
    """What one file adds to a module."""

    file: int
    share: Share
    strength: float

    def factors(self) -> Factors:
        """The change at its strength."""
        return self.share.factors().scaled(self.strength)


class _Plan(NamedTuple):
    """What holds for every module."""

    options: MergeOptions
    spoken: str  # the dialect that is written
    dtype: str
    thresholds: Mapping[int, float]  # by file: the least magnitude that TIES keeps


class _Result(NamedTuple):
    layer: Layer | None
    made: Made | None = None  # where something was approximated
    cancels: bool = False  # the files' changes of the weight, which is left out


def merge(sources: Sequence[Source], output: Path, options: MergeOptions) -> Merging:
    """Write the merge of `sources` to `output`.

    Raises:
        UsageProblem: options that contradict each other.
        FileProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter, NonFinite: a file cannot be used.
        IncompatibleAdapters: the files are for different base models.
        AdapterProblem: every strength is 0, or the changes cancel.
        NotRepresentable: a change that cannot be added to others, or that the dialect has no word for.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    started = time.perf_counter()
    _check(options)
    check_output(output, [source.path for source in sources], options.dialect, force=options.force)
    files = read_sources(sources, options.architecture)
    spoken = options.dialect or files[0].adapter.dialect
    dtype = options.dtype or common_dtype(file.adapter for file in files)
    terms = _terms(files, spoken)
    if not terms:
        raise nothing_left("merge")
    options = replace(options, rank=options.rank or _largest_rank(terms)) if options.chosen != "concat" else options
    results: list[_Result] = []
    if not options.dry_run:
        plan = _Plan(options, spoken, dtype, _thresholds(terms, options))

        def work(module: ModuleRef) -> _Result:
            return _merged(module, terms[module], plan)

        results = for_each(list(terms), work, workers=options.workers, progress=options.progress)
        layers = {module: row.layer for module, row in zip(terms, results, strict=True) if row.layer is not None}
        if not layers:
            message = "The files cancel: at these strengths the sum of their changes is nothing but rounding."
            raise AdapterProblem("", message, hint="`hubtool conflicts` compares them.")
        metadata = describe(files, list(layers.values()), options)
        adapter, _ = recast(Adapter(files[0].adapter.architecture, layers, metadata, dialect=spoken), dtype)
        tensors, metadata = spelt(adapter, spoken)
        write(output, tensors, metadata, force=options.force)
    made = [row.made for row in results if row.made is not None]
    error = whole_error(made)
    return Merging(
        output=output,
        inputs=tuple(sources),
        architecture=files[0].adapter.architecture.id,
        dialect=spoken,
        dtype=dtype,
        method=options.chosen,
        exact=not made,
        modules=sum(row.layer is not None for row in results) if results else len(terms),
        rank=rank_range(rank for row in results if row.layer and (rank := row.layer.rank)),
        energy=None if error is None else 1 - error * error,
        relative_error=error,
        size_bytes=output.stat().st_size if results else None,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes(),
        notes=tuple(_notes(files, results)),
        layers=tuple(
            _row(module, terms[module], row) for module, row in zip(terms, results, strict=False) if row.layer
        ),
    )


def _check(options: MergeOptions) -> None:
    if options.chosen == "concat" and (options.rank or options.energy or options.conv_rank):
        raise UsageProblem("`--method concat` keeps all ranks.", hint="Use `--method svd` with `--rank` or `--energy`.")
    if options.energy is not None and not 0 < options.energy <= 1:
        raise UsageProblem(
            f"An energy is a share between 0 and 1, not {options.energy:g}.", hint="Try `--energy 0.99`."
        )
    if options.density is not None and options.chosen not in {"ties", "dare"}:
        raise UsageProblem(
            f"`--density` means nothing to `--method {options.chosen}`.", hint="It is for ties and dare."
        )
    if options.density is not None and not 0 < options.density <= 1:
        raise UsageProblem(f"A density is a share between 0 and 1, not {options.density:g}.")


def _terms(files: Sequence[Weighted], spoken: str) -> dict[ModuleRef, list[Term]]:
    """What is added to each module that the dialect names; files at strength 0 add nothing."""
    found: dict[ModuleRef, list[Term]] = {}
    for index, file in enumerate(files):
        for module, shares in placed(_fitted(file.adapter, spoken), spoken).items():
            strength = file.strength(module)
            if strength:
                found.setdefault(module, []).extend(Term(index, share, strength) for share in shares)
    for terms in found.values():
        for term in terms:
            if not _adds_up(term.share.layer) and (len(terms) > 1 or term.strength != 1 or not term.share.is_whole):
                _refuse(term)
    return found


def _fitted(adapter: Adapter, spoken: str) -> Adapter:
    """The adapter by the modules of the dialect, where that can be done without arithmetic: it keeps ranks small."""
    try:
        return fit(adapter, spoken).adapter
    except NotRepresentable:
        return adapter  # cut and joined in the form of factors


def _adds_up(layer: Layer) -> bool:
    return is_additive(layer) and layer.tensors.keys() <= FACTOR_ROLES | VECTOR_ROLES | {Role.DIFF}


def _refuse(term: Term) -> NoReturn:
    layer = term.share.layer
    kind = "DoRA" if Role.MAGNITUDE in layer.tensors else layer.parametrization.id if layer.parametrization else "it"
    message = (
        f"The change of {layer.base} ({kind}) is more than a sum of factors, so it can't be added to others or scaled."
    )
    raise NotRepresentable(layer.base, message, hint="`hubtool bake` puts such adapters into a checkpoint.")


def _largest_rank(terms: Mapping[ModuleRef, Sequence[Term]]) -> int:
    ranks = [rank for rows in terms.values() for term in rows if (rank := term.share.layer.rank)]
    return max(ranks, default=1)


# ---------------------------------------------------------------- one module


def _thresholds(terms: Mapping[ModuleRef, Sequence[Term]], options: MergeOptions) -> dict[int, float]:
    """By file: where TIES trims, found in a pass of its own over every change. Empty for the other methods."""
    if options.chosen != "ties":
        return {}
    counted = {term.file: Magnitudes() for rows in terms.values() for term in rows}

    def count(module: ModuleRef) -> None:
        for file, change in _by_file(_weights(terms[module])).items():
            counted[file].add(change)

    for_each(list(terms), count, workers=options.workers)
    return {file: counts.threshold(options.density or TIES_DENSITY) for file, counts in counted.items()}


def _weights(terms: Sequence[Term]) -> list[Term]:
    """Those that change a weight which has rows and columns."""
    return [term for term in terms if changes_weight(term.share.layer) and len(term.share.shape) > 1]


def _by_file(terms: Sequence[Term]) -> dict[int, Tensor]:
    """Each file's change of one weight in full, at strength 1."""
    files = dict.fromkeys(sorted(term.file for term in terms))
    return {file: added([t.share.factors() for t in terms if t.file == file]).dense() for file in files}


def _merged(module: ModuleRef, terms: Sequence[Term], plan: _Plan) -> _Result:
    """The merged layer of one module."""
    options, spoken, dtype = plan.options, plan.spoken, plan.dtype
    weights = _weights(terms)
    alone = terms[0] if len(terms) == 1 and terms[0].share.is_whole else None
    if alone and (options.chosen == "concat" or not _adds_up(alone.share.layer)):
        return _Result(scaled_layer(alone.share.layer, alone.strength))
    beside = vectors(terms, spoken, dtype)
    cancels = options.chosen != "dare" and _cancels(weights)  # DARE thins each change in a way of its own
    if not weights or (cancels and options.chosen != "ties"):  # biases and norms add up as they are
        return _Result(beside, cancels=cancels)
    if options.chosen == "concat":
        return _Result(joined(module, weights, beside, dtype))
    made = _nearest(module, weights, plan)
    if cancels and not made.squared_norm:  # what TIES makes of a sum of nothing is something where it trims unevenly
        return _Result(beside, cancels=True)
    return _Result(made.layer.having({**made.layer.tensors, **(beside.tensors if beside else {})}), made)


def _cancels(terms: Sequence[Term]) -> bool:
    """Whether changes that are something add up to nothing, but for rounding: from what they make of a few random vectors."""
    if len({term.file for term in terms}) < 2:
        return False
    parts = [term.factors() for term in terms]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(parts[0].sides[1], _PROBES, dtype=torch.float64, generator=generator)
    seen = torch.stack([part.applied(vectors) for part in parts])
    norm = float(seen.norm())
    return norm > 0 and float(seen.sum(0).norm()) <= _ROUNDING * norm


def _nearest(module: ModuleRef, terms: Sequence[Term], plan: _Plan) -> Made:
    """The LoRA nearest to what the method makes of the changes."""
    shape, name = terms[0].share.shape, terms[0].share.layer.base
    found = truncated(_sum(module, terms, plan), _rule(shape, plan.options), name)
    return lora_layer(found, shape, module.path, (plan.dtype, 1.0))


def _sum(module: ModuleRef, terms: Sequence[Term], plan: _Plan) -> Factors:
    options = plan.options
    if options.chosen == "svd":
        return added([term.factors() for term in terms])
    changes = _by_file(terms)
    strengths = [next(t.strength for t in terms if t.file == file) for file in changes]
    if options.chosen == "ties":
        return Factors(ties([*changes.values()], strengths, [plan.thresholds[file] for file in changes]), None)
    seed = f"{options.seed}:{module.component.value}:{module.path}"
    return Factors(dare([*changes.values()], strengths, options.density or DARE_DENSITY, seed), None)


def _rule(shape: tuple[int, ...], options: MergeOptions) -> RankRule:
    kernel = prod(shape[2:]) > 1
    rank = options.conv_rank if kernel and options.conv_rank is not None else options.rank
    return EnergyRank(options.energy, rank or _NO_LIMIT) if options.energy is not None else FixedRank(rank or 1)


# ---------------------------------------------------------------- what is said of it


def _notes(files: Sequence[Weighted], results: Sequence[_Result]) -> list[str]:
    left = [(len(file.adapter.leftovers), file.source.path.name) for file in files if file.adapter.leftovers]
    notes = [f"{count} tensors of {name} were not understood and left out." for count, name in left]
    cancelled = sum(row.cancels for row in results)
    notes += [f"The files' changes cancel in {cancelled} modules, which are left out."] * bool(cancelled)
    return notes + off_notes(files)


def _row(module: ModuleRef, terms: Sequence[Term], result: _Result) -> MergedModule:
    count, rank = len({term.file for term in terms}), result.layer.rank if result.layer else None
    if result.made is None:
        return MergedModule(module.path, module.component.value, rank, None, None, count)
    row: ModuleFigures = figures((module.path, module.component.value), result.made)
    return MergedModule(row.module, row.component, row.rank, row.energy, row.relative_error, count)
