"""Merging rules that look at every element of every change, so that each change is made in full, one module at a time.

* TIES, Yadav et al. 2023 (arXiv:2306.01708): of each change keep the share `density` with the largest magnitudes; elect the
  sign of the sum for each element; average those that agree with it. Strengths multiply the trimmed changes, so that with
  all at 1 it is the paper's rule with λ = 1. Trimming is by module (the paper's is by model), as arcee-ai/mergekit and
  peft do it.
* DARE, Yu et al. 2023 (arXiv:2311.03099): drop each element with probability 1 − density, divide what stays by density, add up.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TIES_DENSITY = 0.2  # the paper's
DARE_DENSITY = 0.5


def ties(changes: Sequence[Tensor], strengths: Sequence[float], density: float) -> Tensor:
    """The disjoint mean of what agrees with the elected sign."""
    weighted = torch.stack([w * trimmed(change, density) for w, change in zip(strengths, changes, strict=True)])
    elected = weighted.sum(0).sign()
    agreeing = (weighted.sign() == elected) & (weighted != 0)
    return (weighted * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)


def trimmed(change: Tensor, density: float) -> Tensor:
    """The largest elements by magnitude, zeros elsewhere."""
    magnitudes = change.abs().flatten()
    kept = max(1, round(density * len(magnitudes)))
    threshold = torch.kthvalue(magnitudes, len(magnitudes) - kept + 1).values
    return torch.where(change.abs() >= threshold, change, 0)


def dare(changes: Sequence[Tensor], strengths: Sequence[float], density: float, seed: str) -> Tensor:
    """The weighted sum of randomly thinned changes; the same for the same `seed`, whatever the order of modules."""
    total = torch.zeros_like(changes[0])
    for index, (strength, change) in enumerate(zip(strengths, changes, strict=True)):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{index}".encode()))
        kept = torch.rand(change.shape, generator=generator) < density
        total += change * kept * (strength / density)
    return total
