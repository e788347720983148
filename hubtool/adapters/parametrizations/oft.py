"""Orthogonal fine-tuning, block-diagonal: W' = R · W with orthogonal blocks.

Qiu et al. 2023 (arXiv:2306.07280). `oft_blocks` is (blocks, b, b) with out = blocks · b, and alpha bounds the norm of all of
them together; LyCORIS before 2.0 stored the orthogonal blocks themselves as `oft_diag`. PEFT's `oft_R` holds strict upper
triangles, (blocks, b(b−1)/2), and turns the input side, by a series unless its config says otherwise; OneTrainer marks those
that it divides by 2√(b−1) with `scaled_oft`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, needed
from hubtool.adapters.rotations import rotations, series_rotations
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
        blocks, triangles = shapes.get(Role.OFT_BLOCKS) or shapes.get(Role.OFT_DIAG), shapes.get(Role.OFT_R)
        if triangles and len(triangles) == 2 and triangles[0] > 1:  # one alone may be shared by all blocks
            return Extent(columns=triangles[0] * _side(triangles[1]))
        return Extent(blocks[0] * blocks[1]) if blocks and len(blocks) == 3 else Extent()

    def cut(self, values: Values) -> Cut | None:
        """Block by block; not under a bound, which holds for all blocks together. PEFT's turn inputs, which all parts share."""
        if values.has(Role.OFT_R):
            return Cut({})
        if values.has(Role.OFT_DIAG):
            return Cut({Role.OFT_DIAG: values.shapes[Role.OFT_DIAG][-1], Role.RESCALE: 1})
        if values.alpha or len(values.shapes[Role.OFT_BLOCKS]) != 3:
            return None
        return Cut({Role.OFT_BLOCKS: values.shapes[Role.OFT_BLOCKS][1], Role.RESCALE: 1})

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """Output rows turned block by block (Rᵀ · W) and rescaled, less W; PEFT's turn input columns (W · R).

        Raises:
            NotRepresentable: no base weight.
        """
        weight = needed(base, self.id).reshape(shape[0], -1)
        if values.has(Role.OFT_R):
            return (_turned_inputs(values, weight) - weight).reshape(shape)
        if values.has(Role.OFT_DIAG):
            turns = values.float(Role.OFT_DIAG)
        else:
            turns = rotations(values.float(Role.OFT_BLOCKS), (values.alpha or 0.0) * shape[0])
        turned = turns.transpose(1, 2) @ weight.reshape(turns.shape[0], turns.shape[1], -1)
        turned = turned.reshape(weight.shape)
        if values.has(Role.RESCALE):
            turned = turned * values.float(Role.RESCALE).reshape(-1, 1)
        return (turned - weight).reshape(shape)


def _side(entries: int) -> int:
    """The side of a block from the entries of its strict upper triangle."""
    return (1 + math.isqrt(1 + 8 * entries)) // 2


def _turned_inputs(values: Values, weight: Tensor) -> Tensor:
    """W · blockdiag(R), R from strict upper triangles read row by row (huggingface/peft tuners/oft/layer.py)."""
    triangles = values.float(Role.OFT_R)
    count, side = triangles.shape[0], _side(triangles.shape[1])
    if values.has(Role.OFT_SCALED):  # Nerogar/OneTrainer
        triangles = triangles / (2 * math.sqrt(side - 1))
    rows, columns = triangles.new_ones(side, side).triu(1).nonzero().T
    upper = triangles.new_zeros(count, side, side)
    upper[:, rows, columns] = triangles  # an upper triangle less its transpose is the skew matrix itself
    if count * side != weight.shape[1]:  # one block shared by all
        upper = upper.repeat(weight.shape[1] // side, 1, 1)
    turns = series_rotations(upper, values.series_terms) if values.series_terms else rotations(upper, 0.0)
    parts = weight.reshape(weight.shape[0], -1, 1, side) @ turns
    return parts.reshape(weight.shape)


PARAMETRIZATION: Parametrization = OFT()
