"""A plain difference, W' = W + diff, or an absolute value that replaces the weight (`set_weight`, FLUX control norms)."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, needed
from hubtool.errors import NotRepresentable
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class Full:
    """`diff` in the weight's own shape; `diff_b` for the bias, `diff_m` for a modulation parameter."""

    id = "full"
    roles = frozenset({Role.DIFF, Role.SET_WEIGHT, Role.DIFF_MODULATION})

    def recognises(self, shapes: Shapes) -> bool:
        """A difference, if only of the bias."""
        return not shapes.keys().isdisjoint({*self.roles, Role.DIFF_BIAS})

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """Any one difference is enough."""
        del shapes
        return ()

    def rank(self, shapes: Shapes) -> int | None:
        """There is no alpha."""
        del shapes
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """The difference has the weight's shape."""
        diff = shapes.get(Role.DIFF) or shapes.get(Role.SET_WEIGHT)
        if diff:
            return Extent(diff[0], prod(diff[1:]))
        modulation = shapes.get(Role.DIFF_MODULATION)
        if modulation and len(modulation) > 1:
            return Extent(modulation[-2], modulation[-1])
        bias = shapes.get(Role.DIFF_BIAS)
        return Extent(bias[0]) if bias else Extent()

    def cut(self, values: Values) -> Cut | None:
        """Row by row; a modulation parameter is no weight."""
        return None if values.has(Role.DIFF_MODULATION) else Cut({Role.DIFF: 1, Role.SET_WEIGHT: 1})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """The difference as it is, or the new value less the base weight."""
        if values.has(Role.DIFF):
            return values.float(Role.DIFF).reshape(shape)
        if values.has(Role.SET_WEIGHT):
            return values.float(Role.SET_WEIGHT).reshape(shape) - needed(base, self.id).reshape(shape)
        raise NotRepresentable("", "A change of the bias or a modulation alone leaves the weight as it is.")


PARAMETRIZATION: Parametrization = Full()
