"""Orthogonal fine-tuning, block-diagonal: W' = R · W with orthogonal blocks; recognised, its change needs the base weight.

Qiu et al. 2023 (arXiv:2306.07280). `oft_blocks` is (blocks, b, b) with out = blocks · b; PEFT's `oft_R` holds strict upper
triangles, (blocks, b(b−1)/2), and turns the input side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, needs_arithmetic
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from torch import Tensor


class OFT:
    """Diag-OFT: three-dimensional `oft_blocks`, or `oft_diag`, or PEFT's `oft_R`."""

    id = "oft"
    roles = frozenset({Role.OFT_BLOCKS, Role.OFT_DIAG, Role.OFT_R, Role.OFT_SCALED})

    def recognises(self, shapes: Shapes) -> bool:
        """Blocks of three dimensions; four are BOFT's."""
        if Role.OFT_BLOCKS in shapes:
            return len(shapes[Role.OFT_BLOCKS]) != 4
        return Role.OFT_DIAG in shapes or Role.OFT_R in shapes

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """The blocks are all there is."""
        return () if self.recognises(shapes) else (Role.OFT_BLOCKS,)

    def rank(self, shapes: Shapes) -> int | None:
        """Alpha is a constraint here, not divided by anything."""
        del shapes
        return None

    def extent(self, shapes: Shapes) -> Extent:
        """Blocks times block side."""
        blocks = shapes.get(Role.OFT_BLOCKS) or shapes.get(Role.OFT_DIAG)
        return Extent(blocks[0] * blocks[1]) if blocks and len(blocks) == 3 else Extent()

    def delta(self, values: Values, shape: Shape) -> Tensor:
        """Needs the base weight."""
        del values, shape
        raise needs_arithmetic(self.id)


PARAMETRIZATION: Parametrization = OFT()
