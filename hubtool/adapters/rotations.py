"""Orthogonal matrices from arbitrary ones, as OFT and BOFT parametrize them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def rotations(blocks: Tensor, bound: float) -> Tensor:
    """Cayley transforms (I + Q)(I − Q)⁻¹ of the skew parts Q = B − Bᵀ, whose norm over all blocks is kept within `bound`.

    Args:
        blocks: (…, b, b)
        bound: 0 for none; LyCORIS and sd-scripts store it per output feature as alpha.
    """
    skew = blocks - blocks.transpose(-1, -2)
    norm = float(skew.norm())
    if 0 < bound < norm:
        skew = skew * (bound / norm)
    identity = skew.new_ones(skew.shape[-1]).diag_embed()
    return (identity + skew) @ (identity - skew).inverse()
