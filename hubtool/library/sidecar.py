"""Sidecars: small files beside a LoRA that tell a UI about it.

Programs share these files and people edit them, so we only ever fill what is missing or empty: a value that is there
stays, keys that we do not know stay, and a file that we cannot read is left alone.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem, UsageProblem
from hubtool.formats.atomic import write_text
from hubtool.library import sidecars
from hubtool.library.record import Origin, Own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


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
    own: Callable[[Table], Own] | None = None  # what the user said in such a file
    origin: Callable[[Table], Origin | None] | None = None  # what a hub said in such a file

    def path(self, model: Path) -> Path:
        """Where the sidecar of this model lies."""
        return model.with_name(model.stem + self.suffix)


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
    `identity` is another describes what had this name before, and is replaced.

    Raises:
        StorageProblem: the file cannot be written.
    """
    existing = read_table(path)
    if existing is None and path.is_symlink() and not path.exists():
        raise StorageProblem(path, "is a link that leads nowhere")
    if existing is None and path.exists():
        return False
    outdated = existing is not None and identity and existing.get(identity) not in {None, fields.get(identity)}
    merged = merge({} if outdated or existing is None else existing, fields)
    merged |= {key: fields[key] for key in placed if key in fields}
    if merged != existing:
        write_text(path, _json(merged), force=True)
    return True


def _json(table: Table) -> str:
    """As A1111 writes it; escaped where it holds half a character, which UTF-8 cannot."""
    text = json.dumps(table, ensure_ascii=False, indent=4)
    whole = text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
    return text if whole else json.dumps(table, indent=4)


def merge(existing: Mapping[str, object], fields: Mapping[str, object]) -> Table:
    """`existing` with its missing and empty values filled from `fields`; order kept, new keys at the end.

    >>> merge({"notes": "mine", "preferred weight": 0, "x": 1}, {"notes": "theirs", "preferred weight": 0.8})
    {'notes': 'mine', 'preferred weight': 0.8, 'x': 1}
    """
    merged = dict(existing)
    for key, value in fields.items():
        if key not in merged or (_is_empty(merged[key]) and not _is_empty(value)):
            merged[key] = value
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


def _word(text: str) -> str:
    while (start := text.find("<")) >= 0 and (stop := text.find(">", start)) >= 0:
        text = f"{text[:start]} {text[stop + 1 :]}"
    return " ".join(text.split()).strip(" ,")
