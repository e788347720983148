"""PEFT's `alpha_pattern` and `rank_pattern`: the first pattern that matches the end of a module's path, from a dot on.

PEFT tries every pattern as a regular expression (huggingface/peft utils/other.py, get_pattern_key). Nearly all are plain names,
which a table finds at once; expressions from a stranger's header that could take for ever are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_PLAIN = re.compile(r"^\^?(?:[\w-]|\\?\.)+$")
_DIGITS = re.compile(r"(\\d|\[0-9\])[+*]")  # runs of digits are short
_QUANTIFIERS = re.compile(r"(?<!\\)[*+?{]")
_LONGEST = 300
_MOST = 64  # expressions; with one quantifier each they take a second for the largest model


class _Entry(NamedTuple):
    order: int
    value: object


class Patterns:
    """Values by pattern, looked up by module path."""

    def __init__(self, table: object) -> None:
        """Take a JSON object; anything else holds no patterns."""
        self._anchored: dict[str, _Entry] = {}
        self._endings: dict[str, _Entry] = {}
        self._expressions: list[tuple[re.Pattern[str], _Entry]] = []
        rows = table.items() if isinstance(table, Mapping) else ()
        for index, (pattern, value) in enumerate(rows):
            self._add(str(pattern), _Entry(index, value))

    def _add(self, pattern: str, entry: _Entry) -> None:
        if _PLAIN.match(pattern):
            literal = pattern.removeprefix("^").replace("\\.", ".")
            (self._anchored if pattern.startswith("^") else self._endings).setdefault(literal, entry)
            return
        if len(self._expressions) == _MOST or not _is_quick(pattern):
            return
        try:
            self._expressions.append((re.compile(_whole(pattern)), entry))
        except re.error:
            return  # PEFT would refuse the file; the module then keeps the general value

    def value(self, path: str, default: object) -> object:
        """The value of the first pattern that matches.

        >>> Patterns({"attn.to_q": 8, "^proj_out": 4}).value("blocks.0.attn.to_q", 1)
        8
        """
        parts = path.split(".")
        endings = (self._endings.get(".".join(parts[i:])) for i in range(len(parts)))
        found = [entry for entry in (self._anchored.get(path), *endings) if entry]
        found += [entry for expression, entry in self._expressions if expression.match(path)]
        return min(found).value if found else default


def _whole(pattern: str) -> str:
    """The expression for a whole path; one that begins with `.*` may begin anywhere as it is."""
    return f"({pattern})$" if pattern.startswith(".*") else rf"(.*\.)?({pattern})$"


def _is_quick(pattern: str) -> bool:
    """Whether no path can make it backtrack more than its length squared."""
    rest = _DIGITS.sub("", pattern.removeprefix("^").removeprefix(".*"))
    return len(pattern) <= _LONGEST and len(_QUANTIFIERS.findall(rest)) <= 1
