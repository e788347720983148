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
    """A question for ids."""

    ids: str
    bound: tuple[object, ...] = ()


def search(
    index: Index, text: str, wanted: Filter | None = None, order: str = "", limit: int | None = None
) -> list[Installed]:
    """Files with every word, or its beginning, in name, title, trigger words, tags, base model or author.

    The most relevant first, unless an order is asked for; when no word begins so, those that contain the words anywhere.
    Without words: all that the filter leaves, by path.
    """
    conditions = list(_conditions(index, wanted)) if wanted else []
    ranks: Mapping[object, int] = {}
    if terms := text.split():
        # quoted, so that FTS5's own operators mean nothing
        match = " ".join('"' + term.replace('"', '""') + '"*' for term in terms)
        query = "SELECT rowid FROM word_index WHERE word_index MATCH ?"
        count = len(index.ask(f"{query} LIMIT ?", (match, RANKED + 1)))
        conditions.append(_Condition(query, (match,)) if count else _containing(terms))
        if 0 < count <= RANKED and not order:
            ranks = {row[0]: place for place, row in enumerate(index.ask(f"{query} ORDER BY rank", (match,)))}
    ids = _ids(index, conditions, ORDERS[order or "path"], None if ranks else limit)
    best = sorted(ids, key=lambda number: ranks[number])[:limit] if ranks else ids
    return index.in_order(best)


def _ids(index: Index, conditions: Sequence[_Condition], order: str, limit: int | None) -> list[object]:
    """The ids that every condition leaves, from the narrow table alone where that is enough."""
    own = "JOIN own USING (id) " if "rating" in order else ""
    clause = "".join(f"AND file.id IN ({one.ids}) " for one in conditions)
    bound = [value for one in conditions for value in one.bound]
    statement = f"SELECT file.id FROM file {own}WHERE NOT missing {clause}ORDER BY {order} LIMIT ?"  # noqa: S608  # ours
    return [row[0] for row in index.ask(statement, (*bound, -1 if limit is None else limit))]


def _conditions(index: Index, wanted: Filter) -> Iterator[_Condition]:
    for name in ("architecture", "dialect"):
        if value := getattr(wanted, name):
            yield _Condition(f"SELECT id FROM fact WHERE {name} = ? COLLATE NOCASE", (value,))  # noqa: S608  # two columns
    if wanted.parametrization:
        kinds = f"%\n{_literal(wanted.parametrization)}\n%"
        yield _Condition(
            "SELECT id FROM fact WHERE char(10) || parametrizations || char(10) LIKE ? ESCAPE '!'", (kinds,)
        )
    if wanted.base:
        yield _one_of(index, _BASES, wanted.base)
    if wanted.creator:
        yield _one_of(index, "SELECT id, creator AS value FROM origin", wanted.creator)
    if wanted.tag:
        tag = wanted.tag.casefold()
        rows = index.ask("SELECT id, tags FROM own WHERE tags <> ''")
        yield _listed([id for id, tags in rows if tag in {one.casefold() for one in str(tags).split("\n")}])
    yield from (_Condition(ids) for said, ids in _FLAGS.items() if getattr(wanted, said))
    if wanted.below:
        folder = os.path.realpath(wanted.below)
        yield _Condition("SELECT id FROM file WHERE substr(path, 1, ?) = ?", (len(folder) + 1, folder + os.sep))


_BASES = (
    "SELECT fact.id, coalesce(nullif(origin.base_model, ''), fact.base_model) AS value "
    "FROM fact LEFT JOIN origin USING (id)"
)
_FLAGS: Mapping[str, str] = {
    "favourite": "SELECT id FROM own WHERE favourite",
    "unused": "SELECT id FROM file EXCEPT SELECT id FROM used",
    "no_triggers": "SELECT fact.id FROM fact JOIN own USING (id) LEFT JOIN origin USING (id) WHERE own.trigger_words = '' "
    "AND fact.trigger_words = '' AND coalesce(origin.trigger_words, '') = ''",
}


def _one_of(index: Index, values: str, part: str) -> _Condition:
    """Whose value contains a text, whatever its case: there are few different ones, and SQLite folds ASCII only."""
    different = index.ask(f"SELECT DISTINCT value FROM ({values})")  # noqa: S608  # ours
    chosen = [value for (value,) in different if part.casefold() in str(value or "").casefold()]
    among = f"SELECT id FROM ({values}) WHERE value IN (SELECT value FROM json_each(?))"  # noqa: S608  # ours
    return _Condition(among, (json.dumps(chosen),)) if chosen else _listed([])


def _listed(ids: Sequence[object]) -> _Condition:
    return _Condition("SELECT value FROM json_each(?)", (json.dumps(ids),))


def _containing(terms: Sequence[str]) -> _Condition:
    texts = " || ' ' || ".join(_TEXTS)
    clause = " AND ".join(f"{texts} LIKE ? ESCAPE '!'" for _ in terms)
    return _Condition(f"SELECT id FROM word WHERE {clause}", tuple(f"%{_literal(term)}%" for term in terms))  # noqa: S608


def _literal(text: str) -> str:
    """The text for LIKE, in which nothing is a wildcard."""
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
