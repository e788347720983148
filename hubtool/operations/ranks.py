"""How many singular values to keep: a number, a share of the energy or of the sum, a threshold, or a ratio.

A rule is asked again and again while the values are being found, and answers once they decide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class RankRule(Protocol):
    """Decides how many singular values to keep."""

    of_sums: ClassVar[bool]  # whether it looks at the sum of the values, not at each

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """The rank, from squared singular values found so far (descending, float64); None if they do not decide it.

        The values (or the sums of the first so many, `of_sums`) may be wrong by up to `doubt`, one for all or one for each.
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

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
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
    limit: int = 1 << 30

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """The first sum that reaches the share."""
        sums = torch.cumsum(energies, 0)
        wanted = self.share * squared_norm
        fewest, most = (int((sums + error < wanted).sum()) + 1 for error in (doubt, -doubt))
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
    limit: int = 1 << 30

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """Certain once a value below the threshold was found and none is too near to it."""
        del squared_norm
        least, most = (int((energies > self.value**2 + error).sum()) for error in (doubt, -doubt))
        if least >= self.limit:
            return self.limit
        return least if least == most < len(energies) else None

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)


@dataclass(frozen=True, slots=True)
class RatioRank:
    """All singular values greater than `value` times the largest, but not more than `limit`."""

    of_sums: ClassVar[bool] = False
    value: float
    limit: int = 1 << 30

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """Certain once a value below that was found and none is too near to it."""
        return ThresholdRank(self.value * float(energies[0]) ** 0.5, self.limit).rank(energies, squared_norm, doubt)

    def expected(self, side: int) -> int:
        """Unknown; a usual rank."""
        return min(32, side, self.limit)


@dataclass(frozen=True, slots=True)
class QuantileRank:
    """The fewest whose sum is at least `share` of the sum of all singular values, but not more than `limit`.

    sd-scripts calls this sv_cumulative; LyCORIS's quantile keeps one fewer, the largest count whose sum stays below the share.
    """

    of_sums: ClassVar[bool] = True
    share: float
    limit: int = 1 << 30

    def rank(self, energies: Tensor, squared_norm: float, doubt: float | Tensor) -> int | None:
        """From all of them: what was not found yet counts here."""
        del squared_norm, doubt
        sums = torch.cumsum(energies.sqrt(), 0)
        return min(int((sums < self.share * sums[-1]).sum()) + 1, len(energies), self.limit)

    def expected(self, side: int) -> int:
        """All have to be known."""
        return side
