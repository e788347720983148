"""JSON inside the header's metadata: written by strangers, so whatever cannot be used counts as absent."""

from __future__ import annotations

import json
import math
from typing import NoReturn

LONGEST_JSON = 4_000_000  # characters; all alphas and patterns of the largest model take a tenth


def read_json(text: str | None) -> object:
    """The value; None for no text, no JSON, NaN or infinity in it, and texts whose parsing would take long.

    >>> read_json('{"a": 1}'), read_json('{"a": NaN}')
    ({'a': 1}, None)
    """
    if not text or len(text) > LONGEST_JSON:
        return None
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def read_number(value: object) -> float | None:
    """A finite number, if that is what it is.

    >>> read_number(2), read_number(True), read_number("2"), read_number(10**400)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
