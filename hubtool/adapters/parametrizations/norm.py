"""Additive changes of a norm's weight and bias (LyCORIS `train_norm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, absent
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class Norm:
    """`w_norm` (features) and, unless the norm has no bias, `b_norm` (features)."""

    id = "norm"
    roles = frozenset({Role.NORM_WEIGHT, Role.NORM_BIAS})

    def recognises(self, shapes: Shapes) -> bool:
        """Either of the two."""
        return not self.roles.isdisjoint(shapes)

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """The weight's change."""
        return absent(shapes, Role.NORM_WEIGHT)

    def rank(self, shapes: Shapes) -> int | None:
        """There is no alpha."""
        del shapes
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """As many features as the norm has."""
        weight = shapes.get(Role.NORM_WEIGHT) or shapes.get(Role.NORM_BIAS)
        return Extent(weight[0], 1) if weight else Extent()

    def cut(self, values: Values) -> Cut | None:
        """Feature by feature."""
        del values
        return Cut({Role.NORM_WEIGHT: 1, Role.NORM_BIAS: 1})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """The weight's change as it is."""
        del base
        return values.float(Role.NORM_WEIGHT).reshape(shape)


PARAMETRIZATION: Parametrization = Norm()
