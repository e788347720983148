"""Generalized LoRA: W' = W + scale · (b1 @ b2 + W @ a1 @ a2).

Chavan et al. 2023 (arXiv:2306.07967). LyCORIS before 2.0 stored the transposed shapes, so no side is read off them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, absent, needed
from hubtool.errors import NotRepresentable
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

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · (b1 @ b2 + W @ a1 @ a2); the order is turned round for files of the older layout.

        Raises:
            NotRepresentable: a Tucker core, which no published file has.
        """
        if values.has(Role.GLORA_BM):
            raise NotRepresentable("", "GLoRA with a Tucker core cannot be computed.")
        weight = needed(base, self.id).reshape(shape)
        a, b = ((values.float(one), values.float(two)) for one, two in (_FACTORS[:2], _FACTORS[2:]))
        if b[0].shape[0] != shape[0]:  # LyCORIS before 2.0: (rank, in), (in, rank), (rank, in), (out, rank)
            a, b = (a[1], a[0]), (b[1], b[0])
        mixed = a[0].flatten(1) @ a[1].flatten(1)  # (in, in)
        through = weight.flatten(2).transpose(1, -1) @ mixed if len(shape) > 2 else weight @ mixed
        if len(shape) > 2:
            through = through.transpose(1, -1).reshape(shape)
        return values.scale * ((b[0].flatten(1) @ b[1].flatten(1)).reshape(shape) + through)


PARAMETRIZATION: Parametrization = GLoRA()
