"""One change for each part of a fused module: rows are cut, and rank directions divided where zeros show whose they are.

What a family's tensors are to its rows, the family says (`Parametrization.cut`); everything here follows from that.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from hubtool.adapters.blocks import columns, find_partition, halves_swapped, item_size
from hubtool.adapters.parametrizations.base import Cut
from hubtool.errors import NotRepresentable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.adapters.layer import Layer
    from hubtool.naming.architecture import Fused

#: What an earlier conversion noted of a fused module's parts: their ranks (0: absent), or `SHARED`.
Note = list[int] | str
SHARED = "shared"  # all parts are there and share what is no row of theirs

#: Tensors that may stand beside those of any family, one entry a row.
_BESIDE = dict.fromkeys((Role.MAGNITUDE, Role.DIFF_BIAS, Role.UP_BIAS, Role.DIFF, Role.SET_WEIGHT), 1)
_SCALES = frozenset({Role.ALPHA, Role.SCALE})
#: Rows of these change nothing where they are 1; of all others, where they are 0.
ONES = frozenset({Role.RESCALE, Role.IA3_L, Role.BOFT_S})
#: Rows of these always say something.
ABSOLUTE = frozenset({Role.MAGNITUDE, Role.SET_WEIGHT, Role.OFT_DIAG})

REWRITE = (
    "`--parametrization lora --rank N` rewrites it so that it can (with `--base CHECKPOINT` where it needs the model)."
)


def split_module(layer: Layer, fused: Fused, recorded: Note | None = None) -> dict[str, Layer]:
    """The parts of a fused module's change: canonical path → layer; exact.

    Raises:
        NotRepresentable: the family cannot be cut at these rows.
    """
    if fused.swapped:
        return {fused.parts[0]: swapped(layer)}
    cut = cut_of(layer)
    _check_rows(layer, cut, fused.rows)
    ranks = partition(layer, cut, fused.rows, recorded)
    present = _present(layer, cut, fused.rows, ranks, recorded)
    found: dict[str, Layer] = {}
    for index, (path, start) in enumerate(zip(fused.parts, starts(fused.rows), strict=True)):
        if not present[index]:
            continue
        part = layer.having(_cut_rows(layer, cut, start, start + fused.rows[index]))
        found[path] = part if ranks is None else _narrowed(part, cut, sum(ranks[:index]), ranks[index])
    return found


def starts(rows: Sequence[int]) -> list[int]:
    """The first row of each part."""
    return [0, *accumulate(rows)][:-1]


def cut_of(layer: Layer) -> Cut:
    """How a layer comes apart, modifiers included.

    Raises:
        NotRepresentable: its family does not, or there are tensors beside it that nobody can cut.
    """
    kind = layer.parametrization
    cut = kind.cut(layer) if kind else None
    if kind is None or cut is None:
        message = f"{layer.base} ({kind.id if kind else 'unknown'}) cannot be taken apart or joined by rows."
        raise NotRepresentable(layer.base, message, hint=REWRITE)
    whole = Cut({**_BESIDE, **cut.by_row}, cut.factors)
    strange = layer.tensors.keys() - kind.roles - _SCALES - whole.by_row.keys()
    if strange:
        words = ", ".join(sorted(role.value for role in strange))
        raise NotRepresentable(layer.base, f"{layer.base} has {words}, which cannot be taken apart or joined by rows.")
    return whole


def common_roles(layer: Layer, cut: Cut) -> list[Role]:
    """Tensors that belong to every part whole, scales left out."""
    return [role for role in layer.tensors if role not in cut.by_row and role not in _SCALES]


def swapped(layer: Layer) -> Layer:
    """Output halves change places; what has no output rows, such as `down` or an input-axis magnitude, stays.

    Raises:
        NotRepresentable: the family cannot be cut in the middle.
    """
    cut, tensors = cut_of(layer), dict(layer.tensors)
    for role, tensor in layer.tensors.items():
        if role not in cut.by_row or (role is Role.MAGNITUDE and tensor.shape[0] == 1):
            continue
        if not tensor.shape or tensor.shape[0] % 2:
            message = f"{layer.base}: {role.value} has no two halves of rows, which would have to change places."
            raise NotRepresentable(layer.base, message, hint=REWRITE)
        tensors[role] = halves_swapped(tensor)
    return layer.having(tensors)


def partition(layer: Layer, cut: Cut, rows: Sequence[int], recorded: Note | None = None) -> list[int] | None:
    """Ranks of the parts where the left factors are block-diagonal and alpha can be divided so; None to share all ranks."""
    if not cut.factors or recorded == SHARED:
        return None
    known = recorded if isinstance(recorded, list) else None
    if known is not None and _shares_ranks(layer, cut, known):
        return None
    for left, _ in cut.factors:
        tensor = layer.tensors.get(left)
        found = find_partition(tensor, rows, known) if tensor is not None and len(tensor.shape) == 2 else None
        if found is None or (left is not cut.factors[0][0] and found != known):
            return None
        known = found
    if known is None or any(share_of_alpha(layer, cut, rank) is None for rank in known if rank):
        return None
    silent = all(
        rank or is_silent(layer, cut, start, start + count)
        for rank, start, count in zip(known, starts(rows), rows, strict=True)
    )
    return known if silent else None


def _shares_ranks(layer: Layer, cut: Cut, known: Sequence[int]) -> bool:
    """Whether a note's ranks are those of parts that share them all: more than one module has, however many rows are zeros."""
    left = layer.tensors.get(cut.factors[0][0])
    return left is not None and len(left.shape) > 1 and sum(known) > left.shape[1]


