"""Records as rows: a record's fields are the columns of its table, under the same names."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hubtool.library.record import Digests, Facts, Installed, Origin, Own, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Record = Stamp | Digests | Facts | Origin | Own

_LISTS = frozenset({"parametrizations", "trigger_words", "tags", "outfits"})
_UNREAD = frozenset({"snapshot"})  # tens of kilobytes a row, which no listing shows


class _Part(NamedTuple):
    """A record that is read from some columns of one table."""

    table: str
    make: Callable[..., object]
    names: tuple[str, ...]


def columns_of(record: Record) -> dict[str, object]:
    """What to store, by column."""
    return {field.name: _stored(getattr(record, field.name)) for field in dataclasses.fields(record)}


def lines(texts: Sequence[str]) -> str:
    """A list as one text, a line an entry."""
    return "\n".join(" ".join(storable(text).split()) for text in texts)


def storable(text: str) -> str:
    """The text without halves of characters, which JSON can spell and SQLite cannot hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def installed_of(row: Sequence[object]) -> Installed:
    """The file in a row of `SELECT`; written for listings of 50,000."""
    values = list(row)
    for place in _LIST_PLACES:
        text = values[place]
        values[place] = tuple(text.split("\n")) if isinstance(text, str) and text else ()
    values[_FAVOURITE] = bool(values[_FAVOURITE])
    stamp, digests, facts, origin, own = (
        part.make(*values[start:stop]) if part.make is not Origin or row[_HAS_ORIGIN] else None
        for part, (start, stop) in zip(_PARTS, _SPANS, strict=True)
    )
    return Installed(Path(str(row[1])), _folder(str(row[2])), str(row[3]), stamp, digests, facts, origin, own)  # type: ignore[arg-type]  # as `_PARTS` has them


@functools.lru_cache(maxsize=64)
def _folder(path: str) -> Path:
    return Path(path)


def _part(table: str, record: type[Record]) -> _Part:
    return _Part(table, record, tuple(field.name for field in dataclasses.fields(record) if field.name not in _UNREAD))


def _stored(value: object) -> object:
    if isinstance(value, tuple):
        return lines(value)
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, (int, float)) else json.dumps(value)


_PARTS = (
    _part("file", Stamp),
    _part("file", Digests),
    _part("fact", Facts),
    _part("origin", Origin),
    _part("own", Own),
)

_HAS_ORIGIN, _FIRST = 4, 5
_STOPS = itertools.accumulate((len(part.names) for part in _PARTS), initial=_FIRST)
_SPANS = tuple(itertools.pairwise(_STOPS))
_COLUMNS = [name for part in _PARTS for name in part.names]
_LIST_PLACES = tuple(_FIRST + place for place, name in enumerate(_COLUMNS) if name in _LISTS)
_FAVOURITE = _FIRST + _COLUMNS.index("favourite")

#: Every file that is there; a clause may follow.
SELECT = (
    "SELECT file.id, file.path, folder.path, folder.target, origin.id IS NOT NULL, "  # noqa: S608  # names of our own
    + ", ".join(f"{part.table}.{name}" for part in _PARTS for name in part.names)
    + " FROM file JOIN folder ON folder.id = folder_id JOIN fact ON fact.id = file.id JOIN own ON own.id = file.id "
    "LEFT JOIN origin ON origin.id = file.id WHERE NOT missing "
)
