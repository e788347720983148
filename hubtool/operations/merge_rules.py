"""Merging rules that look at every element of every change, so that each change is made in full, one module at a time.

* TIES, Yadav et al. 2023 (arXiv:2306.01708): of each file's change keep the share `density` with the largest magnitudes;
  elect the sign of the sum for each element; average those that agree with it. Strengths multiply the trimmed changes, so
  that with all at 1 it is the paper's rule with λ = 1. As in the paper the share is of all elements that the file changes,
  not of each module's (arcee-ai/mergekit and peft), which would keep as much of a module that hardly changed as of any other.
* DARE, Yu et al. 2023 (arXiv:2311.03099): drop each element with probability 1 − density, divide what stays by density, add up.
"""

from __future__ import annotations

import zlib
from threading import Lock
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_DROPPED_BITS = 11  # of a magnitude's float32, when magnitudes are counted: steps of 2^-12
_BINS = 1 << (31 - _DROPPED_BITS)
TIES_DENSITY = 0.2  # the paper's
DARE_DENSITY = 0.5


class Magnitudes:
    """How often which magnitudes occur among a file's changes, however many they are: one count for each 2^-12 of an octave."""

    def __init__(self) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.int64)
        self._lock = Lock()

    def add(self, change: Tensor) -> None:
        """Count one module's elements (float32); from any thread."""
        patterns = change.abs().flatten().view(torch.int32) >> _DROPPED_BITS  # ordered as the magnitudes are
        counts = torch.bincount(patterns, minlength=_BINS)
        with self._lock:
            self._counts += counts

    def threshold(self, density: float) -> float:
        """The magnitude from which on lies the share `density` of the elements, or up to one step's more."""
        kept = max(1, round(density * int(self._counts.sum())))
        from_top = self._counts.flip(0).cumsum(0)
        pattern = _BINS - 1 - int((from_top < kept).sum())
        lowest = torch.tensor([max(pattern, 0) << _DROPPED_BITS], dtype=torch.int32)
        return float(lowest.view(torch.float32))


def ties(changes: Sequence[Tensor], strengths: Sequence[float], thresholds: Sequence[float]) -> Tensor:
    """The disjoint mean of what agrees with the elected sign, each change without what is below its threshold."""
    trimmed = (torch.where(c.abs() >= least, c, 0) for c, least in zip(changes, thresholds, strict=True))
    weighted = torch.stack([w * change for w, change in zip(strengths, trimmed, strict=True)])
    elected = weighted.sum(0).sign()
    agreeing = (weighted.sign() == elected) & (weighted != 0)
    return (weighted * agreeing).sum(0) / agreeing.sum(0).clamp_min(1)


def dare(changes: Sequence[Tensor], strengths: Sequence[float], density: float, seed: str) -> Tensor:
    """The weighted sum of randomly thinned changes; the same for the same `seed`, whatever the order of modules."""
    total = torch.zeros_like(changes[0])
    for index, (strength, change) in enumerate(zip(strengths, changes, strict=True)):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{index}".encode()))
        kept = torch.rand(change.shape, generator=generator) < density
        total += change * kept * (strength / density)
    return total
