"""Files of the library by words and properties, found by the database, so that only what is shown is read.

Texts are compared whatever their case.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed

RANKED = 5_000  # above this many matches, ordering by relevance costs 0.1 s and tells nothing
#: Orders that can be asked for.
ORDERS: Mapping[str, str] = {
    "path": "file.path",
    "newest": "mtime_ns DESC, file.path",
    "largest": "size_bytes DESC, file.path",
    "rating": "rating DESC, favourite DESC, file.path",
    "used": "coalesce((SELECT count FROM used WHERE used.id = file.id), 0) DESC, file.path",
}
_BASE = "coalesce(nullif(origin.base_model, ''), fact.base_model)"
_TEXTS = ("name", "title", "trigger_words", "tags", "base_model", "people")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a file must be; base models and creators are found by any part of their name."""

    base: str = ""
    architecture: str = ""
    dialect: str = ""
    parametrization: str = ""
    tag: str = ""
    creator: str = ""
    favourite: bool = False
    no_triggers: bool = False
    unused: bool = False  # by what `usage` counted last
    below: Path | None = None


class _Condition(NamedTuple):
    """A part of a WHERE clause."""

    text: str
    bound: tuple[object, ...] = ()


def search(
    index: Index, text: str, wanted: Filter | None = None, order: str = "", limit: int | None = None
) -> list[Installed]:
    """Files with every word, or its beginning, in name, title, trigger words, tags, base model or author.

    The most relevant first, unless an order is asked for; when no word begins so, those that contain the words anywhere.
    Without words: all that the filter leaves, by path.
    """
    conditions = list(_conditions(index, wanted)) if wanted else []
    chosen = ORDERS[order or "path"]
    if terms := text.split():
        # quoted, so that FTS5's own operators mean nothing
        match = " ".join('"' + term.replace('"', '""') + '"*' for term in terms)
        query = "SELECT rowid FROM word_index WHERE word_index MATCH ?"
        count = len(index.ask(f"{query} LIMIT ?", (match, RANKED + 1)))
        conditions.append(_Condition(f"file.id IN ({query})", (match,)) if count else _containing(terms))
        if 0 < count <= RANKED and not order:
            ranks = {row[0]: place for place, row in enumerate(index.ask(f"{query} ORDER BY rank", (match,)))}
            return _by_rank(index, conditions, ranks, limit)
    return _read(index, conditions, chosen, limit)


def _by_rank(
    index: Index, conditions: Sequence[_Condition], ranks: Mapping[object, int], limit: int | None
) -> list[Installed]:
    """The ids that pass in the order of their relevance, then as many files as are wanted."""
    clause, bound = _joined(conditions)
    ids = [row[0] for row in index.ask(f"{_IDS} {clause} ORDER BY file.path", bound)]  # bound
    best = sorted(ids, key=lambda number: ranks[number])[:limit]
    chosen = _any_of("file.id", best)
    found = {str(one.path): one for one in index.where(f"AND {chosen.text}", chosen.bound)}
    paths = {id: str(path) for id, path in index.ask(f"SELECT id, path FROM file WHERE {chosen.text}", chosen.bound)}  # noqa: S608
    return [found[paths[id]] for id in best if paths[id] in found]


_IDS = (
    "SELECT file.id FROM file JOIN fact ON fact.id = file.id JOIN own ON own.id = file.id "
    "JOIN word ON word.id = file.id LEFT JOIN origin ON origin.id = file.id WHERE NOT missing "
)


def _read(index: Index, conditions: Sequence[_Condition], order: str, limit: int | None) -> list[Installed]:
    clause, bound = _joined(conditions)
    most, bounded = ("", bound) if limit is None else (" LIMIT ?", (*bound, limit))
    return index.where(f"{clause} ORDER BY {order}{most}", bounded)


def _joined(conditions: Sequence[_Condition]) -> _Condition:
    text = "".join(f"AND {one.text} " for one in conditions)
    return _Condition(text, tuple(value for one in conditions for value in one.bound))


def _conditions(index: Index, wanted: Filter) -> Iterator[_Condition]:
    for name in ("architecture", "dialect"):
        if value := getattr(wanted, name):
            yield _Condition(f"file.id IN (SELECT id FROM fact WHERE {name} = ? COLLATE NOCASE)", (value,))  # noqa: S608  # two columns
    if wanted.parametrization:
        kinds = f"%\n{_literal(wanted.parametrization)}\n%"
        known = "SELECT id FROM fact WHERE char(10) || parametrizations || char(10) LIKE ? ESCAPE '!'"
        yield _Condition(f"file.id IN ({known})", (kinds,))
    if wanted.base:
        yield _one_of(index, f"SELECT DISTINCT {_BASE} FROM fact LEFT JOIN origin USING (id)", _BASE, wanted.base)  # noqa: S608
    if wanted.creator:
        yield _one_of(index, "SELECT DISTINCT creator FROM origin", "origin.creator", wanted.creator)
    if wanted.tag:
        tag = wanted.tag.casefold()
        rows = index.ask("SELECT id, tags FROM own WHERE tags <> ''")
        ids = [id for id, tags in rows if tag in {one.casefold() for one in str(tags).split("\n")}]
        yield _any_of("file.id", ids)
    yield from (_Condition(text) for said, text in _FLAGS.items() if getattr(wanted, said))
    if wanted.below:
        folder = os.path.realpath(wanted.below)
        yield _Condition("substr(file.path, 1, ?) = ?", (len(folder) + 1, folder + os.sep))


_FLAGS: Mapping[str, str] = {
    "favourite": "own.favourite",
    "unused": "file.id NOT IN (SELECT id FROM used)",
    "no_triggers": "own.trigger_words = '' AND fact.trigger_words = '' AND coalesce(origin.trigger_words, '') = ''",
}


def _one_of(index: Index, question: str, column: str, part: str) -> _Condition:
    """Values that contain a text, whatever its case: there are few different ones, and SQLite folds ASCII only."""
    values = [row[0] for row in index.ask(question) if part.casefold() in str(row[0] or "").casefold()]
    return _any_of(column, values)


def _any_of(column: str, values: Sequence[object]) -> _Condition:
    """As one JSON list: there may be more values than a statement has room for."""
    return _Condition(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(values),))  # noqa: S608  # ours


def _containing(terms: Sequence[str]) -> _Condition:
    texts = " || ' ' || ".join(f"word.{name}" for name in _TEXTS)
    clause = " AND ".join(f"{texts} LIKE ? ESCAPE '!'" for _ in terms)
    return _Condition(clause, tuple(f"%{_literal(term)}%" for term in terms))


def _literal(text: str) -> str:
    """The text for LIKE, in which nothing is a wildcard."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
