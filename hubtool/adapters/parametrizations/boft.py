"""Butterfly orthogonal fine-tuning.

Liu et al. 2023 (arXiv:2311.06243). `oft_blocks` is (factors, blocks, b, b) with out = blocks · b; alpha bounds the norm of all.
PEFT's `boft_R` has the same shape and turns the input side, in = blocks · b; its skew part is halved, and `boft_s` (out, 1)
rescales the outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.parametrizations.base import Cut, Parametrization, Shape, Shapes, Values, needed
from hubtool.adapters.rotations import rotations
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
        blocks, inputs = shapes.get(Role.OFT_BLOCKS), shapes.get(Role.BOFT_R)
        if inputs and len(inputs) == 4:
            return Extent(columns=inputs[1] * inputs[2])
        return Extent(blocks[1] * blocks[2]) if blocks and len(blocks) == 4 else Extent()

    def cut(self, values: Values) -> Cut | None:
        """Butterflies mix all outputs; PEFT's mix inputs, which all parts share."""
        return Cut({Role.BOFT_S: 1}) if values.has(Role.BOFT_R) else None

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """Output rows turned by one butterfly factor after the other and rescaled, less W; PEFT's turn input columns.

        Raises:
            NotRepresentable: no base weight.
        """
        weight = needed(base, self.id).reshape(shape[0], -1)
        if values.has(Role.BOFT_R):
            return (_turned_inputs(values, weight) - weight).reshape(shape)
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


def _turned_inputs(values: Values, weight: Tensor) -> Tensor:
    """Input columns turned (huggingface/peft tuners/boft/layer.py), output rows rescaled."""
    blocks = values.float(Role.BOFT_R)
    levels, count, side, _ = blocks.shape
    turned = weight.T
    for level, turns in enumerate(rotations(-blocks / 2, 0.0)):
        order = _order(turned, 2**level, side // 2) if levels > 1 else slice(None)
        gathered = turned.clone()
        gathered[order] = turned
        turned = (turns @ gathered.reshape(count, side, -1)).reshape(turned.shape)[order]
    if values.has(Role.BOFT_S):
        return turned.T * values.float(Role.BOFT_S).reshape(-1, 1)
    return turned.T


def _order(turned: Tensor, blocks: int, half: int) -> Tensor:
    """Row numbers with even half-blocks before odd ones, within groups of `blocks` blocks."""
    numbers = turned.new_ones(turned.shape[0]).nonzero().flatten()
    return numbers.reshape(-1, blocks, 2, half).transpose(1, 2).flatten()


PARAMETRIZATION: Parametrization = BOFT()
