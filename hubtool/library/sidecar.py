"""Sidecars: small files beside a LoRA that tell a UI about it.

Programs share these files and people edit them, so we only ever fill what is missing or empty: a value that is there
stays, keys that we do not know stay, and a file that we cannot read is left alone.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import pkgutil
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem, UsageProblem
from hubtool.formats.atomic import write_text
from hubtool.library import history, sidecars
from hubtool.library.record import Origin, Own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


_TAG = re.compile(r"<[^>]*>")
_TOO_STRONG = 1e6
MAX_BYTES = 16 << 20  # the largest real ones, with hundreds of images listed, stay below 1 MiB
Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that a sidecar may want to say about an adapter."""

    architecture: str | None = None
    trigger_words: tuple[str, ...] = ()
    description: str = ""  # plain text
    origin: Origin | None = None
    own: Own = field(default_factory=Own)
    model: Path | None = None  # where it lies
    picture: Path | None = None  # its preview
    untagged: tuple[str, ...] = ()  # tags that the user takes back now
    sha256: str = ""  # lower case
    size_bytes: int = 0

    @property
    def tags(self) -> tuple[str, ...]:
        """The hub's tags."""
        model = self.origin.snapshot.get("model") if self.origin else None
        return words(model.get("tags")) if isinstance(model, dict) else ()


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A JSON object beside the model; one file of `hubtool.library.sidecars` each, with its `SIDECAR`."""

    id: str
    source: str  # where the facts were read
    suffix: str  # replaces the model's extension
    fields: Callable[[Card], Table]  # what we would write; empty: nothing to say
    placed: tuple[str, ...] = ()  # keys that say where the model lies, and follow it
    identity: str = ""  # the key that says what the file is about
    marker: str = ""  # a key that only this format has, where several share a file
    own: Callable[[Table], Own] | None = None  # what the user said in such a file
    origin: Callable[[Table], Origin | None] | None = None  # what a hub said in such a file
    # what there is, and what the user says now → keys that hold more than one thing, with all the others kept
    changed: Callable[[Table, Card], Table] | None = None

    def path(self, model: Path) -> Path:
        """Where the sidecar of this model lies."""
        return model.with_name(model.stem + self.suffix)

    def is_beside(self, model: Path) -> bool:
        """Whether the model has such a sidecar."""
        table = read_table(self.path(model))
        return table is not None and (not self.marker or self.marker in table)


@dataclass(frozen=True, slots=True)
class Filling:
    """What is to be said in one sidecar; see `fill`."""

    path: Path
    fields: Mapping[str, object]
    identity: str = ""
    placed: tuple[str, ...] = ()

    def write(self) -> bool:
        """Say it; whether the sidecar now is there.

        Raises:
            StorageProblem: it cannot be written.
        """
        return fill(self.path, self.fields, self.identity, self.placed)


@functools.cache
def all_sidecars() -> Mapping[str, Sidecar]:
    """Every format, by id."""
    modules = [
        importlib.import_module(f"{sidecars.__name__}.{module.name}")
        for module in pkgutil.iter_modules(sidecars.__path__)
    ]
    found = [module.SIDECAR for module in modules if hasattr(module, "SIDECAR")]
    return {sidecar.id: sidecar for sidecar in sorted(found, key=lambda sidecar: sidecar.id)}


def read_sidecars(model: Path) -> tuple[Own, Origin | None]:
    """What the sidecars beside a model say: the user's words and the hub's; the first that says a thing is believed."""
    own, origin = Own(), None
    for sidecar in all_sidecars().values():
        if not (sidecar.own or sidecar.origin) or (table := read_table(sidecar.path(model))) is None:
            continue
        own = own.completed(sidecar.own(table)) if sidecar.own else own
        found = sidecar.origin(table) if sidecar.origin else None
        origin = origin.completed(found) if origin and found else origin or found
    return own, origin


def choose_sidecars(words: str | None, default: Sequence[str]) -> tuple[Sidecar, ...]:
    """The formats of a comma-separated list; None: the default, `none`: none.

    Raises:
        UsageProblem: a word that names no format.
    """
    known = all_sidecars()
    if words is None:
        return tuple(known[word] for word in default)
    wanted = [word.strip().lower().replace("-", "_").replace(".", "_") for word in words.split(",") if word.strip()]
    if wanted == ["none"]:
        return ()
    for word in wanted:
        if word not in known:
            raise UsageProblem(f"There is no sidecar format {word}; there are {', '.join(known)} and none.")
    return tuple(known[word] for word in wanted)


def read_table(path: Path) -> Table | None:
    """The JSON object in a sidecar; None if there is no file, or one that holds something else."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        table = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # a sidecar is a courtesy: an unreadable one is as good as none
        return None
    return table if isinstance(table, dict) else None


