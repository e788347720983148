"""What is asked of a hub and what comes back, as plain records: no HTTP in here."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import BadAnswer
from hubtool.hubs.addresses import origin, public_url

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON_LIMIT_BYTES = 32 << 20
MAX_DEPTH = 100  # records are some five deep, what tools write into pictures some twenty
_MAX_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Site:
    """Where a hub lives, and the token for it."""

    base: str  # scheme://host[:port][/path] without a slash at the end
    origins: frozenset[str]  # those that may see the token
    token: str = field(default="", repr=False)
    alternates: tuple[str, ...] = ()  # other bases of the same API, asked when this one has nothing or is away
    token_source: str = ""  # a variable's name, keyring, a file


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole small answer."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    def value(self, url: str) -> object:
        """The body's JSON.

        Raises:
            BadAnswer: it is none.
        """
        return parsed_json(self.body, url)


@dataclass(frozen=True, slots=True)
class Question:
    """A small request and the answer that is acceptable."""

    url: str
    limit: int = JSON_LIMIT_BYTES
    with_token: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # a POST
    statuses: frozenset[int] = frozenset({200})


def parsed_json(body: bytes, url: str) -> object:
    """JSON, whatever is wrong with it that can be borne: a byte order mark, repeated keys, numbers that are none (None).

    Raises:
        BadAnswer: it is none, or nested deeper than MAX_DEPTH.
    """
    text = body.decode("utf-8-sig", "replace")
    try:
        value = json.loads(text, parse_constant=_nothing, parse_float=_finite, parse_int=_whole)
        is_deep = _is_deep(value)
    except RecursionError:
        is_deep = True
    except ValueError as error:
        what = "a web page" if body.lstrip()[:1] == b"<" else "something that is no JSON"
        raise BadAnswer(f"{origin(url)} answered with {what} instead of its API.", url=public_url(url)) from error
    if is_deep:  # whoever prints, compares or keeps it would go down as far
        raise BadAnswer(f"{origin(url)} answered with JSON nested too deep to be real.", url=public_url(url))
    return value


def _is_deep(value: object) -> bool:
    """Whether containers lie more than MAX_DEPTH deep in each other."""
    level: list[object] = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        inner = (entry.values() if isinstance(entry, dict) else entry for entry in level)
        level = [found for entries in inner for found in entries if isinstance(found, (dict, list))]  # type: ignore[attr-defined]  # containers all
        if not level:
            return False
    return True


def _whole(text: str) -> int | None:
    """A number, if it can be one: thousands of digits take long to read, and name nothing."""
    return int(text) if len(text) <= _MAX_DIGITS else None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _nothing(_: str) -> None:
    """What stands for NaN and infinity: no JSON that we write may hold them."""
