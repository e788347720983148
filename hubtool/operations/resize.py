"""Another rank for a LoRA: each module's change replaced by the nearest one of that rank (Eckart & Young 1936).

A module whose rank does not fall keeps its tensors. Everything else goes through the factors (`hubtool.operations.factors`), so
that no weight of the model is ever made: LoRA and LoCon by the SVD of their core, LoKr by those of its two factors, LoHa through
its Khatri–Rao products. The result is a LoRA. A DoRA keeps its magnitudes, and the change that they scale is resized. Families
without factors are kept as they are and named.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from hubtool import __version__
from hubtool.adapters.codec import decode
from hubtool.adapters.metadata import read_json
from hubtool.adapters.rewriting import computed
from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.adapter_output import (
    STALE,
    Alpha,
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
from hubtool.operations.as_lora import spectrum
from hubtool.operations.extract_report import peak_memory_bytes
from hubtool.operations.factors import FACTOR_ROLES, LowRank, factored_rank, factors_of, truncated
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import shape_of
from hubtool.operations.ranks import Method, RankRule, named_rule
from hubtool.operations.validate import refuse_broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor, Shape

_FACTORED = frozenset({"lora", "loha", "lokr"})


@dataclass(frozen=True, slots=True)
class ResizeOptions:
    """How to choose the ranks; `rank` alone is the rank, with another rule it is the most that a module may get."""

    rank: int | None = None
    conv_rank: int | None = None  # of convolutions larger than 1×1; None: as `rank`
    energy: float | None = None  # share of each ‖ΔW‖²
    sv_ratio: float | None = None
    sv_fro: float | None = None
    sv_cumulative: float | None = None
    alpha: Alpha = "rank"
    dtype: str | None = None  # None: as the file has it
    dialect: str | None = None  # None: as the file has it
    architecture: str | None = None
    workers: int | None = None
    force: bool = False
    dry_run: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    @property
    def method(self) -> tuple[Method, float]:
        """The rule's name and value.

        Raises:
            UsageProblem: none is given, or several.
        """
        rows: tuple[tuple[Method, float | None], ...] = (
            ("energy", self.energy),
            ("sv_ratio", self.sv_ratio),
            ("sv_fro", self.sv_fro),
            ("sv_cumulative", self.sv_cumulative),
        )
        given = [(name, value) for name, value in rows if value is not None]
        if len(given) > 1:
            raise UsageProblem(f"`{given[0][0]}` and `{given[1][0]}` each decide the ranks.", hint="Give one of them.")
        if given:
            return given[0]
        if self.rank is None:
            raise UsageProblem("Which rank?", hint="Give `--rank N`, or `--energy E` such as 0.99.")
        return "rank", self.rank


@dataclass(frozen=True, slots=True)
class ResizedModule(ModuleFigures):
    """One module, before and after."""

    rank_before: int | None = None


@dataclass(frozen=True, slots=True)
class Resizing:
    """What a resize did. Figures are None when nothing was computed (`dry_run`)."""

    input: Path
    output: Path
    architecture: str
    dialect: str
    dtype: str
    method: str
    value: float
    modules: int
    rank: Ranks | None
    rank_before: Ranks | None
    energy: float | None
    relative_error: float | None
    size_bytes: int | None
    size_before_bytes: int
    seconds: float
    peak_memory_bytes: int | None  # of this process so far, mapped pages included
    notes: tuple[str, ...]
    layers: tuple[ResizedModule, ...]


class _Item(NamedTuple):
    module: ModuleRef
    layer: Layer
    shape: Shape


def resize(path: Path, output: Path, options: ResizeOptions) -> Resizing:
    """Write the adapter at `path` with other ranks to `output`.

    Raises:
        UsageProblem: options that contradict each other.
        FileProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter, NonFinite: the file cannot be used.
        NotRepresentable: it holds nothing that has a rank.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    started = time.perf_counter()
    method, value = options.method
    named_rule(method, value, options.rank)  # complains before anything is read
    check_output(output, [path], options.dialect, force=options.force)
    file = read_safetensors(path)
    source = decode(file, architecture_id=options.architecture)
    refuse_broken(file, source)
    items = _items(source)
    if not items:
        raise NotRepresentable(path.name, f"{path.name} holds no LoRA, LoHa or LoKr whose rank could be changed.")
    dtype = options.dtype or common_dtype([source])
    spoken = options.dialect or source.dialect
    made: list[Made] = []
    if not options.dry_run:

        def work(item: _Item) -> Made:
            return _resized(item, _rule(item, options), (dtype, options.alpha))

        made = for_each(items, work, workers=options.workers, progress=options.progress)
        layers = dict(source.layers) | {item.module: row.layer for item, row in zip(items, made, strict=True)}
        metadata = _metadata(source, items, made, options)
        tensors, metadata = spelt(replace(source, layers=layers, metadata=metadata), spoken)
        write(output, tensors, metadata, force=options.force)
    error = whole_error(made)
    return Resizing(
        input=path,
        output=output,
        architecture=source.architecture.id,
        dialect=spoken,
        dtype=dtype,
        method=method,
        value=value,
        modules=len(items),
        rank=rank_range(row.rank for row in made),
        rank_before=rank_range(rank for item in items if (rank := item.layer.rank)),
        energy=None if error is None else 1 - error * error,
        relative_error=error,
        size_bytes=output.stat().st_size if made else None,
        size_before_bytes=file.size_bytes,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes(),
        notes=tuple(_notes(source, items, made)),
        layers=tuple(_row(item, row) for item, row in zip(items, made, strict=False)),
    )


