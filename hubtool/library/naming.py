"""What an installed file is called, and in which subfolder it lies."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.hubs.names import SAFETENSORS, numbered, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from hubtool.library.record import Facts, Origin

_MODEL_SUFFIX = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin)$", re.IGNORECASE)
_TOKEN = re.compile(r"\{(\w*)\}")


def chosen_name(wanted: str) -> str:
    """The file name for what the user typed behind `--name`.

    Raises:
        UsageProblem: it holds a folder, or nothing that can be a name.
    """
    if re.search(r"[/\\]", wanted):
        raise UsageProblem(
            f"A name holds no folder: {wanted}", hint="Use `--subdir` for a folder below the LoRA folder."
        )
    name = file_name(wanted)
    if name is None:
        raise UsageProblem(f"This cannot be the name of a file: {wanted!r}")
    return name


def file_name(raw: str) -> str | None:
    """A legal file name that prompts can spell, ending in .safetensors; None if nothing usable is left.

    >>> file_name("a=b/Style: ink?.SAFETENSORS"), file_name("v:12"), file_name("..")
    ('Style_ ink_.safetensors', 'v_12.safetensors', None)
    """
    stem = _MODEL_SUFFIX.sub("", _without_drive(raw.rstrip(". ")))
    # A1111 reads a name with a "=" as an argument
    return safe_name(stem.replace("=", "_") + SAFETENSORS) if safe_name(stem) else None


def candidates(name: str, origin: Origin | None, sha256: str) -> Iterator[str]:
    """The name, and what to use instead while it is taken by something else."""
    yield name
    if origin and origin.version_id:
        yield numbered(name, origin.version_id)
    yield from (numbered(name, sha256[:digits]) for digits in (8, 16, 64))


def folded(path: Path) -> str:
    """A file's name as the most forgiving file system compares it, without extension: two such files share sidecars."""
    return unicodedata.normalize("NFC", path.stem).casefold()


def subfolder(template: str, origin: Origin | None, facts: Facts) -> str:
    """The relative folder that a template asks for, each part made safe on its own.

    >>> from hubtool.library.record import Facts
    >>> subfolder("{architecture}/{base_model}", None, Facts(architecture="sdxl", base_model="a/../b"))
    'sdxl/a_.._b'

    Raises:
        UsageProblem: an unknown token, or a part that is no name.
    """
    values = _values(origin, facts)
    parts = [part for part in re.split(r"[/\\]", template) if part]
    return "/".join(_part(part, values) for part in parts)


def is_inside(text: str) -> bool:
    """Whether a relative path with forward slashes stays below the folder that it is for, on every system.

    >>> is_inside("styles/ink"), is_inside("../ink"), is_inside("C:/ink")
    (True, False, False)
    """
    path = PurePosixPath(text)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in text
        and ":" not in path.parts[0]
    )


def _part(part: str, values: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise UsageProblem(f"There is no token {match[0]}; there are {_listed(values)}.")
        return re.sub(r"[/\\]", "_", values[match[1]]).strip(" .") or "unknown"

    name = safe_name(_without_drive(_TOKEN.sub(value, part)))
    if name is None or name.startswith("."):
        raise UsageProblem(f"This cannot be the name of a folder: {part}")
    return name


def _without_drive(text: str) -> str:
    """A letter and a colon before a name are a part of it: nobody means a drive there."""
    return re.sub(r"(^|[/\\])([A-Za-z]):(?=.)", r"\1\2_", text)


def _values(origin: Origin | None, facts: Facts) -> dict[str, str]:
    model = origin.snapshot.get("model") if origin else None
    details = model if isinstance(model, dict) else {}
    tags = details.get("tags")
    return {
        "architecture": facts.architecture or "",
        "base_model": (origin.base_model if origin else "") or facts.base_model,
        "creator": origin.creator if origin else "",
        "first_tag": str(tags[0]) if isinstance(tags, list) and tags else "",
        "hub": origin.hub if origin else "",
        "model": origin.model_name if origin else facts.title,
        "model_id": origin.model_id if origin else "",
        "type": str(details.get("type") or "") or next(iter(facts.parametrizations), ""),
        "version": origin.version_name if origin else "",
        "version_id": origin.version_id if origin else "",
    }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
