"""Low-rank adaptation: W' = W + scale · (up @ down), scale = alpha / rank.

Hu et al. 2021 (arXiv:2106.09685). Convolutions follow LoCon: `down` carries the kernel and `up` is 1×1, or, with a Tucker
core, both are 1×1 and `mid` carries it (axis 0 of `mid` meets `up`, axis 1 meets `down`).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, absent
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class LoRA:
    """LoRA and LoCon: `down` (rank, in, *kernel), `up` (out, rank, 1…), optional `mid` (rank, rank, *kernel)."""

    id = "lora"
    roles = frozenset({Role.DOWN, Role.UP, Role.MID, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP, Role.UP_BIAS})

    def recognises(self, shapes: Shapes) -> bool:
        """Any of its factors, or a DoRA magnitude with nothing else to belong to."""
        if Role.MAGNITUDE in shapes and shapes.keys() <= {Role.MAGNITUDE, Role.ALPHA}:
            return True
        return not shapes.keys().isdisjoint({Role.DOWN, Role.UP, Role.MID, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP})

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """Both factors are needed; `down` alone is the full-rank form, whose `up` is the identity."""
        if Role.EMBEDDING_DOWN in shapes or Role.EMBEDDING_UP in shapes:
            return absent(shapes, Role.EMBEDDING_DOWN, Role.EMBEDDING_UP)
        return absent(shapes, Role.DOWN, Role.UP)

    def rank(self, shapes: Shapes) -> int | None:
        """Rows of `down`."""
        down = shapes.get(Role.DOWN) or shapes.get(Role.EMBEDDING_DOWN)
        return down[0] if down else None

    def extent(self, shapes: Shapes) -> Extent:
        """Rows of `up`, columns of `down` times the core's kernel."""
        if (numbers := shapes.get(Role.EMBEDDING_DOWN)) and (width := shapes.get(Role.EMBEDDING_UP)):
            return Extent(numbers[-1], width[0])
        up, down, mid = shapes.get(Role.UP), shapes.get(Role.DOWN), shapes.get(Role.MID)
        columns = prod(down[1:]) * prod(mid[2:] if mid else ()) if down and len(down) > 1 else None
        return Extent(up[0] if up else None, columns)

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · up @ (mid ×) down, in the weight's shape."""
        del base
        if values.has(Role.EMBEDDING_DOWN):
            product = values.float(Role.EMBEDDING_UP) @ values.float(Role.EMBEDDING_DOWN)
            return values.scale * product.T.reshape(shape)
        up, down = values.float(Role.UP).flatten(1), values.float(Role.DOWN)
        if not values.has(Role.MID):
            return values.scale * (up @ down.flatten(1)).reshape(shape)
        return values.scale * (up @ whole_down(values.float(Role.MID), down).flatten(1)).reshape(shape)


def whole_down(mid: Tensor, down: Tensor) -> Tensor:
    """Tucker core and `down` as the one (rank, in, *kernel) factor that they are."""
    rank, kernel = mid.shape[0], mid.shape[2:]
    core = mid.reshape(rank, mid.shape[1], -1).transpose(1, 2)  # (rank, kernel, rank)
    return (core @ down.flatten(1)).transpose(1, 2).reshape(rank, -1, *kernel)


PARAMETRIZATION: Parametrization = LoRA()
