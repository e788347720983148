"""(IA)³: W' = W · (1 + w) along one axis.

Liu et al. 2022 (arXiv:2205.05638). LyCORIS stores the difference from 1 in `.weight` with `.on_input` (an integer) beside it;
PEFT stores the factor itself in `.ia3_l`.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, absent, needed
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class IA3:
    """One factor an input or output feature."""

    id = "ia3"
    roles = frozenset({Role.IA3_WEIGHT, Role.IA3_ON_INPUT, Role.IA3_L})

    def recognises(self, shapes: Shapes) -> bool:
        """`.on_input` tells it from a checkpoint's `.weight`."""
        return Role.IA3_ON_INPUT in shapes or Role.IA3_L in shapes

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """The factors."""
        return () if Role.IA3_L in shapes else absent(shapes, Role.IA3_WEIGHT)

    def rank(self, shapes: Shapes) -> int | None:
        """There is no alpha."""
        del shapes
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """As many factors as the weight has rows or columns."""
        factors = shapes.get(Role.IA3_WEIGHT) or shapes.get(Role.IA3_L)
        return Extent(either=prod(factors)) if factors else Extent()

    def cut(self, values: Values) -> Cut | None:
        """Factors of output features one by one; those of input features belong to every part."""
        if values.has(Role.IA3_L):
            return Cut({} if values.shapes[Role.IA3_L][0] == 1 else {Role.IA3_L: 1})
        if len(values.shapes.get(Role.IA3_WEIGHT, ())) != 1:
            return None
        return Cut({} if values.number(Role.IA3_ON_INPUT) else {Role.IA3_WEIGHT: 1})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """W · w along its axis; w is the factor less 1."""
        weight = needed(base, self.id).reshape(shape)
        if values.has(Role.IA3_L):
            factors = values.float(Role.IA3_L)
            on_input = _on_input(tuple(factors.shape), shape)
            change = factors.flatten() - 1
        else:
            change, on_input = values.float(Role.IA3_WEIGHT).flatten(), bool(values.float(Role.IA3_ON_INPUT).item())
        axis = 1 if on_input else 0
        return weight * change.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _on_input(factors: Shape, weight: Shape) -> bool:
    """PEFT's `ia3_l` is (out, 1) or (1, in); in convolutions (1, n, 1, 1) for either, where outputs are the usual case."""
    if len(factors) == 2:
        return factors[0] == 1 and weight[0] != 1
    return prod(factors) != weight[0]


PARAMETRIZATION: Parametrization = IA3()
