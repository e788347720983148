"""LoRA folders that a UI's own settings name.

Each function gets the UI's folder and the usual LoRA folders, and answers those that hold, the one installed into first.

| UI | settings | meaning |
|---|---|---|
| A1111, Forge | `COMMANDLINE_ARGS` of webui-user.sh, .bat | `--lora-dir` instead, `--lyco-dir` besides, `--data-dir` moves |
| SD.Next | config.json | `lora_dir` instead, `models_dir` moves the usual one |
| ComfyUI | extra_model_paths.yaml | `loras` of every section besides; with `is_default` before the usual one |
| Fooocus | config.txt | `path_loras`, one or a list, instead |
| SwarmUI | Data/Settings.fds | `ModelRoot` and `SDLoraFolder` of `Paths`, each perhaps several with `;` |
| InvokeAI | invokeai.yaml | `models_dir` besides: what it manages itself |
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.library.model_paths import NAME, folders_by_rank, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Folders = Sequence[Path]

MAX_BYTES = 1 << 20  # settings files have some kilobytes
_LONG = 4096  # characters of a path; variables that grow by each other have no end
_ASSIGNED = re.compile(r"""^[ \t]*(?:export[ \t]+|set[ \t]+)?"?(\w+)=(.*)$""", re.MULTILINE | re.IGNORECASE)
_VARIABLE = re.compile(r"%(\w+)%|\$\{(\w+)\}|\$(\w+)")


def from_command_line(root: Path, usual: Folders) -> list[Path]:
    """A1111 and Forge.

    Raises:
        StorageProblem: a file cannot be read.
    """
    options = _options(root)
    data = root / options.get("--data-dir", "")
    models = data / options.get("--models-dir", "models")
    moved = [models / folder.relative_to(root / "models") for folder in usual]
    first = [root / options["--lora-dir"]] if "--lora-dir" in options else moved[:1]
    lent = root / options.get("--forge-ref-a1111-home", "") / "models" / "lora"  # as Forge spells it, on every system
    if "--forge-ref-a1111-home" in options and "--lora-dir" not in options and lent.exists():
        first = [lent]
    also = [root / options[name] for name in ("--lyco-dir", "--lyco-dir-backcompat") if name in options]
    return [*first, *(also or moved[1:])]


def _options(root: Path) -> dict[str, str]:
    """Option → value, of every line that sets the arguments."""
    shell, batch = _text(root / "webui-user.sh"), _text(root / "webui-user.bat")
    words = [*_arguments(shell.replace("\\\n", " "), posix=True), *_arguments(batch.replace("^\n", " "), posix=False)]
    found = {}
    for word, following in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--") and (equals or not following.startswith("--")):
            found[name] = value if equals else following
    return found


def _arguments(script: str, *, posix: bool) -> list[str]:
    """The words of all values of COMMANDLINE_ARGS, with the variables that the script sets before."""
    words: list[str] = []
    values = {"COMMANDLINE_ARGS": ""}  # what is added to itself is read already

    def known(match: re.Match[str]) -> str:
        return values.get(next(filter(None, match.groups())), match[0])

    for variable, line in _ASSIGNED.findall(script):
        value = _VARIABLE.sub(known, line)
        if variable.upper() == "COMMANDLINE_ARGS":
            words += _words(value, posix=posix)
        elif len(value) < _LONG:
            values[variable] = value.strip().strip("\"'")
    return words


def _words(line: str, *, posix: bool) -> list[str]:
    """The line split as its shell does; a batch file's backslashes are no escapes."""
    try:
        outer = shlex.split(line, comments=posix, posix=posix)
        inner = [part for word in outer for part in shlex.split(word, posix=posix)] if posix else outer
    except ValueError:  # an unfinished quotation: the shell would not start the UI either
        return []
    return [word.strip("\"'") for word in inner]


def from_sdnext(root: Path, usual: Folders) -> list[Path]:
    """SD.Next, whose file only holds what was changed.

    Raises:
        LibraryProblem: it is no JSON. StorageProblem: it cannot be read.
    """
    table = _json(root / "config.json")
    models = root / _one(table, "models_dir", "models")
    named = _one(table, "lora_dir", "")
    return [root / named] if named else [models / folder.relative_to(root / "models") for folder in usual]


def from_fooocus(root: Path, usual: Folders) -> list[Path]:
    """Fooocus; a folder that is not there does not count, as in its own reader.

    Raises:
        LibraryProblem: it is no JSON. StorageProblem: it cannot be read.
    """
    said = _json(root / "config.txt").get("path_loras")
    named = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    folders = [root / name for name in named if isinstance(name, str) and name]
    return [folder for folder in folders if folder.is_dir()] or list(usual)


def from_swarmui(root: Path, usual: Folders) -> list[Path]:
    """SwarmUI.

    Raises:
        StorageProblem: the file cannot be read.
    """
    paths = _section(_text(root / "Data" / "Settings.fds"), "Paths")
    if not paths:
        return list(usual)
    bases = [root / part for part in _parts(paths.get("ModelRoot", "Models"))]
    return [base / part for base in bases for part in _parts(paths.get("SDLoraFolder", "Lora"))]


def from_comfyui(root: Path, usual: Folders) -> list[Path]:
    """ComfyUI.

    Raises:
        LibraryProblem: the file is no YAML. StorageProblem: it cannot be read.
    """
    ranked = folders_by_rank(root / NAME, "loras")
    return [*ranked.first, *usual, *ranked.then]


def from_invokeai(root: Path, usual: Folders) -> list[Path]:
    """InvokeAI, whose own store has a folder for each base model (before its version 6).

    Raises:
        LibraryProblem: the file is no YAML. StorageProblem: it cannot be read.
    """
    table = read_yaml(root / "invokeai.yaml")
    models = root / _one(table, "models_dir", "models")
    return [*usual, *sorted(folder for folder in models.glob("*/lora") if folder.is_dir())]


def _one(table: Mapping[str, object], key: str, default: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) and value else default


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _section(text: str, name: str) -> dict[str, str]:
    """Keys and values of one section of a FreneticDataSyntax file: `Section:`, then indented `Key: value` lines."""
    found: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if line.strip() and not line[0].isspace():
            inside = line.strip() == f"{name}:"
        elif inside and not line.lstrip().startswith("#"):
            key, colon, value = line.strip().partition(":")
            if colon:
                found[key] = value.strip()
    return found


def _json(path: Path) -> Mapping[str, object]:
    text = _text(path)
    try:
        table = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise LibraryProblem(str(path), f"{path} is not valid JSON.", hint="Correct it by hand.") from error
    return table if isinstance(table, dict) else {}


def _text(path: Path) -> str:
    """The whole file; empty if there is none."""
    try:
        if not path.is_file():
            return ""
        if path.stat().st_size > MAX_BYTES:
            raise StorageProblem(path, f"is larger than {MAX_BYTES >> 20} MiB: no settings")
        return path.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error
