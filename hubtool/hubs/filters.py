"""What a search should have filtered and sorted: hubs ignore some of what they are asked, and few know every filter."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from hubtool.hubs.hub import ALLOWED_LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hubtool.hubs.hub import Model, Query

_WINDOWS: Mapping[str, timedelta] = {
    "Day": timedelta(days=1),
    "Week": timedelta(days=7),
    "Month": timedelta(days=31),
    "Year": timedelta(days=366),
}


def _newest(model: Model) -> str:
    return max((version.published_at or "" for version in model.versions), default="")


_ORDERS: Mapping[str, Callable[[Model], object]] = {"downloads": lambda model: model.downloads or 0, "newest": _newest}


def suits(model: Model, query: Query) -> bool:
    """Whether a model is by the creator, with the tag, from the time and no more explicit than was asked for."""
    if query.tag and query.tag.casefold() not in (tag.casefold() for tag in model.tags):
        return False
    if query.creator and model.creator.casefold() != query.creator.casefold():
        return False
    if query.period in _WINDOWS and not _is_within(_newest(model), _WINDOWS[query.period]):
        return False
    return is_mild(model, query.nsfw)


def is_mild(model: Model, nsfw: str) -> bool:
    """Whether a model is no more explicit than a level of ALLOWED_LEVELS, by its mask; without one, by its flag."""
    if model.nsfw_level and nsfw != "none":
        return model.nsfw_level & ~ALLOWED_LEVELS[nsfw] == 0
    # of a page for all ages, the mask says what else the model also has
    return not model.nsfw or nsfw in {"mature", "all"}


def ordered(models: Iterable[Model], sort: str) -> list[Model]:
    """The models in the order asked for, where it can be told from what they say; else as they came."""
    found = list(models)
    if sort in _ORDERS:
        found.sort(key=_ORDERS[sort], reverse=True)  # type: ignore[arg-type]  # each order has one type of key
    return found


def _is_within(moment: str, window: timedelta) -> bool:
    try:
        published = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return False
    if published.tzinfo is None:
        published = published.replace(tzinfo=timezone.utc)
    return datetime.now(timezone.utc) - published <= window
