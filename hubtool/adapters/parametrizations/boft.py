"""Butterfly orthogonal fine-tuning.

Liu et al. 2023 (arXiv:2311.06243). `oft_blocks` is (factors, blocks, b, b) with out = blocks · b; PEFT calls it `boft_R`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes, Values, needed
from hubtool.adapters.rotations import rotations
from hubtool.errors import NotRepresentable
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

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """Output rows turned by one butterfly factor after the other and rescaled, less W.

        Raises:
            NotRepresentable: no base weight, or PEFT's layout.
        """
        weight = needed(base, self.id).reshape(shape[0], -1)
        if not values.has(Role.OFT_BLOCKS):
            raise NotRepresentable("", "PEFT's layout of BOFT cannot be computed.")
        turned = weight
        for level, turns in enumerate(rotations(values.float(Role.OFT_BLOCKS), (values.alpha or 0.0) * shape[0])):
            turned = _butterfly(turned, turns, 2**level)
        if values.has(Role.RESCALE):
            turned = turned * values.float(Role.RESCALE).reshape(-1, 1)
        return (turned - weight).reshape(shape)


def _butterfly(weight: Tensor, turns: Tensor, stride: int) -> Tensor:
    """One factor: rows regrouped so that each block mixes two halves `stride` half-blocks apart, turned, put back."""
    side, columns = turns.shape[-1], weight.shape[1]
    span = stride * side // 2
    mixed = weight.reshape(-1, 2, span, columns).transpose(1, 2).reshape(-1, side, columns)
    turned = (turns @ mixed).reshape(-1, span, 2, columns)
    return turned.transpose(1, 2).reshape(weight.shape)


PARAMETRIZATION: Parametrization = BOFT()
