"""ComfyUI's `extra_model_paths.yaml`: further folders by type of model, in sections of any name.

A section may have a `base_path` (`~` and `$VARS` allowed, relative to the file), and one path a line for each type; those of a
section with `is_default` come before ComfyUI's own. Source: ComfyUI utils/extra_config.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.formats.atomic import write_text
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "extra_model_paths.yaml"
SECTION = "hubtool"
MAX_BYTES = 1 << 18  # PyYAML needs about 10 s for 1 MB; real files have 2 kB


@dataclass(frozen=True, slots=True)
class Ranked:
    """The folders of one type."""

    first: tuple[Path, ...]  # of sections with `is_default`
    then: tuple[Path, ...]


def folders_by_rank(path: Path, kind: str) -> Ranked:
    """The folders that a file adds for a type of model (`loras`, `checkpoints` …), in its order; none if there is no file.

    Raises:
        LibraryProblem: it is not valid YAML. StorageProblem: it cannot be read.
    """
    first: list[Path] = []
    then: list[Path] = []
    for section in read_yaml(path).values():
        if isinstance(section, dict):
            found = list(_folders(section, kind, path.parent))
            if section.get("is_default") is True:
                first = [*reversed(found), *first]  # each is put before everything else, as ComfyUI does
            else:
                then += found
    return Ranked(tuple(first), tuple(then))


def lora_folders(path: Path) -> list[Path]:
    """The LoRA folders that a file adds.

    Raises:
        LibraryProblem: it is not valid YAML. StorageProblem: it cannot be read.
    """
    ranked = folders_by_rank(path, "loras")
    return [*ranked.first, *ranked.then]


def _folders(section: Mapping[str, object], kind: str, beside: Path) -> Iterator[Path]:
    said, lines = section.get("base_path"), section.get(kind)
    if not isinstance(lines, str):
        return
    base = from_home(os.path.expandvars(said)) if isinstance(said, str) else Path()
    yield from (beside / base / line for line in lines.split("\n") if line)


def add_lora_folder(path: Path, folder: Path) -> bool:
    """Write one more folder into our section; the rest of the file is not touched. Whether anything changed.

    Raises:
        LibraryProblem: the file is not valid YAML, or our section cannot be changed. StorageProblem: the disk refuses.
    """
    changed = with_lora_folder(path, folder)
    if changed is not None:
        write_text(path, changed, force=True)
    return changed is not None


def with_lora_folder(path: Path, folder: Path) -> str | None:
    """The text of the file with one more folder in our section, line ends and all else as they are; None if it has it.

    Raises:
        LibraryProblem: the file is not valid YAML, or our section cannot be changed. StorageProblem: it cannot be read.
    """
    if folder.resolve() in {known.resolve() for known in lora_folders(path)}:
        return None
    text, table = _text(path), dict(read_yaml(path))
    section = table.get(SECTION) or {}
    said = section.get("loras") if isinstance(section, dict) else None
    lines = [line.strip() for line in said.splitlines() if line.strip()] if isinstance(said, str) else []
    changed = _with_section(text, [*lines, str(folder)])
    loras = "".join(f"{line}\n" for line in [*lines, str(folder)])
    expected = table | {SECTION: {**section, "loras": loras}} if isinstance(section, dict) else {}
    if _parsed(path, changed) != expected:
        raise LibraryProblem(
            str(path), f"The section {SECTION} of {path} cannot be changed.", hint="Change it by hand."
        )
    return changed


def _with_section(text: str, lines: Sequence[str]) -> str:
    """The text whose section of ours has these lines as its `loras`."""
    end = "\r\n" if "\r\n" in text else "\n"
    header = re.search(rf"^\ufeff?{SECTION}:[ \t]*(#.*)?\r?$\n?", text, re.MULTILINE)
    indent = "    "
    if header and (first := re.match(r"(?:[ \t]*(?:#.*)?\r?\n)*( +)\S", text[header.end() :])):
        indent = first[1]
    entry = f"{indent}loras: |{end}" + "".join(f"{indent}    {line}{end}" for line in lines)
    if header is None:
        gap = "" if not text.strip("\ufeff\r\n") else end if text.endswith("\n") else 2 * end
        return f"{text}{gap}{SECTION}:{end}{entry}"
    before, after = text[: header.end()], text[header.end() :]
    body = re.match(r"(?:[ \t]+.*\n?|\r?\n)*", after)
    stop = body.end() if body else 0
    old = rf"^{indent}loras:.*\n?(?:(?:[ \t]*\r?\n)*{indent}[ \t]+\S.*\n?)*"
    changed, count = re.subn(old, lambda _: entry, after[:stop], flags=re.MULTILINE)
    return before + (changed if count else entry + after[:stop]) + after[stop:]


def read_yaml(path: Path) -> Mapping[str, object]:
    """The mapping in a YAML file; empty if there is no file, or something else in it.

    Raises:
        LibraryProblem: it is not valid YAML. StorageProblem: it cannot be read.
    """
    return _parsed(path, _text(path))


def _parsed(path: Path, text: str) -> Mapping[str, object]:
    import yaml  # noqa: PLC0415  # 20 ms that most commands do without

    try:
        table = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise LibraryProblem(str(path), f"{path}{line} is not valid YAML.", hint="Correct it by hand.") from error
    return table if isinstance(table, dict) else {}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StorageProblem(path, f"is larger than {MAX_BYTES >> 10} KiB: no settings")
        return path.read_bytes().decode("utf-8")  # line ends as they are; YAML passes over a mark at the start
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StorageProblem(path, getattr(error, "strerror", None) or "cannot be read") from error
