"""Hadamard product: W' = W + scale · (w1_a @ w1_b) ∘ (w2_a @ w2_b).

Hyeon-Woo et al. 2021 (FedPara, arXiv:2108.06098); layouts of KohakuBlueleaf/LyCORIS modules/loha.py. With Tucker cores
`w*_a` is (rank, out) and `w*_b` (rank, in); without, (out, rank) and (rank, in · kernel).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, absent
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = (Role.HADA_W1_A, Role.HADA_W1_B, Role.HADA_W2_A, Role.HADA_W2_B)


class LoHa:
    """Two low-rank products multiplied element by element."""

    id = "loha"
    roles = frozenset({*_FACTORS, Role.HADA_T1, Role.HADA_T2})

    def recognises(self, shapes: Shapes) -> bool:
        """Any of its factors."""
        return not self.roles.isdisjoint(shapes)

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """All four factors are needed."""
        return absent(shapes, *_FACTORS)

    def rank(self, shapes: Shapes) -> int | None:
        """Rows of `w1_b`, in every layout."""
        factor = shapes.get(Role.HADA_W1_B)
        return factor[0] if factor else None

    def extent(self, shapes: Shapes) -> Extent:
        """Sides of the first product."""
        first, second, core = shapes.get(Role.HADA_W1_A), shapes.get(Role.HADA_W1_B), shapes.get(Role.HADA_T1)
        if not first or not second or min(len(first), len(second)) < 2:
            return Extent()
        if core:
            return Extent(first[1], second[1] * prod(core[2:]))
        return Extent(first[0], second[1])

    def cut(self, values: Values) -> Cut | None:
        """Rows of the left factors; with Tucker cores these lie the other way round, and only in convolutions."""
        if values.has(Role.HADA_T1):
            return None
        return Cut({Role.HADA_W1_A: 1, Role.HADA_W2_A: 1}, (_FACTORS[:2], _FACTORS[2:]))

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · the element-wise product."""
        del base
        first = _factor(values, Role.HADA_W1_A, Role.HADA_W1_B, Role.HADA_T1)
        second = _factor(values, Role.HADA_W2_A, Role.HADA_W2_B, Role.HADA_T2)
        return values.scale * (first * second).reshape(shape)


def _factor(values: Values, left: Role, right: Role, core: Role) -> Tensor:
    a, b = values.float(left), values.float(right)
    if not values.has(core):
        return a @ b
    tucker = values.float(core)  # (rank, rank, *kernel): axis 0 meets a, axis 1 meets b
    product = tucker.flatten(2).permute(2, 0, 1)  # (kernel, rank, rank)
    return (a.T @ product @ b).permute(1, 2, 0)  # (out, in, kernel)


PARAMETRIZATION: Parametrization = LoHa()
