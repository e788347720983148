"""Parts of a fused module joined into one change: at the common rank where they share their factors, else at the sum of ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.blocks import block_diagonal, same_bytes, stacked
from hubtool.adapters.scaling import folding_error, multiplied
from hubtool.adapters.splitting import (
    REWRITE,
    SHARED,
    Note,
    common_roles,
    cut_of,
    neutral,
    partition,
    swapped,
)
from hubtool.errors import NotRepresentable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.adapters.layer import Layer
    from hubtool.adapters.parametrizations.base import Cut
    from hubtool.naming.architecture import Fused


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A fused module's change, what its zeros do not show of its parts, and the relative rounding of an inexact one."""

    layer: Layer
    note: Note | None = None
    rounding: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """The parts in the order of their rows, None for absent ones."""

    name: str
    fused: Fused
    layers: Sequence[Layer | None]

    @property
    def present(self) -> list[Layer]:
        return [layer for layer in self.layers if layer is not None]

    def with_present(self, present: Sequence[Layer]) -> _Parts:
        rest = iter(present)
        return replace(self, layers=[next(rest) if layer is not None else None for layer in self.layers])


def join_parts(name: str, fused: Fused, parts: Mapping[str, Layer]) -> Joined:
    """One change of the fused module `name` that does to each part's rows what the part did.

    Raises:
        NotRepresentable: their families, dtypes or shared tensors differ, so that no one change of any family says it.
    """
    if fused.swapped:
        return Joined(swapped(parts[fused.parts[0]]))
    found = _Parts(name, fused, [parts.get(path) for path in fused.parts])
    _check_alike(found)
    cut = _common_cut(found)
    joined = _shared(found, cut) if _shares(found.present, cut) else _block_diagonal(found, cut)
    return replace(joined, note=None) if _shows(joined, cut, fused) else joined


def _check_alike(parts: _Parts) -> None:
    kinds = {layer.parametrization.id if layer.parametrization else "" for layer in parts.present}
    if len(kinds) > 1:
        message = f"The parts of {parts.name} ({', '.join(sorted(kinds))}) cannot be joined into one module."
        raise NotRepresentable(parts.name, message, hint=REWRITE)
    for role in {role for layer in parts.present for role in layer.tensors} - {Role.ALPHA, Role.SCALE}:
        if len({layer.tensors[role].dtype for layer in parts.present if role in layer.tensors}) > 1:
            message = f"The parts of {parts.name} have different dtypes."
            raise NotRepresentable(parts.name, message, hint="Use `--dtype` to make them one.")


def _common_cut(parts: _Parts) -> Cut:
    """How all parts come apart, which must be the same way, and the DoRA magnitudes one for each row."""
    cuts = [cut_of(layer) for layer in parts.present]
    if any(cut != cuts[0] for cut in cuts):
        message = f"The parts of {parts.name} have factors of different shapes, which one module cannot have."
        raise NotRepresentable(parts.name, message, hint=REWRITE)
    magnitudes = [layer.tensors.get(Role.MAGNITUDE) if layer else None for layer in parts.layers]
    if any(magnitudes) and not all(
        m is not None and m.shape[:1] == (rows,) for m, rows in zip(magnitudes, parts.fused.rows, strict=True)
    ):
        message = f"The parts of {parts.name} have DoRA magnitudes that cannot be joined."
        hint = f"Keep it in a dialect with separate q, k and v, or: {REWRITE}"
        raise NotRepresentable(parts.name, message, hint=hint)
    return cuts[0]


def _shares(present: Sequence[Layer], cut: Cut) -> bool:
    """Whether all parts have the same scale and, bit for bit, the same tensors apart from their rows."""
    first = present[0]
    roles = common_roles(first, cut)
    return all(layer.scale == first.scale and common_roles(layer, cut) == roles for layer in present) and all(
        same_bytes([layer.tensors[role] for layer in present]) for role in roles
    )


def _shared(parts: _Parts, cut: Cut) -> Joined:
    first = parts.present[0]
    joined = replace(first, base=parts.name, tensors={**first.tensors, **_stacked_rows(parts, cut)})
    if all(parts.layers):
        return Joined(joined, SHARED if cut.factors else None)
    size = first.tensors[cut.factors[0][0]].shape[1] if cut.factors else 1
    return Joined(joined, [size if layer else 0 for layer in parts.layers])


