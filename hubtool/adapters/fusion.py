"""Between fused modules and their parts: the authors' q·k·v in one weight, diffusers' one by one.

Splitting is always exact: `up` is cut by rows, and `down` is shared, or cut too where `up` is block-diagonal. Joining is exact
at the sum of the ranks, or at the common rank where all parts share one `down`. Where the zeros of the result do not show
which it was, the metadata says so (`hubtool.fused`): an absent part stays absent on the way back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.blocks import (
    block_diagonal,
    columns,
    find_partition,
    halves_swapped,
    same_bytes,
    stacked,
    zeros,
)
from hubtool.adapters.layer import Layer
from hubtool.adapters.metadata import read_json
from hubtool.adapters.scaling import folding_error, multiplied
from hubtool.errors import NotRepresentable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.adapters.adapter import Adapter
    from hubtool.naming.architecture import Architecture, Fused

RECORD_KEY = "hubtool.fused"
_SHARED = "shared"

#: Roles whose first axis is the weight's output rows.
_BY_ROW = frozenset({Role.UP, Role.UP_BIAS, Role.DIFF, Role.DIFF_BIAS, Role.SET_WEIGHT, Role.HADA_W1_A, Role.HADA_W2_A})
#: Roles that every part can share as they are.
_COMMON = frozenset({Role.DOWN, Role.MID, Role.ALPHA, Role.SCALE, Role.HADA_W1_B, Role.HADA_W2_B})


@dataclass(frozen=True, slots=True)
class Fitted:
    """An adapter whose modules the target dialect names, and what that took."""

    adapter: Adapter
    fused: int = 0  # fused modules written
    split: int = 0  # fused modules taken apart
    inexact: Mapping[ModuleRef, float] | None = None  # relative rounding of modules that were not exact


def fit(adapter: Adapter, dialect_id: str) -> Fitted:
    """Split and join modules until the dialect has a name for each.

    Raises:
        NotRepresentable: a module cannot be split or joined, or has no name either way.
    """
    target, named = adapter.architecture, dialect(dialect_id).written(adapter.architecture)
    record = _read_record(adapter.metadata)
    kept: dict[ModuleRef, Layer] = {}
    loose: dict[str, Layer] = {}  # canonical parts of a module that the dialect only names fused
    split = 0
    for module, layer in adapter.layers.items():
        if module in named:
            kept[module] = layer
        elif module.component is Component.DENOISER and module.path in target.fused:
            fused = target.fused[module.path]
            parts = split_module(layer, fused, record.get(module.path))
            kept |= {ModuleRef(Component.DENOISER, path): part for path, part in parts.items()}
            split += not fused.swapped
        else:
            loose[module.path] = layer
    joined, notes, inexact = _join_all(target, loose)
    metadata = _with_record(adapter.metadata, record, notes, keep=not loose)
    fused_count = sum(not target.fused[module.path].swapped for module in joined)
    return Fitted(replace(adapter, layers={**kept, **joined}, metadata=metadata), fused_count, split, inexact)


# ---------------------------------------------------------------- splitting


def split_module(layer: Layer, fused: Fused, recorded: Sequence[int] | str | None = None) -> dict[str, Layer]:
    """The parts of a fused module's change: canonical path → layer; exact.

    Raises:
        NotRepresentable: the family cannot be cut by rows.
    """
    if fused.swapped:
        return {fused.parts[0]: _swap(layer)}
    _check_rows(layer, sum(fused.rows))
    ranks = _partition(layer, fused, recorded)
    found: dict[str, Layer] = {}
    row = first = 0
    for index, (path, count) in enumerate(zip(fused.parts, fused.rows, strict=True)):
        tensors = _cut(layer, row, row + count)
        row += count
        if ranks is not None:
            rank = ranks[index]
            tensors = _narrowed(layer, tensors, first, rank)
            first += rank
            if not rank:
                continue
        found[path] = layer.having(tensors)
    return found


def _check_rows(layer: Layer, rows: int) -> None:
    for role, tensor in layer.tensors.items():
        if role is Role.MAGNITUDE and (tensor.shape[0] != rows or len(tensor.shape) > 2):
            message = f"{layer.base} has a DoRA magnitude per input column, which its parts cannot share."
            raise NotRepresentable(
                layer.base, message, hint="Keep it in a dialect with fused modules (kohya, comfyui)."
            )
        if role in _BY_ROW and tensor.shape[0] != rows:
            message = f"{layer.base}: {role.value} has {tensor.shape[0]} rows, the parts need {rows}."
            raise NotRepresentable(layer.base, message)
        if role not in _BY_ROW | _COMMON | {Role.MAGNITUDE}:
            raise NotRepresentable(layer.base, f"{layer.base}: {role.value} cannot be split into q, k and v.")


def _partition(layer: Layer, fused: Fused, recorded: Sequence[int] | str | None) -> list[int] | None:
    """Ranks of the parts where `up` is block-diagonal and alpha can be divided so; None to share `down`."""
    up = layer.tensors.get(Role.UP)
    if up is None or len(up.shape) != 2 or recorded == _SHARED or Role.MID in layer.tensors:
        return None
    known = recorded if isinstance(recorded, list) else None
    ranks = find_partition(up, fused.rows, known)
    if ranks is None:
        return None
    exact = all(_share_of_alpha(layer, rank) is not None for rank in ranks if rank)
    return ranks if exact else None


def _cut(layer: Layer, start: int, stop: int) -> dict[Role, LazyTensor]:
    by_row = _BY_ROW | {Role.MAGNITUDE}
    return {role: tensor.rows(start, stop) if role in by_row else tensor for role, tensor in layer.tensors.items()}


def _narrowed(layer: Layer, tensors: Mapping[Role, LazyTensor], first: int, rank: int) -> dict[Role, LazyTensor]:
    """Only the rank directions of this part: columns of `up`, rows of `down`, its share of alpha."""
    narrowed = dict(tensors)
    narrowed[Role.UP] = columns(tensors[Role.UP], first, first + rank)
    narrowed[Role.DOWN] = tensors[Role.DOWN].rows(first, first + rank)
    if Role.ALPHA in tensors and rank:
        share = _share_of_alpha(layer, rank)
        narrowed[Role.ALPHA] = tensors[Role.ALPHA] if share is None else share
    return narrowed


def _share_of_alpha(layer: Layer, rank: int) -> LazyTensor | None:
    """alpha · rank / whole rank in alpha's own dtype; None if rounding would change the scale."""
    tensor = layer.tensors.get(Role.ALPHA)
    if tensor is None:
        return scalar_tensor(rank)  # not written: no alpha before, none after
    alpha, whole = tensor.scalar(), layer.tensors[Role.UP].shape[1]
    share = scalar_tensor(alpha * rank / whole, tensor.dtype, tensor.shape)
    return share if share.scalar() * whole == alpha * rank else None


