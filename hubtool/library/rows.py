"""Records as rows: a record's fields are the columns of its table, under the same names."""

from __future__ import annotations

import dataclasses
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
    """The file in a row of `SELECT`."""
    path, folder, target, has_origin = row[:4]
    position = 4
    parts: list[object] = []
    for part in _PARTS:
        stop = position + len(part.names)
        fields = {name: _loaded(name, value) for name, value in zip(part.names, row[position:stop], strict=True)}
        position = stop
        parts.append(part.make(**fields) if has_origin or part.make is not Origin else None)
    return Installed(Path(str(path)), Path(str(folder)), str(target), *parts)  # type: ignore[arg-type]  # in Installed's order


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


def _loaded(name: str, value: object) -> object:
    if name in _LISTS:
        return tuple(value.split("\n")) if isinstance(value, str) and value else ()
    return bool(value) if name == "favourite" else value


_PARTS = (
    _part("file", Stamp),
    _part("file", Digests),
    _part("fact", Facts),
    _part("origin", Origin),
    _part("own", Own),
)

#: Every file that is there; a clause may follow.
SELECT = (
    "SELECT file.path, folder.path, folder.target, origin.id IS NOT NULL, "  # noqa: S608  # names of our own
    + ", ".join(f"{part.table}.{name}" for part in _PARTS for name in part.names)
    + " FROM file JOIN folder ON folder.id = folder_id JOIN fact ON fact.id = file.id JOIN own ON own.id = file.id "
    "JOIN word ON word.id = file.id LEFT JOIN origin ON origin.id = file.id WHERE NOT missing "
)
