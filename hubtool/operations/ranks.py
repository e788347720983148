"""How many singular values to keep: a number, a share of the energy or of the sum, a threshold, or a ratio.

A rule is asked again and again while the values are being found, and answers once they decide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

import torch

from hubtool.errors import UsageProblem

if TYPE_CHECKING:
    from torch import Tensor

_NO_LIMIT = 1 << 30
_SLACK = 1e-9  # of a sum of float64 numbers that were float32 once


class Doubt(NamedTuple):
    """How far from the truth squared singular values may be, or the sums of the first so many; one for all, or one for each."""

    missing: float | Tensor = 0.0  # too small by up to so much: a search finds values from below
    rounding: float | Tensor = 0.0  # wrong by up to so much, either way


EXACT = Doubt()


class RankRule(Protocol):
    """Decides how many singular values to keep."""

    of_sums: ClassVar[bool]  # whether it looks at the sum of the values, not at each

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """The rank, from squared singular values found so far (descending, float64); None if they do not decide it.

        `doubt` is that of the values, or of the sums of the first so many (`of_sums`).
        """
        ...

    def expected(self, side: int) -> int:
        """About how many will be kept, to choose a method and a block size."""
        ...


@dataclass(frozen=True, slots=True)
class FixedRank:
    """So many, or as many as there are."""

    of_sums: ClassVar[bool] = False
    value: int

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """The number itself."""
        del squared_norm, doubt
        return self.value if len(energies) >= self.value else None

    def expected(self, side: int) -> int:
        """The number itself, or all."""
        return min(self.value, side)


@dataclass(frozen=True, slots=True)
class EnergyRank:
    """The fewest whose squares sum to at least `share` of ‖A‖², but not more than `limit`."""

    of_sums: ClassVar[bool] = True
    share: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """The first sum that reaches the share."""
        sums = torch.cumsum(energies, 0)
        wanted = self.share * squared_norm
        fewest = int((sums + doubt.missing + doubt.rounding < wanted).sum()) + 1
        most = int((sums - doubt.rounding < wanted).sum()) + 1
        if len(energies) >= self.limit and fewest >= self.limit:
            return self.limit
        return fewest if fewest == most <= len(energies) else None

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)


@dataclass(frozen=True, slots=True)
class ThresholdRank:
    """All singular values greater than `value`, but not more than `limit`."""

    of_sums: ClassVar[bool] = False
    value: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """Certain once the next value is certainly below the threshold; those after it are smaller still."""
        del squared_norm
        least = int((energies - doubt.rounding > self.value**2).sum())
        if least >= self.limit:
            return self.limit
        is_below = energies + doubt.missing + doubt.rounding <= self.value**2
        return least if least < len(energies) and bool(is_below[least]) else None

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)


@dataclass(frozen=True, slots=True)
class RatioRank:
    """All singular values greater than `share` of the largest, but not more than `limit`."""

    of_sums: ClassVar[bool] = False
    share: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """Certain once a value below that was found and none is too near to it."""
        return ThresholdRank(self.share * float(energies[0]) ** 0.5, self.limit).rank(energies, squared_norm, doubt)

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)


@dataclass(frozen=True, slots=True)
class QuantileRank:
    """The fewest whose sum is at least `share` of the sum of all singular values, but not more than `limit`.

    sd-scripts calls this `sv_cumulative`, and before its PR 2194 kept one more; LyCORIS's quantile keeps one fewer, the largest
    count whose sum stays below the share.
    """

    of_sums: ClassVar[bool] = True
    share: float
    limit: int = _NO_LIMIT

    def rank(self, energies: Tensor, squared_norm: float, doubt: Doubt) -> int | None:
        """From all of them: what was not found yet counts here."""
        del squared_norm, doubt
        sums = torch.cumsum(energies.sqrt(), 0)
        wanted = self.share * float(sums[-1]) * (1 - _SLACK)
        return min(int((sums < wanted).sum()) + 1, len(energies), self.limit)

    def expected(self, side: int) -> int:
        """All have to be known."""
        return side


Method = Literal["rank", "energy", "sv_ratio", "sv_fro", "sv_cumulative"]


def named_rule(method: Method, value: float, limit: int | None = None) -> RankRule:
    """The rule of a name that sd-scripts' networks/resize_lora.py uses, or `energy`; `limit` is the most that it may keep.

    `sv_ratio` R keeps every σᵢ > σ₁ / R; `sv_fro` F keeps the fewest with √Σσᵢ² ≥ F · ‖ΔW‖, which is an energy of F².

    Raises:
        UsageProblem: a value that the rule has no use for.
    """
    most = limit or _NO_LIMIT
    if method == "rank":
        return FixedRank(int(_checked(value >= 1, value, "A rank is at least 1")))
    if method == "sv_ratio":
        return RatioRank(1 / _checked(1 < value < math.inf, value, "A ratio of values is greater than 1"), most)
    share = _checked(0 < value <= 1, value, f"The share of `{method}` is greater than 0 and at most 1")
    if method == "sv_cumulative":
        return QuantileRank(share, most)
    return EnergyRank(share * share if method == "sv_fro" else share, most)


def _checked(holds: bool, value: float, sentence: str) -> float:  # noqa: FBT001  # the outcome of a test
    if not holds:
        raise UsageProblem(f"{sentence}, not {value:g}.")
    return value