def _swap(layer: Layer) -> Layer:
    """Output halves change places; `down` and an input-axis magnitude have no output rows."""
    tensors = dict(layer.tensors)
    for role, tensor in layer.tensors.items():
        by_output = role in _BY_ROW or (role is Role.MAGNITUDE and tensor.shape[0] > 1)
        if by_output:
            tensors[role] = halves_swapped(tensor)
        elif role not in _COMMON | {Role.MAGNITUDE}:
            raise NotRepresentable(layer.base, f"{layer.base}: the halves of {role.value} cannot change places.")
    return layer.having(tensors)


# ---------------------------------------------------------------- joining


@dataclass(frozen=True, slots=True)
class _Joined:
    layer: Layer
    note: list[int] | str | None
    rounding: float


def _join_all(
    target: Architecture, loose: Mapping[str, Layer]
) -> tuple[dict[ModuleRef, Layer], dict[str, list[int] | str], dict[ModuleRef, float]]:
    homes = {part: name for name, fused in target.fused.items() if not fused.partial for part in fused.parts}
    members: dict[str, dict[str, Layer]] = {}
    for path, layer in loose.items():
        if path not in homes:
            raise NotRepresentable(path, f"The dialect has no name for {path}, fused or not.")
        members.setdefault(homes[path], {})[path] = layer
    layers: dict[ModuleRef, Layer] = {}
    notes: dict[str, list[int] | str] = {}
    inexact: dict[ModuleRef, float] = {}
    for name, parts in members.items():
        joined = _join(name, target, parts)
        module = ModuleRef(Component.DENOISER, name)
        layers[module] = joined.layer
        if joined.note is not None and not _shows(joined, target.fused[name]):
            notes[name] = joined.note
        if joined.rounding:
            inexact[module] = joined.rounding
    return layers, notes, inexact