def is_silent(layer: Layer, cut: Cut, start: int, stop: int) -> bool:
    """Whether these rows change nothing."""
    for role, step in cut.by_row.items():
        tensor = layer.tensors.get(role)
        if tensor is None:
            continue
        if role in ABSOLUTE:
            return False
        rows = tensor.rows(start // step, stop // step)
        if bytes(rows.view()) != bytes(neutral(tensor, role, rows.shape[0]).view()):
            return False
    return True


def neutral(like: LazyTensor, role: Role, count: int) -> LazyTensor:
    """So many entries that change nothing.

    Raises:
        NotRepresentable: every value of this role says something.
    """
    if role in ABSOLUTE:
        raise NotRepresentable("", f"A part without {role.value} cannot be joined with parts that have one.")
    shape = (count, *like.shape[1:])
    entry = bytes(scalar_tensor(1, like.dtype).view()) if role in ONES else bytes(item_size(like))
    size = count * (like.nbytes // like.shape[0]) if like.shape[0] else 0
    return LazyTensor(like.dtype, shape, entry * (size // len(entry)))


def share_of_alpha(layer: Layer, cut: Cut, rank: int) -> LazyTensor | None:
    """alpha · rank / whole rank in alpha's own dtype; None if rounding would change the scale."""
    tensor = layer.tensors.get(Role.ALPHA)
    if tensor is None:
        return scalar_tensor(rank)  # not written: no alpha before, none after
    alpha, whole = tensor.scalar(), layer.tensors[cut.factors[0][0]].shape[1]
    share = scalar_tensor(alpha * rank / whole, tensor.dtype, tensor.shape)
    return share if share.scalar() * whole == alpha * rank else None


def _check_rows(layer: Layer, cut: Cut, parts: Sequence[int]) -> None:
    rows = sum(parts)
    for role, tensor in layer.tensors.items():
        if role is Role.MAGNITUDE and (tensor.shape[:1] != (rows,) or len(tensor.shape) > 2):
            message = f"{layer.base} has a DoRA magnitude per input column, which its parts cannot share."
            hint = f"Keep it in a dialect with fused modules (kohya, comfyui), or: {REWRITE}"
            raise NotRepresentable(layer.base, message, hint=hint)
        step = cut.by_row.get(role)
        if step and (not tensor.shape or tensor.shape[0] * step != rows):
            message = f"{layer.base}: {role.value} is {list(tensor.shape)}, the parts have {rows} rows."
            raise NotRepresentable(layer.base, message)
        if step and any(count % step for count in parts):
            message = f"{layer.base}: {role.value} has an entry for every {step} rows, the parts have {list(parts)}."
            raise NotRepresentable(layer.base, message, hint=REWRITE)


def _present(
    layer: Layer, cut: Cut, rows: Sequence[int], ranks: Sequence[int] | None, recorded: Note | None
) -> list[bool]:
    """Which parts there are: those with a rank of their own, or all but those that were noted as absent and do nothing."""
    if ranks is not None:
        return [bool(rank) for rank in ranks]
    noted = recorded if isinstance(recorded, list) and len(recorded) == len(rows) else [1] * len(rows)
    if not any(noted):
        return [True] * len(rows)
    return [
        bool(count) or not is_silent(layer, cut, start, start + height)
        for count, start, height in zip(noted, starts(rows), rows, strict=True)
    ]


def _cut_rows(layer: Layer, cut: Cut, start: int, stop: int) -> dict[Role, LazyTensor]:
    found = {}
    for role, tensor in layer.tensors.items():
        step = cut.by_row.get(role)
        found[role] = tensor.rows(start // step, stop // step) if step else tensor
    return found


def _narrowed(part: Layer, cut: Cut, first: int, rank: int) -> Layer:
    """Only the rank directions of this part: columns of the left factors, rows of the right ones, its share of alpha."""
    tensors = dict(part.tensors)
    for left, right in cut.factors:
        tensors[left] = columns(part.tensors[left], first, first + rank)
        tensors[right] = part.tensors[right].rows(first, first + rank)
    share = share_of_alpha(part, cut, rank)
    if Role.ALPHA in tensors and share is not None:
        tensors[Role.ALPHA] = share
    return part.having(tensors)
