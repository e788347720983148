"""Low-rank adaptation: W' = W + scale · (up @ down), scale = alpha / rank.

Hu et al. 2021 (arXiv:2106.09685). Convolutions follow LoCon: `down` carries the kernel and `up` is 1×1, or, with a Tucker
core, both are 1×1 and `mid` carries it (axis 0 of `mid` meets `up`, axis 1 meets `down`). DyLoRA stores the same tensors.

`down` without `up` is the full-rank form of ostris/ai-toolkit: `down` has the weight's shape, `up` is the identity, and alpha,
which refers to a rank that no tensor shows, is left out of account. An extraction of LyCORIS may keep a sparse remainder of the
change beside the factors, which is scaled like them.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, absent
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor

_FULL_RANK_ROWS = (
    256  # a lone `down` of fewer rows is a pair that lost its `up`; no weight that is trained so is narrower
)
_SPARSE = (Role.SPARSE_INDICES, Role.SPARSE_VALUES, Role.SPARSE_SIZE)


class LoRA:
    """LoRA and LoCon: `down` (rank, in, *kernel), `up` (out, rank, 1…), optional `mid` (rank, rank, *kernel)."""

    id = "lora"
    roles = frozenset({Role.DOWN, Role.UP, Role.MID, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP, Role.UP_BIAS, *_SPARSE})

    def recognises(self, shapes: Shapes) -> bool:
        """Any of its factors, or a DoRA magnitude with nothing else to belong to."""
        if Role.MAGNITUDE in shapes and shapes.keys() <= {Role.MAGNITUDE, Role.ALPHA}:
            return True
        return not shapes.keys().isdisjoint({Role.DOWN, Role.UP, Role.MID, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP})

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """Both factors are needed; `down` alone is the full-rank form, whose `up` is the identity."""
        if Role.EMBEDDING_DOWN in shapes or Role.EMBEDDING_UP in shapes:
            return absent(shapes, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP)
        return () if _is_full_rank(shapes) else absent(shapes, Role.DOWN, Role.UP)

    def rank(self, shapes: Shapes) -> int | None:
        """Rows of `down`; none in the full-rank form."""
        if _is_full_rank(shapes):
            return None
        down = shapes.get(Role.DOWN) or shapes.get(Role.EMBEDDING_DOWN)
        return down[0] if down else None

    def extent(self, shapes: Shapes) -> Extent:
        """Rows of `up`, columns of `down` times the core's kernel."""
        if (numbers := shapes.get(Role.EMBEDDING_DOWN)) and (width := shapes.get(Role.EMBEDDING_UP)):
            return Extent(numbers[-1], width[0])
        up, down, mid = shapes.get(Role.UP), shapes.get(Role.DOWN), shapes.get(Role.MID)
        if down and _is_full_rank(shapes):
            return Extent(down[0], prod(down[1:]))
        columns = prod(down[1:]) * prod(mid[2:] if mid else ()) if down and len(down) > 1 else None
        return Extent(up[0] if up else None, columns)

    def cut(self, values: Values) -> Cut | None:
        """Rows of `up`; of `down` in the full-rank form."""
        if values.has(Role.EMBEDDING_DOWN) or values.has(Role.SPARSE_INDICES):
            return None
        if _is_full_rank(values.shapes):
            return Cut({Role.DOWN: 1, Role.UP_BIAS: 1})
        factors = () if values.has(Role.MID) else ((Role.UP, Role.DOWN),)
        return Cut({Role.UP: 1, Role.UP_BIAS: 1}, factors)

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · up @ (mid ×) down, in the weight's shape."""
        del base
        if values.has(Role.EMBEDDING_DOWN):
            product = values.float(Role.EMBEDDING_UP) @ values.float(Role.EMBEDDING_DOWN)
            return values.scale * product.T.reshape(shape)
        down = values.float(Role.DOWN)
        if not values.has(Role.UP):
            return values.scale * down.reshape(shape)
        down = whole_down(values.float(Role.MID), down) if values.has(Role.MID) else down
        product = values.float(Role.UP).flatten(1) @ down.flatten(1)
        if values.has(Role.SPARSE_INDICES):
            _add_sparse(values, product)
        return values.scale * product.reshape(shape)


def _is_full_rank(shapes: Shapes) -> bool:
    down = shapes.get(Role.DOWN, ())
    return len(down) >= 2 and down[0] >= _FULL_RANK_ROWS and Role.UP not in shapes and Role.MID not in shapes


def _add_sparse(values: Values, product: Tensor) -> None:
    """Add (row, column) → value to an (out, in · kernel) matrix."""
    rows, columns = values.float(Role.SPARSE_INDICES).long()[:2]
    product.index_put_((rows, columns), values.float(Role.SPARSE_VALUES), accumulate=True)


def whole_down(mid: Tensor, down: Tensor) -> Tensor:
    """Tucker core and `down` as the one (rank, in, *kernel) factor that they are."""
    rank, kernel = mid.shape[0], mid.shape[2:]
    core = mid.reshape(rank, mid.shape[1], -1).transpose(1, 2)  # (rank, kernel, rank)
    return (core @ down.flatten(1)).transpose(1, 2).reshape(rank, -1, *kernel)


PARAMETRIZATION: Parametrization = LoRA()
