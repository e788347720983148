"""ComfyUI's `extra_model_paths.yaml`: further folders by type of model, in sections of any name.

A section may have a `base_path` (`~` and `$VARS` allowed, relative to the file), and one path a line for each type. Source:
ComfyUI utils/extra_config.py.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.formats.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "extra_model_paths.yaml"
SECTION = "hubtool"


def lora_folders(path: Path) -> list[Path]:
    """The LoRA folders that a file adds, in its order; none if there is no file.

    Raises:
        LibraryProblem: it is not valid YAML. StorageProblem: it cannot be read.
    """
    found = []
    for section in _read(path).values():
        if not isinstance(section, dict) or not isinstance(section.get("loras"), str):
            continue
        base = _expanded(str(section.get("base_path") or ""), path.parent)
        lines = (line.strip() for line in str(section["loras"]).splitlines())
        found += [_expanded(line, base) for line in lines if line]
    return found


def add_lora_folder(path: Path, folder: Path) -> bool:
    """Write our section, with one more folder; the rest of the file is not touched. Whether anything changed.

    Raises:
        LibraryProblem: the file is not valid YAML, or our section is not as we write it. StorageProblem: the disk refuses.
    """
    if folder.resolve() in {known.resolve() for known in lora_folders(path)}:
        return False
    text = _text(path)
    mine = _read(path).get(SECTION)
    known = str(mine.get("loras", "")).splitlines() if isinstance(mine, dict) else []
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


def _expanded(text: str, base: Path) -> Path:
    return base / Path(os.path.expandvars(text)).expanduser()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StorageProblem(path, getattr(error, "strerror", None) or "cannot be read") from error


def _read(path: Path) -> Mapping[str, object]:
    try:
        table = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise LibraryProblem(str(path), f"{path}{line} is not valid YAML.", hint="Correct it by hand.") from error
    return table if isinstance(table, dict) else {}
