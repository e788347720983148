"""Butterfly orthogonal fine-tuning; recognised, its change needs the base weight.

Liu et al. 2023 (arXiv:2311.06243). `oft_blocks` is (factors, blocks, b, b) with out = blocks · b; PEFT calls it `boft_R`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, needs_arithmetic
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class BOFT:
    """Four-dimensional `oft_blocks`, or PEFT's `boft_R`."""

    id = "boft"
    roles = frozenset({Role.BOFT_R, Role.BOFT_S})

    def recognises(self, shapes: Shapes) -> bool:
        """Blocks of four dimensions."""
        return len(shapes.get(Role.OFT_BLOCKS, ())) == 4 or Role.BOFT_R in shapes

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """The blocks are all there is."""
        return () if self.recognises(shapes) else (Role.OFT_BLOCKS,)

    def rank(self, shapes: Shapes) -> int | None:
        """Alpha is a constraint here, not divided by anything."""
        del shapes
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """Blocks times block side."""
        blocks = shapes.get(Role.OFT_BLOCKS) or shapes.get(Role.BOFT_R)
        return Extent(blocks[1] * blocks[2]) if blocks and len(blocks) == 4 else Extent()

    def delta(self, values: Values, shape: Shape) -> Tensor:
        """Needs the base weight."""
        del values, shape
        raise needs_arithmetic(self.id)


PARAMETRIZATION: Parametrization = BOFT()
