"""Strengths that change while SD.Next samples: `W@S,W@S` as a tag's number, or behind `te=`, `unet=`, `in=`, `mid=`, `out=`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.library.block_weights import finite

if TYPE_CHECKING:
    from collections.abc import Callable

_KEYS = frozenset({"te", "unet", "in", "mid", "out"})
_PART = re.compile(r"([^,;@~]*)([@~][^,;]*)?")


def scaled(raw: str, factor: float) -> str:
    """A tag with every strength in it scaled, whenever it counts.

    >>> scaled("<lora:ink@2:0@0,1@0.5:te=0.8:high>", 0.5)
    '<lora:ink@2:0@0,0.5@0.5:te=0.4:high>'
    """

    def weight(part: re.Match[str]) -> str:
        number = finite(part[1])
        return part[0] if number is None else spelt(round(number * factor, 4)) + (part[2] or "")

    return _changed(raw, lambda text: _PART.sub(weight, text))


def at_strongest(raw: str) -> str:
    """A tag with the weight that is largest in size for each of its schedules.

    >>> at_strongest("<lora:ink:0@0,1@0.5:te=0.8>"), at_strongest("<lora:ink:in=0.2@0,-0.5@1>")
    ('<lora:ink:1:te=0.8>', '<lora:ink:in=-0.5>')
    """

    def strongest(text: str) -> str:
        weights = [number for part in _PART.findall(text) if (number := finite(part[0])) is not None]
        return spelt(max(weights, key=abs)) if "@" in text and weights else text

    return _changed(raw, strongest)


def spelt(number: float) -> str:
    """As short as it can be without another value.

    >>> spelt(1.0), spelt(0.85), spelt(-0.5)
    ('1', '0.85', '-0.5')
    """
    return repr(number).removesuffix(".0")


def _changed(raw: str, change: Callable[[str], str]) -> str:
    """The tag with every item changed that can be a strength."""
    opening, *items = raw.removesuffix(">").split(":")
    changed = [items[0], *(_item(item, change) for item in items[1:])]
    return ":".join([opening, *changed]) + ">"


def _item(item: str, change: Callable[[str], str]) -> str:
    key, equals, text = item.rpartition("=")
    return key + equals + change(text) if not equals or key in _KEYS else item