def _shows(joined: _Joined, fused: Fused) -> bool:
    """Whether splitting would find the same parts again without being told."""
    found = find_partition(joined.layer.tensors[Role.UP], fused.rows)
    return found is None if joined.note == _SHARED else found == joined.note


def _join(name: str, target: Architecture, parts: Mapping[str, Layer]) -> _Joined:
    fused = target.fused[name]
    if fused.swapped:
        return _Joined(_swap(parts[fused.parts[0]]), None, 0.0)
    kinds = {layer.parametrization.id if layer.parametrization else "" for layer in parts.values()}
    if kinds == {"lora"}:
        return _join_lora(name, fused, parts)
    if kinds == {"full"}:
        return _Joined(_join_rows(name, target, parts), None, 0.0)
    raise NotRepresentable(name, f"The parts of {name} ({', '.join(sorted(kinds))}) cannot be joined into one module.")


def _join_rows(name: str, target: Architecture, parts: Mapping[str, Layer]) -> Layer:
    """Plain differences: rows one after the other, zeros for absent parts."""
    fused = target.fused[name]
    like = next(iter(parts.values()))
    tensors = {}
    for role, sample in like.tensors.items():
        present = [parts[p].tensors.get(role) if p in parts else None for p in fused.parts]
        rows = zip(present, fused.rows, strict=True)
        tensors[role] = stacked([t if t is not None else zeros(sample, count) for t, count in rows])
    return Layer(tensors, name)


def _join_lora(name: str, fused: Fused, parts: Mapping[str, Layer]) -> _Joined:
    _check_joinable(name, parts)
    layers = [parts.get(path) for path in fused.parts]
    present = [layer for layer in layers if layer is not None]
    scales = {layer.scale for layer in present}
    shared = len(present) > 1 and len(scales) == 1 and same_bytes([layer.tensors[Role.DOWN] for layer in present])
    if shared and len(present) == len(layers):
        ups = [layer.tensors[Role.UP] for layer in present]
        tensors = {**present[0].tensors, Role.UP: stacked(ups)}
        joined = Layer(tensors, name, recorded_scale=present[0].recorded_scale)
        return _Joined(_with_magnitude(joined, layers), _SHARED, 0.0)
    rounding = 0.0
    if len(scales) > 1:
        present, rounding = _scales_folded(present)
        layers = _replaced(layers, present)
    ranks = [layer.tensors[Role.UP].shape[1] if layer else 0 for layer in layers]
    empty = present[0].tensors[Role.UP]
    blocks = [
        layer.tensors[Role.UP] if layer else LazyTensor(empty.dtype, (rows, 0), b"")
        for layer, rows in zip(layers, fused.rows, strict=True)
    ]
    tensors = {Role.UP: block_diagonal(blocks), Role.DOWN: stacked([layer.tensors[Role.DOWN] for layer in present])}
    tensors |= _joined_alpha(present, sum(ranks))
    joined = Layer(tensors, name, recorded_scale=present[0].recorded_scale)
    return _Joined(_with_magnitude(joined, layers), ranks, rounding)


