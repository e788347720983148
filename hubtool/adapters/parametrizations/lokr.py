"""Kronecker product: W' = W + scale · (w1 ⊗ w2), either factor whole or low-rank.

Layouts of KohakuBlueleaf/LyCORIS modules/lokr.py; `w1` is the outer, small factor. The scale is alpha / rank of the factorised
part; where both factors are whole it is 1 and alpha means nothing (LyCORIS stores alpha = dim there).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor

_W1 = (Role.LOKR_W1_A, Role.LOKR_W1_B)
_W2 = (Role.LOKR_W2_A, Role.LOKR_W2_B)


class LoKr:
    """The Kronecker product of a small and a large factor."""

    id = "lokr"
    roles = frozenset({Role.LOKR_W1, *_W1, Role.LOKR_W2, *_W2, Role.LOKR_T1, Role.LOKR_T2})

    def recognises(self, shapes: Shapes) -> bool:
        """Any of its factors."""
        return not self.roles.isdisjoint(shapes)

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """Each factor, whole or as a pair."""
        lacking: list[Role] = []
        for whole, pair in ((Role.LOKR_W1, _W1), (Role.LOKR_W2, _W2)):
            if whole not in shapes:
                parts = [role for role in pair if role not in shapes]
                lacking += [whole] if len(parts) == 2 else parts
        return tuple(lacking)

    def rank(self, shapes: Shapes) -> int | None:
        """Rank of `w2` if it is factorised, else of `w1`; None when both are whole."""
        for role in (Role.LOKR_W2_B, Role.LOKR_W1_B):
            if factor := shapes.get(role):
                return factor[0]
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """Products of the factors' sides."""
        first, second = _sides(shapes, Role.LOKR_W1, _W1, None), _sides(shapes, Role.LOKR_W2, _W2, Role.LOKR_T2)
        if first is None or second is None:
            return Extent()
        return Extent(first[0] * second[0], first[1] * second[1])

    def cut(self, values: Values) -> Cut | None:
        """Rows of `w1`, each of which stands for all rows of `w2`."""
        second = _sides(values.shapes, Role.LOKR_W2, _W2, Role.LOKR_T2)
        if second is None:
            return None
        return Cut({Role.LOKR_W1 if values.has(Role.LOKR_W1) else Role.LOKR_W1_A: second[0]})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """scale · w1 ⊗ w2, in the weight's shape."""
        del base
        first = values.float(Role.LOKR_W1) if values.has(Role.LOKR_W1) else _product(values, *_W1)
        second = values.float(Role.LOKR_W2) if values.has(Role.LOKR_W2) else _second(values)
        flat = second.reshape(second.shape[0], second.shape[1], -1)  # (o2, i2, kernel)
        outer = first[:, None, :, None, None] * flat[None, :, None]  # (o1, o2, i1, i2, kernel)
        return values.scale * outer.reshape(shape)


def _sides(shapes: Shapes, whole: Role, pair: tuple[Role, Role], core: Role | None) -> tuple[int, int] | None:
    if whole in shapes:
        side = shapes[whole]
        return (side[0], prod(side[1:])) if len(side) >= 2 else None
    left, right = shapes.get(pair[0]), shapes.get(pair[1])
    if not left or not right or min(len(left), len(right)) < 2:
        return None
    if core is not None and core in shapes:
        return left[1], right[1] * prod(shapes[core][2:])
    return left[0], right[1]


def _product(values: Values, left: Role, right: Role) -> Tensor:
    return values.float(left) @ values.float(right)


def _second(values: Values) -> Tensor:
    """`w2` from its parts: (o2, i2), (o2, i2 · kernel) or, with a Tucker core, (o2, i2, kernel)."""
    if not values.has(Role.LOKR_T2):
        return _product(values, *_W2)
    core = values.float(Role.LOKR_T2).flatten(2).permute(2, 0, 1)
    return (values.float(Role.LOKR_W2_A).T @ core @ values.float(Role.LOKR_W2_B)).permute(1, 2, 0)


PARAMETRIZATION: Parametrization = LoKr()