def fill(path: Path, fields: Mapping[str, object], identity: str = "", placed: Sequence[str] = ()) -> bool:
    """Add what is missing to a sidecar; whether it now is there. Keys in `placed` are always ours.

    A file that is no JSON object belongs to somebody else and is left alone; the answer is False then. One whose
    `identity` is another describes what had this name before, and is replaced. What gets lost is kept in the model's history.

    Raises:
        StorageProblem: the file cannot be written.
    """
    existing = read_table(path)
    if existing is None and path.is_symlink() and not path.exists():
        raise StorageProblem(path, "is a link that leads nowhere")
    if existing is None and path.exists():
        return False
    is_another = existing is not None and _is_another(existing.get(identity), fields.get(identity))
    merged = merge({} if is_another or existing is None else existing, fields)
    merged |= {key: fields[key] for key in placed if key in fields}
    if merged == existing:
        return True
    try:
        text = _json(merged)
    except RecursionError:  # as deep as can just be read
        return False
    _keep_history(path, existing or {}, merged)
    write_text(path, text, force=True)
    return True


def can_fill(path: Path) -> bool:
    """Whether `fill` would add to this sidecar, or write it: there is none yet, or one that holds a JSON object."""
    return not os.path.lexists(path) or read_table(path) is not None


def _is_another(there: object, ours: object) -> bool:
    """Whether two identities differ: hashes in any case, ids as numbers or text; one that is not known is no other."""
    first, second = number_or_text(there).casefold(), number_or_text(ours).casefold()
    return bool(first and second) and first != second


def _keep_history(path: Path, before: Mapping[str, object], after: Mapping[str, object]) -> None:
    known = all_sidecars().values()
    places = {key for sidecar in known for key in sidecar.placed}
    lost = {
        key: value
        for key, value in before.items()
        if not _is_empty(value) and key not in places and not _is_more(after.get(key), value)
    }
    suffix = max((one.suffix for one in known if path.name.endswith(one.suffix)), key=len, default=path.suffix)
    if lost:
        history.keep(path, path.name.removesuffix(suffix), lost)


def _is_more(new: object, old: object) -> bool:
    """Whether nothing of the old value is missing in the new one."""
    if new is old:
        return True
    if isinstance(old, dict) and isinstance(new, dict):
        return all(_is_more(new.get(key), value) for key, value in old.items() if not _is_empty(value))
    return type(new) is type(old) and new == old


def _json(table: Table) -> str:
    """As A1111 writes it; escaped where it holds half a character, which UTF-8 cannot."""
    text = json.dumps(table, ensure_ascii=False, indent=4)
    whole = text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
    return text if whole else json.dumps(table, indent=4)


def merge(existing: Mapping[str, object], fields: Mapping[str, object]) -> Table:
    """`existing` with its missing and empty values filled from `fields`; order kept, new keys at the end.

    >>> merge({"notes": "mine", "preferred weight": 0, "x": 1}, {"notes": "theirs", "preferred weight": 0.8})
    {'notes': 'mine', 'preferred weight': 0.8, 'x': 1}

    An object within is completed in the same way, unless it has an `id` and is about something else.
    """
    merged = dict(existing)
    for key, value in fields.items():
        here = merged.get(key)
        if key not in merged or (_is_empty(here) and not _is_empty(value)):
            merged[key] = value
        elif isinstance(here, dict) and isinstance(value, dict) and here.get("id", value.get("id")) == value.get("id"):
            merged[key] = merge(here, value)
    return merged


def _is_empty(value: object) -> bool:
    """Never a boolean: `False` is an answer."""
    return value is None or value in ("", [], {}) or (value == 0 and not isinstance(value, bool))


def words(value: object) -> tuple[str, ...]:
    """The clean texts of a JSON list: trimmed, no tags of prompts, nothing twice.

    >>> words([" pixel ", "<lora:x:1> art,", "", 3, "pixel"])
    ('pixel', 'art')
    """
    if not isinstance(value, (list, tuple)):
        return ()
    found = (_word(entry) for entry in value if isinstance(entry, str))
    return tuple(dict.fromkeys(word for word in found if word))


def number_or_text(value: object) -> str:
    """A JSON value that hubs write as number or text; empty for anything else."""
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def strength(value: object) -> float | None:
    """A JSON number or text as a strength; None for anything else, and for what no UI could mean.

    >>> strength(0.8), strength("0.8"), strength(True), strength(10**400), strength("nan")
    (0.8, 0.8, None, None, None)
    """
    try:
        number = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < _TOO_STRONG else None


def _word(text: str) -> str:
    stop = text.rfind(">") + 1  # a thousand brackets that do not close would each be looked for to the end
    return " ".join((_TAG.sub(" ", text[:stop]) + text[stop:]).split()).strip(" ,")
