"""`loras.lock`: the facts that make a set of LoRAs the same everywhere: ids, sizes, hashes. Written by us alone.

No entry without a SHA-256, no absolute path, no token, no signed address: the file may be published. Since others write into it,
too, nothing is done with a lock that has a path which leads out of the LoRA folder or cannot be everywhere, or one path twice.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import tomli
import tomlkit

from hubtool.errors import LockProblem, StorageProblem
from hubtool.formats.atomic import write_text
from hubtool.hubs.names import is_legal
from hubtool.library.companions import MODELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NAME = "loras.lock"
VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OTHER_PATH = "Remove the entry from the lock; another name or subdir in loras.toml gives it another path."


@dataclass(frozen=True, slots=True)
class Locked:
    """One file, as it was when it was locked."""

    name: str
    wish: str  # the manifest's SPEC and choices, to see whether the lock is up to date
    path: str  # below the LoRA folder, with forward slashes
    sha256: str  # of the file as it lies there
    size_bytes: int
    spec: str = ""  # exactly this version of this hub; empty: known by its hash alone
    hub: str = ""
    file_id: str = ""
    url: str = ""  # the page, for people
    converted: str = ""  # dialect; sha256 is that of the result then
    source_sha256: str = ""  # of the file before its conversion
    architecture: str = ""
    base_model: str = ""
    model: str = ""
    creator: str = ""
    license: str = ""  # what the creator allows, when it was locked


def read_lock(path: Path) -> dict[str, Locked]:
    """The locked files by name; empty if there is no lock.

    Raises:
        LockProblem: it is not ours, is of a newer version, or an entry has no hash or a path that no lock may have.
        StorageProblem: it cannot be read.
    """
    try:
        table = tomli.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise LockProblem(path, f"{path} is nested too deeply.") from error
    except ValueError as error:  # TOML's, UTF-8's, or a number of thousands of digits
        raise LockProblem(path, f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error
    if table.get("version") != VERSION:
        raise LockProblem(path, f"{path} has version {table.get('version')}; this hubtool knows version {VERSION}.")
    rows = table.get("lora", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LockProblem(path, f"{path} is not as `hubtool lock` writes it.")
    locked = [_locked(path, row) for row in rows]
    refuse_faulty(path, locked)
    return {one.name: one for one in locked}


def write_lock(path: Path, locked: Sequence[Locked]) -> None:
    """Write the lock, by name, so that two people's locks differ only where they differ.

    Raises:
        LockProblem: two of them have one name or path, or one that no lock may have. StorageProblem: it cannot be written.
    """
    refuse_faulty(path, locked)
    document = tomlkit.document()
    document.add(tomlkit.comment("Written by `hubtool lock`; `hubtool sync` makes it so. Change loras.toml instead."))
    document["version"] = VERSION
    rows = tomlkit.aot()
    for one in sorted(locked, key=lambda one: one.name):
        row = tomlkit.table()
        row.update({key: value for key, value in asdict(one).items() if value != ""})
        rows.append(row)
    document["lora"] = rows
    write_text(path, tomlkit.dumps(document), force=True)


def refuse_faulty(path: Path, locked: Sequence[Locked]) -> None:
    """Raise if these cannot be the entries of a lock, which `path` names.

    Raises:
        LockProblem: two of them have one name or path, or one has a path that no lock may have.
    """
    names, places = set[str](), dict[str, str]()
    for one in locked:
        if fault := fault_of(one.path):
            message = f"{one.name} in {path} has a path that {fault}: {one.path}"
            raise LockProblem(path, message, hint=_OTHER_PATH)
        if one.name in names:
            raise LockProblem(path, f"{path} has two entries called {one.name}.", hint="Remove one of them.")
        place = folded_path(one.path)
        if place in places:
            message = f"{places[place]} and {one.name} in {path} have one path: {one.path}"
            raise LockProblem(path, message, hint=_OTHER_PATH)
        names.add(one.name)
        places[place] = one.name


def fault_of(place: str) -> str:
    """What is wrong with a path below the LoRA folder, to be said behind it; empty if it is good on every system.

    >>> fault_of("styles/ink.safetensors"), fault_of("../ink.safetensors"), fault_of(".git/hooks/ink.safetensors")
    ('', 'leads out of the LoRA folder', 'is hidden')
    """
    path = PurePosixPath(place)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        return "leads out of the LoRA folder"
    if any(part.startswith(".") for part in path.parts):
        return "is hidden"
    if not all(map(is_legal, path.parts)):
        return "can be no path on other systems"
    return "" if path.suffix.lower() in MODELS else "is not the path of a model file"


def folded_path(place: str) -> str:
    """A path as the most forgiving file system compares it.

    >>> folded_path("Styles//Ink.safetensors")
    'styles/ink.safetensors'
    """
    return unicodedata.normalize("NFC", PurePosixPath(place).as_posix()).casefold()


def _locked(path: Path, row: Mapping[str, object]) -> Locked:
    types = {field.name: int if field.name == "size_bytes" else str for field in fields(Locked)}
    known = {key: value for key, value in row.items() if isinstance(value, types.get(key, ()))}
    name = str(row.get("name", "?"))
    if not _SHA256.fullmatch(str(known.get("sha256", ""))):
        raise LockProblem(path, f"{name} in {path} has no SHA-256.", hint="Remove the entry and run `hubtool lock`.")
    if not {"name", "wish", "path", "size_bytes"} <= known.keys():
        raise LockProblem(path, f"{name} in {path} is incomplete.", hint="Remove the entry and run `hubtool lock`.")
    return Locked(**known)  # type: ignore[arg-type]  # types were checked above