def _block_diagonal(parts: _Parts, cut: Cut) -> Joined:
    """Each part in its own rows and rank directions."""
    _check_independent(parts, cut)
    rounding = 0.0
    if len({layer.scale for layer in parts.present}) > 1:
        parts, rounding = _scales_folded(parts, cut)
    present, first = parts.present, parts.present[0]
    tensors = _stacked_rows(parts, cut)
    for left, right in cut.factors:
        empty = first.tensors[left]
        blocks = [
            layer.tensors[left] if layer else LazyTensor(empty.dtype, (rows, 0), b"")
            for layer, rows in zip(parts.layers, parts.fused.rows, strict=True)
        ]
        tensors[left] = block_diagonal(blocks)
        tensors[right] = stacked([layer.tensors[right] for layer in present])
    ranks = [layer.tensors[cut.factors[0][0]].shape[1] if layer else 0 for layer in parts.layers]
    tensors |= _joined_scale(present, sum(ranks))
    return Joined(replace(first, base=parts.name, tensors=tensors), ranks, rounding)


def _check_independent(parts: _Parts, cut: Cut) -> None:
    """Every tensor of the parts is a row or a factor."""
    factors = {role for pair in cut.factors for role in pair}
    for layer in parts.present:
        shared = [role.value for role in common_roles(layer, cut) if role not in factors]
        lefts = [layer.tensors.get(left) for left, _ in cut.factors]
        if shared or not cut.factors or any(left is None or len(left.shape) != 2 for left in lefts):
            words = ", ".join(shared) or "values"
            message = f"The parts of {parts.name} have {words} of their own, which one module cannot have."
            raise NotRepresentable(parts.name, message, hint=REWRITE)


def _stacked_rows(parts: _Parts, cut: Cut) -> dict[Role, LazyTensor]:
    """Rows one part after the other, with neutral ones where a part or its tensor is absent."""
    found: dict[Role, LazyTensor] = {}
    for role, step in cut.by_row.items():
        like = next((layer.tensors[role] for layer in parts.present if role in layer.tensors), None)
        if like is None or any(rows % step for rows in parts.fused.rows):
            continue
        rows = zip(parts.layers, parts.fused.rows, strict=True)
        found[role] = stacked([
            layer.tensors[role] if layer and role in layer.tensors else neutral(like, role, count // step)
            for layer, count in rows
        ])  # fmt: skip
    return found


def _scales_folded(parts: _Parts, cut: Cut) -> tuple[_Parts, float]:
    """Each part's scale multiplied into its left factor (and bias), because one alpha cannot say several."""
    folded, rounding = [], 0.0
    left = cut.factors[0][0]
    for layer in parts.present:
        tensors = layer.without(Role.ALPHA, Role.SCALE)
        for role in (left, Role.UP_BIAS):
            if role in tensors:
                rounding = max(rounding, folding_error(tensors[role], layer.scale))
                tensors[role] = multiplied(tensors[role], layer.scale)
        alpha = layer.tensors.get(Role.ALPHA)
        if alpha is not None:
            tensors[Role.ALPHA] = scalar_tensor(tensors[left].shape[1], alpha.dtype, alpha.shape)
        folded.append(replace(layer.having(tensors), recorded_scale=None))
    return parts.with_present(folded), rounding


def _joined_scale(present: Sequence[Layer], rank: int) -> dict[Role, LazyTensor]:
    """One alpha, or scale, that gives the common scale at the joined rank; none where no part has one."""
    stated = next((layer.tensors[Role.SCALE] for layer in present if Role.SCALE in layer.tensors), None)
    if stated is not None:
        return {Role.SCALE: stated}
    like = next((layer.tensors[Role.ALPHA] for layer in present if Role.ALPHA in layer.tensors), None)
    if like is None:
        return {}
    scale = present[0].scale
    tries = (scalar_tensor(scale * rank, dtype, like.shape) for dtype in (like.dtype, "F32", "F64"))
    exact = (alpha for alpha in tries if alpha.scalar() / rank == scale)
    return {Role.ALPHA: next(exact, scalar_tensor(scale * rank, "F64"))}


def _shows(joined: Joined, cut: Cut, fused: Fused) -> bool:
    """Whether splitting would find the same parts again without being told."""
    if joined.note is None or not cut.factors:
        return joined.note is None
    found = partition(joined.layer, cut, fused.rows)
    return found is None if joined.note == SHARED else found == joined.note
