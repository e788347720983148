"""Generalized LoRA: W' = W + scale · (b1 @ b2 + W @ a1 @ a2).

Chavan et al. 2023 (arXiv:2306.07967); LyCORIS modules/glora.py. Since LyCORIS 2.0: a1 (in, rank), a2 (rank, in), b1 (out, rank),
b2 (rank, in, *kernel). Before, the first of each pair was the one applied first: a1 (rank, in), a2 (in, rank), b1 (rank, in),
b2 (out, rank). Which it is shows in the axes that all four share. `bm` is a Tucker core between b1 and b2.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, absent, needed
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = (Role.GLORA_A1, Role.GLORA_A2, Role.GLORA_B1, Role.GLORA_B2)


class GLoRA:
    """Four factors."""

    id = "glora"
    roles = frozenset({*_FACTORS, Role.GLORA_BM})

    def recognises(self, shapes: Shapes) -> bool:
        """Any of its factors."""
        return not self.roles.isdisjoint(shapes)

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """All four factors are needed."""
        return absent(shapes, *_FACTORS)

    def rank(self, shapes: Shapes) -> int | None:
        """The side that all factors share."""
        factor = shapes.get(Role.GLORA_B1)
        return factor[0 if _is_old(shapes) else 1] if factor and len(factor) >= 2 else None

    def extent(self, shapes: Shapes) -> Extent:
        """Sides of b1 @ b2."""
        left, right = _pair(shapes, Role.GLORA_B1, Role.GLORA_B2)
        left_shape, right_shape, core = shapes.get(left), shapes.get(right), shapes.get(Role.GLORA_BM, ())
        if not left_shape or not right_shape or min(len(left_shape), len(right_shape)) < 2:
            return Extent()
        return Extent(left_shape[0], prod(right_shape[1:]) * prod(core[2:]))

    def cut(self, values: Values) -> Cut | None:
        """Rows of the factor that has the outputs; the change of the inputs belongs to every part."""
        return Cut({_pair(values.shapes, Role.GLORA_B1, Role.GLORA_B2)[0]: 1})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · (b1 @ b2 + W @ a1 @ a2), where W @ … mixes input channels at each point of the kernel."""
        weight = needed(base, self.id).reshape(shape[0], shape[1], -1)
        left, right = (values.float(role).flatten(1) for role in _pair(values.shapes, *_FACTORS[:2]))
        through = ((weight.transpose(1, 2) @ left) @ right).transpose(1, 2)
        left, right = (values.float(role) for role in _pair(values.shapes, *_FACTORS[2:]))
        if values.has(Role.GLORA_BM):
            core = values.float(Role.GLORA_BM).flatten(2).permute(2, 0, 1)  # (kernel, rank, rank)
            product = (left.flatten(1) @ core @ right.flatten(1)).permute(1, 2, 0)
        else:
            product = left.flatten(1) @ right.flatten(1)
        return values.scale * (product.reshape(shape) + through.reshape(shape))


def _is_old(shapes: Shapes) -> bool:
    """Whether it is the layout before LyCORIS 2.0; not where every side has the rank's length."""
    a1, a2, b1, b2 = (shapes.get(role, ()) for role in _FACTORS)
    if min(map(len, (a1, a2, b1, b2))) < 2:
        return False
    new = a1[1] == a2[0] == b1[1] == b2[0]
    old = a1[0] == a2[1] == b1[0] == b2[1]
    return old and (not new or b1[0] < a1[1])


def _pair(shapes: Shapes, one: Role, two: Role) -> tuple[Role, Role]:
    """(the factor applied second, the factor applied first): left and right of the product."""
    return (two, one) if _is_old(shapes) else (one, two)


PARAMETRIZATION: Parametrization = GLoRA()
