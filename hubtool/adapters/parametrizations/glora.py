"""Generalized LoRA: W' = W + scale · (b1 @ b2 + W @ a1 @ a2); recognised, its change needs the base weight.

Chavan et al. 2023 (arXiv:2306.07967). LyCORIS before 2.0 stored the transposed shapes, so no side is read off them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, absent, needs_arithmetic
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
        """The side that `a1` and `a2` share, which is the smaller one."""
        factor = shapes.get(Role.GLORA_A1)
        return min(factor[:2]) if factor and len(factor) >= 2 else None

    def extent(self, shapes: Shapes) -> Extent:
        """Nothing certain."""
        del shapes
        return Extent()

    def delta(self, values: Values, shape: Shape) -> Tensor:
        """Needs the base weight."""
        del values, shape
        raise needs_arithmetic(self.id)


PARAMETRIZATION: Parametrization = GLoRA()
