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


def series_rotations(blocks: Tensor, terms: int) -> Tensor:
    """What PEFT takes for the Cayley transform by default: I − 2Q + 2Q² − … ± Qⁿ, with n + 1 = `terms`.

    The series is that of (I − Q)(I + Q)⁻¹: PEFT turns the other way than with `use_cayley_neumann=False` (tuners/oft/layer.py).
    """
    skew = blocks - blocks.transpose(-1, -2)
    power = total = skew.new_ones(skew.shape[-1]).diag_embed().expand_as(skew)
    last = max(terms - 1, 3) if terms > 2 else terms - 1  # as the loop there comes out
    for exponent in range(1, last + 1):
        power = -power @ skew
        total = total + (power if exponent == last and terms > 2 else 2 * power)
    return total