def _check_joinable(name: str, parts: Mapping[str, Layer]) -> None:
    dtypes = {(layer.tensors[Role.UP].dtype, layer.tensors[Role.DOWN].dtype) for layer in parts.values()}
    roles = {role for layer in parts.values() for role in layer.tensors}
    if len(dtypes) > 1:
        raise NotRepresentable(
            name, f"The parts of {name} have different dtypes.", hint="Use `--dtype` to make them one."
        )
    strange = roles - {Role.UP, Role.DOWN, Role.ALPHA, Role.MAGNITUDE}
    if strange:
        words = ", ".join(sorted(role.value for role in strange))
        raise NotRepresentable(name, f"The parts of {name} have {words}, which cannot be joined.")


def _replaced(layers: Sequence[Layer | None], present: Sequence[Layer]) -> list[Layer | None]:
    rest = iter(present)
    return [next(rest) if layer is not None else None for layer in layers]


def _scales_folded(present: Sequence[Layer]) -> tuple[list[Layer], float]:
    """Each part's scale multiplied into its `up`, because one alpha cannot say several."""
    folded, rounding = [], 0.0
    for layer in present:
        tensors = layer.without(Role.ALPHA)
        up = tensors[Role.UP]
        tensors[Role.UP] = multiplied(up, layer.scale)
        rounding = max(rounding, folding_error(up, layer.scale))
        rank = up.shape[1]
        alpha = layer.tensors.get(Role.ALPHA)
        if alpha is not None:
            tensors[Role.ALPHA] = scalar_tensor(rank, alpha.dtype, alpha.shape)
        folded.append(replace(layer.having(tensors), recorded_scale=None))
    return folded, rounding


def _joined_alpha(present: Sequence[Layer], rank: int) -> dict[Role, LazyTensor]:
    """One alpha that gives the common scale at the joined rank; none where no part has one."""
    like = next((layer.tensors[Role.ALPHA] for layer in present if Role.ALPHA in layer.tensors), None)
    if like is None:
        return {}
    scale = present[0].scale
    tries = (scalar_tensor(scale * rank, dtype, like.shape) for dtype in (like.dtype, "F32", "F64"))
    return {
        Role.ALPHA: next(
            (alpha for alpha in tries if alpha.scalar() / rank == scale), scalar_tensor(scale * rank, "F64")
        )
    }


def _with_magnitude(joined: Layer, layers: Sequence[Layer | None]) -> Layer:
    """Output-axis DoRA magnitudes one after the other; any other mixture cannot be joined."""
    magnitudes = [layer.tensors.get(Role.MAGNITUDE) if layer else None for layer in layers]
    if not any(magnitudes):
        return joined
    found = [m for m in magnitudes if m is not None]
    outputs = [layer.tensors[Role.UP].shape[0] if layer else 0 for layer in layers]
    if len(found) < len(layers) or any(m.shape[0] != rows for m, rows in zip(found, outputs, strict=True)):
        message = f"The parts of {joined.base} have DoRA magnitudes that cannot be joined."
        raise NotRepresentable(joined.base, message, hint="Keep it in a dialect with separate q, k and v.")
    return joined.having({**joined.tensors, Role.MAGNITUDE: stacked(found)})


# ---------------------------------------------------------------- the record


def _read_record(metadata: Mapping[str, str]) -> dict[str, list[int] | str]:
    """What an earlier conversion noted; rows that it cannot have written are left out, and the zeros in the file decide."""
    table = read_json(metadata.get(RECORD_KEY))
    rows = table.items() if isinstance(table, dict) else ()
    return {name: note for name, note in rows if note == _SHARED or _is_partition(note)}


def _is_partition(note: object) -> bool:
    return isinstance(note, list) and all(type(rank) is int and rank >= 0 for rank in note)


def _with_record(
    metadata: Mapping[str, str], record: Mapping[str, object], notes: Mapping[str, object], *, keep: bool
) -> dict[str, str]:
    found = {key: text for key, text in metadata.items() if key != RECORD_KEY}
    rows = dict(notes) if notes else (dict(record) if keep else {})
    if rows:
        found[RECORD_KEY] = json.dumps(rows, separators=(",", ":"))
    return found
