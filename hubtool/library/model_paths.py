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
    from collections.abc import Iterator, Mapping

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
    """Write our section, with one more folder; the rest of the file is not touched. Whether anything changed.

    Raises:
        LibraryProblem: the file is not valid YAML, or our section is not as we write it. StorageProblem: the disk refuses.
    """
    if folder.resolve() in {known.resolve() for known in lora_folders(path)}:
        return False
    text = _text(path)
    mine = read_yaml(path).get(SECTION)
    said = mine.get("loras") if isinstance(mine, dict) else None
    known = said.splitlines() if isinstance(said, str) else []
    lines = "".join(f"        {line.strip()}\n" for line in [*known, str(folder)] if line.strip())
    section = f"{SECTION}:\n    loras: |\n{lines}"
    if mine is None:
        changed = f"{text.rstrip()}\n\n{section}" if text.strip() else section
    else:
        changed, count = re.subn(
            rf"^{SECTION}:[ \t]*\n(?:[ \t]+.*\n?|\n)*", lambda _: section, text, flags=re.MULTILINE
        )
        if count != 1:
            raise LibraryProblem(
                str(path), f"The section {SECTION} of {path} is not as hubtool writes it.", hint="Change it by hand."
            )
    write_text(path, changed, force=True)
    return True


def read_yaml(path: Path) -> Mapping[str, object]:
    """The mapping in a YAML file; empty if there is no file, or something else in it.

    Raises:
        LibraryProblem: it is not valid YAML. StorageProblem: it cannot be read.
    """
    import yaml  # noqa: PLC0415  # 20 ms that most commands do without

    try:
        table = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise LibraryProblem(str(path), f"{path}{line} is not valid YAML.", hint="Correct it by hand.") from error
    return table if isinstance(table, dict) else {}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StorageProblem(path, f"is larger than {MAX_BYTES >> 10} KiB: no settings")
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StorageProblem(path, getattr(error, "strerror", None) or "cannot be read") from error
