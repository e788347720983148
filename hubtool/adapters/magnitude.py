"""DoRA: the changed weight brought to a stored length, W' = m · (W + ΔW) / ‖W + ΔW‖, row by row or column by column.

Liu et al. 2024 (arXiv:2402.09353). PEFT and LyCORIS since 3.2 store a length for each output; LyCORIS before, OneTrainer and
most files in kohya's names one for each input (KohakuBlueleaf/LyCORIS issues 196 and 216).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from hubtool.adapters.parametrizations.base import Shape


def is_per_input(magnitude: Shape, weight: Shape) -> bool:
    """Whether a magnitude belongs to input columns: (1, in, 1…). PEFT's (1, out, 1, 1) is told apart where the sides differ."""
    count = prod(magnitude)
    return len(magnitude) > 1 and magnitude[0] == 1 and (count == weight[1] or count != weight[0])


def decomposed(change: Tensor, base: Tensor, magnitude: Tensor) -> Tensor:
    """The change of a weight once every row, or column, of base + change has the length that `magnitude` says."""
    changed = base + change
    if is_per_input(tuple(magnitude.shape), tuple(changed.shape)):
        lengths = changed.transpose(0, 1).flatten(1).norm(dim=1)
        shape = (1, -1, *(1,) * (changed.ndim - 2))
    else:
        lengths, shape = changed.flatten(1).norm(dim=1), (-1, *(1,) * (changed.ndim - 1))
    factors: Tensor = (magnitude.flatten() / lengths.clamp_min(1e-30)).reshape(shape)
    return factors * changed - base
