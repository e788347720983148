"""Ranks for a file of at most so many bytes: each goes where it holds the most energy for what it weighs.

Squared singular values fall within a module, so taking the best direction of all modules again and again (energy per byte)
gives the largest sum of energies that fits: at equal size a better LoRA than equal ranks give.
"""

from __future__ import annotations

import heapq
from math import prod
from typing import TYPE_CHECKING

from hubtool.formats.tensor import DTYPE_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.operations.extract_layers import Extracted
    from hubtool.operations.extract_pairs import Pair

HEADROOM = 3  # a module may get so many times the rank that all would get in equal shares


def even_rank(pairs: Sequence[Pair], dtype: str, max_bytes: int) -> int:
    """About the rank that every module would get in a file of this size; at least 1."""
    weight = sum(pair.shape[0] + prod(pair.shape[1:]) for pair in pairs) * DTYPE_BITS[dtype] // 8
    return max(1, max_bytes // max(weight, 1))


def fit_to_size(layers: Sequence[Extracted], max_bytes: int) -> list[Extracted]:
    """The layers cut to the ranks that hold the most energy within the size of all factors together."""
    left = max_bytes
    ranks = [0] * len(layers)
    best = [(-layer.energies[0] / layer.bytes_per_rank, index) for index, layer in enumerate(layers) if layer.rank]
    heapq.heapify(best)
    while best:
        _, index = heapq.heappop(best)
        layer = layers[index]
        if layer.bytes_per_rank > left:
            continue  # a smaller module's direction may still fit
        left -= layer.bytes_per_rank
        ranks[index] += 1
        if ranks[index] < layer.rank:
            heapq.heappush(best, (-layer.energies[ranks[index]] / layer.bytes_per_rank, index))
    return [layer.cut(rank) for layer, rank in zip(layers, ranks, strict=True)]
