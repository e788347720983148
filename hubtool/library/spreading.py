"""One LoRA for several UIs: fetched once, and put into each LoRA folder as a link to the same bytes where the disk allows it.

The first folder gets the file; every further one a hard link to it, or a copy (which shares its blocks on file systems that
can) where the folder lies on another disk. A symbolic link is never made unasked: it would dangle when the first UI is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.library.acquire import acquire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from hubtool.errors import HubtoolError
    from hubtool.library.acquire import Order, Outcome
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Spread:
    """What became of one SPEC: the first folder's outcome, and where else the file is now."""

    first: Outcome
    also: tuple[Path, ...] = ()
    error: HubtoolError | None = None  # the first that went wrong in any folder


def install_everywhere(
    settings: Settings, specs: Iterable[str], orders: Sequence[Order], say: Callable[[str], None]
) -> list[Spread]:
    """Install everything that the SPECs name into the folder of every order, the first by download or copy.

    Raises:
        StorageProblem, LibraryProblem, UsageProblem: as for `acquire`.
    """
    first, *others = orders
    done = [Spread(outcome, error=outcome.error) for outcome in acquire(settings, specs, first, say)]
    for order in others:
        done = [_spread(settings, one, order, say) for one in done]
    return done


def _spread(settings: Settings, one: Spread, order: Order, say: Callable[[str], None]) -> Spread:
    installed = one.first.installation
    if installed is None:
        return one
    if installed.status == "planned":
        return replace(one, also=(*one.also, order.place.folder / installed.path.name))
    # named as in the first folder, so that one prompt works everywhere
    wish = replace(order.wish, name=order.wish.name or installed.path.stem, way="own")
    (outcome,) = acquire(settings, [str(installed.path)], replace(order, wish=wish), say)
    if outcome.installation is None:
        return replace(one, error=one.error or outcome.error)
    return replace(one, also=(*one.also, outcome.installation.path))