def _items(source: Adapter) -> list[_Item]:
    return [
        _Item(module, layer, shape_of(source.architecture, module, layer))
        for module, layer in source.layers.items()
        if _has_factors(layer)
    ]


def _has_factors(layer: Layer) -> bool:
    """LoRA, LoHa and LoKr (whose factors may both be whole: no rank of its own, but one that it can get)."""
    kind = layer.parametrization
    if kind is None or kind.id not in _FACTORED or kind.missing(layer.shapes):
        return False
    return layer.tensors.keys().isdisjoint({Role.EMBEDDING_DOWN, Role.EMBEDDING_UP})


def _rule(item: _Item, options: ResizeOptions) -> RankRule:
    method, value = options.method
    kernel = prod(item.shape[2:]) > 1
    limit = options.conv_rank if kernel and options.conv_rank is not None else options.rank
    return named_rule(method, limit if method == "rank" and limit is not None else value, limit)


def _resized(item: _Item, rule: RankRule, stored: tuple[str, Alpha]) -> Made:
    dtype, alpha = stored
    found = _nearest(item, rule)
    if found.up.shape[1] == item.layer.rank and _may_stay(item.layer, dtype, alpha):
        return Made(item.layer, item.layer.rank, found.squared_norm, 0.0)
    scale = {"rank": 1.0, "keep": abs(item.layer.scale) or 1.0}.get(str(alpha)) or float(alpha) / found.up.shape[1]
    made = lora_layer(found, item.shape, item.layer.base, (dtype, scale))
    tensors = item.layer.without(*FACTOR_ROLES)
    if Role.UP_BIAS in item.layer.tensors:
        tensors[Role.UP_BIAS] = _rescaled(item.layer, item.layer.scale / scale)
    return replace(made, layer=item.layer.having({**tensors, **made.layer.tensors}))


def _may_stay(layer: Layer, dtype: str, alpha: Alpha) -> bool:
    """Whether a layer is already what would be written of it, so that computing it anew could only lose digits."""
    if {Role.UP, Role.DOWN} - layer.tensors.keys() or Role.MID in layer.tensors:
        return False
    wanted = layer.rank and not isinstance(alpha, str) and not math.isclose(layer.scale, alpha / layer.rank)
    return not wanted and all(layer.tensors[role].dtype == dtype for role in (Role.UP, Role.DOWN))


def _nearest(item: _Item, rule: RankRule) -> LowRank:
    kind = item.layer.parametrization
    if kind and kind.id == "lokr" and factored_rank(item.layer, item.shape) is None:
        found = spectrum(item.layer, item.shape, rule)
        root = found.values.sqrt().to(found.left.dtype)
        up, down = found.left * root, root[:, None] * found.right
        return LowRank(up, down, found.values.square(), found.squared_norm, found.remainder)
    return truncated(factors_of(item.layer, item.shape), rule, item.layer.base)


