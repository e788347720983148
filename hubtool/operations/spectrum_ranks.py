"""Rank rules that need singular values rather than their squares, under the names that sd-scripts gives them.

sd-scripts networks/resize_lora.py has `sv_ratio`, `sv_cumulative` and `sv_fro`. Here each follows its definition; before its PR
2194 sd-scripts counted one direction more in the last two.

| name | keeps |
|---|---|
| `sv_ratio` R | every σᵢ > σ₁ / R |
| `sv_cumulative` C | the fewest with Σσᵢ ≥ C · Σσ |
| `sv_fro` F | the fewest with √Σσᵢ² ≥ F · ‖ΔW‖: an energy of F² |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from hubtool.errors import UsageProblem
from hubtool.operations.ranks import EnergyRank, FixedRank, RankRule

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["rank", "energy", "sv_ratio", "sv_fro", "sv_cumulative"]
_NO_LIMIT = 1 << 30
_SLACK = 1e-9  # of a sum of float64 numbers that were float32 once


@dataclass(frozen=True, slots=True)
class RatioRank:
    """All singular values greater than the largest divided by `ratio`."""

    of_sums: ClassVar[bool] = False
    ratio: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """Certain once a value below the cut was found, or no energy is left."""
        if not len(energies):
            return None
        cut, total = float(energies[0]) / self.ratio**2, float(energies.sum())
        least, most = (int((energies > cut + error).sum()) for error in (doubt, -doubt))
        if least >= self.limit:
            return self.limit
        complete = most < len(energies) or squared_norm - total <= _SLACK * squared_norm
        return least if least == most and complete else None

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)

    def confirms(self, energies: Tensor, squared_norm: float) -> bool:
        """They all exceed the cut."""
        del squared_norm
        return bool((energies > energies[0] / self.ratio**2).all())


@dataclass(frozen=True, slots=True)
class CumulativeRank:
    """The fewest whose sum reaches a share of the sum of all: needs every singular value."""

    of_sums: ClassVar[bool] = True
    share: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """The first sum that reaches the share; undecided until all values are there."""
        is_sure = isinstance(doubt, (int, float)) and not doubt
        if not is_sure or squared_norm - float(energies.sum()) > 1e-6 * squared_norm:
            return None
        sums = torch.cumsum(energies.clamp_min(0).sqrt(), 0)
        wanted = self.share * float(sums[-1]) * (1 - _SLACK)
        return min(int((sums < wanted).sum()) + 1, self.limit)

    def expected(self, side: int) -> int:
        """All, so that the exact method is chosen."""
        return side

    def confirms(self, energies: Tensor, squared_norm: float) -> bool:
        """Only the exact method decides this rule."""
        del energies, squared_norm
        return True


def rule_for(method: Method, value: float, limit: int | None = None) -> RankRule:
    """The rule of a name; `limit` is the most that it may keep.

    Raises:
        UsageProblem: a value that the rule has no use for.
    """
    most = limit or _NO_LIMIT
    if method == "rank":
        return FixedRank(int(_checked(value >= 1, value, "A rank is at least 1")))
    if method == "sv_ratio":
        return RatioRank(
            _checked(1 < value < float("inf"), value, "A ratio of singular values is greater than 1"), most
        )
    share = _checked(0 < value <= 1, value, f"The share of `{method}` is greater than 0 and at most 1")
    if method == "sv_cumulative":
        return CumulativeRank(share, most)
    return EnergyRank(share * share if method == "sv_fro" else share, most)


def _checked(holds: bool, value: float, sentence: str) -> float:  # noqa: FBT001  # the outcome of a test
    if not holds:
        raise UsageProblem(f"{sentence}, not {value:g}.")
    return value
