"""`loras.toml`: which LoRAs a project wants, as people write it. Comments and order stay when we change a line.

```toml
[loras]
pixel-meadow = "1001"                                   # any SPEC
"ink wash" = { spec = "v:2002", weight = 0.8, convert = "kohya", subdir = "styles" }

[sets]
portrait = ["pixel-meadow:0.8", "ink wash"]
```
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import tomlkit
from tomlkit.exceptions import TOMLKitError

from hubtool.errors import LibraryProblem, NotWanted, StorageProblem, UsageProblem
from hubtool.formats.atomic import write_text
from hubtool.library.naming import is_inside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NAME = "loras.toml"
_KEYS = frozenset({"spec", "file", "weight", "convert", "subdir"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """One LoRA of the manifest."""

    name: str  # what it is called in prompts and on disk
    spec: str
    file: str = ""  # id or name of a version's file, instead of the primary one
    weight: float | None = None
    convert: str = ""  # dialect
    subdir: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `loras.toml` says."""

    wanted: Mapping[str, Wanted]
    sets: Mapping[str, tuple[tuple[str, float | None], ...]]  # name and strength


def read_manifest(path: Path) -> Manifest:
    """The manifest at a path; an empty one if there is no file.

    Raises:
        UsageProblem: it is not valid, or names in sets that it does not have. StorageProblem: it cannot be read.
    """
    table = _document(path).unwrap()
    loras, sets = table.get("loras", {}), table.get("sets", {})
    if not isinstance(loras, dict) or not isinstance(sets, dict):
        raise UsageProblem(f"[loras] and [sets] of {path} must be tables.")
    wanted = {str(name): _wanted(path, str(name), value) for name, value in loras.items()}
    return Manifest(wanted, {str(name): _set(path, str(name), value, wanted) for name, value in sets.items()})


def add_wanted(path: Path, entries: Iterable[Wanted]) -> None:
    """Write entries into the manifest, which is made if need be; all of them or none.

    Raises:
        LibraryProblem: a name stands for another SPEC there. UsageProblem, StorageProblem: as for `read_manifest`.
    """
    entries = list(entries)
    refuse_other(path, *entries)
    document = _document(path)
    if "loras" not in document:
        document["loras"] = tomlkit.table()
    for entry in entries:
        fields = {
            key: value for key in ("spec", "file", "weight", "convert", "subdir") if (value := getattr(entry, key))
        }
        line = tomlkit.inline_table()
        line.update(fields)
        document["loras"][entry.name] = entry.spec if len(fields) == 1 else line
    write_text(path, tomlkit.dumps(document), force=True)


def refuse_other(path: Path, *entries: Wanted) -> None:
    """Raise if the manifest has the name of one of the entries for something else.

    Raises:
        LibraryProblem: it has. UsageProblem, StorageProblem: as for `read_manifest`.
    """
    wanted = read_manifest(path).wanted
    for entry in entries:
        before = wanted.get(entry.name)
        if before and before.spec != entry.spec:
            message = f"{path.name} has {entry.name} for {before.spec} already."
            hint = "Give another name with `--name`, or remove the old one first."
            raise LibraryProblem(entry.name, message, hint=hint)


def remove_wanted(path: Path, name: str) -> None:
    """Take one entry out of the manifest, and out of its sets.

    Raises:
        NotWanted: it is not there. UsageProblem, StorageProblem: as for `read_manifest`.
    """
    refuse_unwanted(path, read_manifest(path), name)
    document = _document(path)
    document["loras"].remove(name)
    sets = document.get("sets", {})
    for key, members in sets.items():
        kept = [member for member in members if _member(str(member))[0] != name]
        if len(kept) != len(members):
            sets[key] = kept
    write_text(path, tomlkit.dumps(document), force=True)


def refuse_unwanted(path: Path, found: Manifest, name: str) -> None:
    """Raise if the manifest at a path does not have a name.

    Raises:
        NotWanted: it does not.
    """
    if name not in found.wanted:
        raise NotWanted(name, path.name, get_close_matches(name, found.wanted))


def _document(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return tomlkit.document()
    except RecursionError as error:
        raise UsageProblem(f"{path} is nested too deeply.") from error
    except (TOMLKitError, ValueError) as error:  # ValueError: not UTF-8, or a number of thousands of digits
        raise UsageProblem(f"{path} is not valid TOML: {error}", hint="Correct the line.") from error
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error


def _wanted(path: Path, name: str, value: object) -> Wanted:
    fields = {"spec": value} if isinstance(value, (str, int)) else value
    if not isinstance(fields, dict) or "spec" not in fields:
        raise UsageProblem(f"{name} in {path} needs a SPEC.", hint=f'Write {name} = "SPEC".')
    unknown = sorted(set(fields) - _KEYS)
    if unknown:
        raise UsageProblem(f"{name} in {path} has no key {unknown[0]}; there are {', '.join(sorted(_KEYS))}.")
    weight = fields.get("weight")
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight)
    ):
        raise UsageProblem(f"The weight of {name} in {path} is no number: {weight}")
    texts = {key: str(fields.get(key, "")) for key in ("spec", "file", "convert", "subdir")}
    if texts["subdir"] and not is_inside(texts["subdir"]):
        raise UsageProblem(f"The subdir of {name} in {path} leads out of the LoRA folder: {texts['subdir']}")
    return Wanted(name, weight=None if weight is None else float(weight), **texts)


def _set(path: Path, name: str, value: object, wanted: Mapping[str, Wanted]) -> tuple[tuple[str, float | None], ...]:
    if not isinstance(value, list):
        raise UsageProblem(f"The set {name} in {path} must be a list.", hint=f'Write {name} = ["NAME:0.8", "OTHER"].')
    members = tuple(_member(str(entry)) for entry in value)
    for member, _ in members:
        if member not in wanted:
            raise UsageProblem(f"The set {name} in {path} names {member}, which [loras] does not have.")
    return members


def _member(text: str) -> tuple[str, float | None]:
    name, colon, number = text.rpartition(":")
    try:
        return (name, float(number)) if colon else (text, None)
    except ValueError:
        return text, None