def _rescaled(layer: Layer, by: float) -> LazyTensor:
    """PEFT's bias is scaled like the factors: what the scale loses, it gains."""
    bias = layer.tensors[Role.UP_BIAS]
    return bias if by == 1 else computed(bias.dtype, bias.shape, lambda: layer.float(Role.UP_BIAS) * by)


# ---------------------------------------------------------------- what is said of it


def _metadata(source: Adapter, items: list[_Item], made: list[Made], options: ResizeOptions) -> dict[str, str]:
    """The source's metadata with ranks, alphas and a comment that are true of the result."""
    kept = {key: text for key, text in source.metadata.items() if key not in STALE}
    kernels = [prod(item.shape[2:]) > 1 for item in items]
    linear = [row for row, kernel in zip(made, kernels, strict=True) if not kernel] or made
    method, value = options.method
    before = kept.get("ss_network_dim") or _common(item.layer.rank for item in items)
    kept["ss_network_dim"] = _common(row.rank for row in linear)
    kept["ss_network_alpha"] = _common(_alpha(row) for row in linear)
    remark = f"resized from rank {before} by {method} {value:g}"
    kept["ss_training_comment"] = "; ".join(filter(None, (remark, kept.get("ss_training_comment"))))
    kept |= _network(kept, items, [row for row, kernel in zip(made, kernels, strict=True) if kernel])
    record = {
        "version": __version__,
        "method": method,
        "value": value,
        "rank": options.rank,
        "conv_rank": options.conv_rank,
    }
    kept["hubtool.resize"] = json.dumps({key: value for key, value in record.items() if value is not None})
    return kept


def _network(kept: Mapping[str, str], items: list[_Item], kernels: list[Made]) -> dict[str, str]:
    """kohya's record of the network: what was LoHa or LoKr is plain LoRA now, and convolutions have ranks of their own."""
    found: dict[str, str] = {}
    arguments = read_json(kept.get("ss_network_args"))
    table = dict(arguments) if isinstance(arguments, dict) else {}
    if any(item.layer.parametrization and item.layer.parametrization.id != "lora" for item in items):
        found["ss_network_module"] = "networks.lora"
        table.pop("algo", None)
    if kernels:
        table |= {"conv_dim": _common(r.rank for r in kernels), "conv_alpha": _common(map(_alpha, kernels))}
    return found | ({"ss_network_args": json.dumps(table)} if table or "ss_network_args" in kept else {})


def _alpha(row: Made) -> float:
    return row.layer.scale * row.rank


def _common(values: Iterable[float | None]) -> str:
    """The one value or, where they differ, the word that sd-scripts has for it."""
    found = {value for value in values if value is not None}
    return f"{found.pop():g}" if len(found) == 1 else "Dynamic"


def _notes(source: Adapter, items: list[_Item], made: list[Made]) -> list[str]:
    taken = {item.module for item in items}
    left = Counter(
        kind.id for module, layer in source.layers.items() if module not in taken and (kind := layer.parametrization)
    )
    notes = [f"{count} modules ({id}) have no rank and are kept as they are." for id, count in left.items()]
    stayed = sum(item.layer is row.layer for item, row in zip(items, made, strict=False))
    notes += [f"{stayed} modules have no more than that rank and are kept as they are, alpha included."] * bool(stayed)
    families = {kind.id for item in items if (kind := item.layer.parametrization)} - {"lora"}
    notes += [f"{', '.join(sorted(families))} became plain LoRA."] * bool(families)
    resized = [row.layer for item, row in zip(items, made, strict=False) if item.layer is not row.layer]
    if any(Role.MAGNITUDE in layer.tensors for layer in resized):
        notes.append("DoRA magnitudes are kept; the change that they scale was resized.")
    return notes


def _row(item: _Item, made: Made) -> ResizedModule:
    row = figures((item.module.path, item.module.component.value), made)
    return ResizedModule(row.module, row.component, row.rank, row.energy, row.relative_error, item.layer.rank)
