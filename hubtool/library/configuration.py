"""The config file as people keep it: one line changes, comments and order stay.

Only what one line can say is written (`key = value` at the top, `name = "url"` below `[hubs]`); a file in which the key
stands otherwise is refused rather than rearranged.
"""

from __future__ import annotations

import json
import os
import re
from itertools import takewhile
from pathlib import Path

import tomli

from hubtool.errors import StorageProblem, UsageProblem
from hubtool.formats.atomic import write_text
from hubtool.library.target import target_named
from hubtool.settings import KEYS, Settings, directories, with_value

_FIELDS = {"timeout": "timeout_s", "limit_rate": "limit_bytes_s"}  # where the field has another name
_UNSET = {"connections": "auto", "limit_rate": "none"}
Value = str | int | float | bool | None
_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def config_path(chosen: Path | None) -> Path:
    """The config file: the one chosen with `--config`, else the user's own; it need not exist."""
    return chosen or directories().config / "config.toml"


def get_setting(settings: Settings, key: str) -> Value:
    """The value in force, whether a flag, the environment, the config file or a default says so.

    Raises:
        UsageProblem: no such key.
    """
    section, name = split_key(key)
    if section:
        return {"hubs": settings.hubs, "uis": settings.uis}[section].get(name)
    _check_key(key)
    value = getattr(settings, _FIELDS.get(key, key))
    if value is None and key in _UNSET:
        return _UNSET[key]
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return str(value) if isinstance(value, Path) else value


def all_settings(settings: Settings) -> dict[str, Value]:
    """Every key with the value in force."""
    return {
        key: get_setting(settings, key)
        for key in [*KEYS, *(f"hubs.{name}" for name in settings.hubs), *(f"uis.{name}" for name in settings.uis)]
    }


def set_setting(path: Path, key: str, text: str, *, dry_run: bool = False) -> Value:
    """Write one key of a config file; the value as it will be read.

    Raises:
        UsageProblem: no such key, a value of the wrong type, or a file that one line cannot change.
        StorageProblem: the file cannot be read or written.
    """
    value = _typed(key, text)
    path = Path(os.path.realpath(path))  # a linked config file stays a link
    old = _read(path)
    section, name = split_key(key)
    new = _with_line(old, section, name, value)
    expected = _parsed(path, old)
    table = expected.setdefault(section, {}) if section else expected
    if isinstance(table, dict):
        table[name] = value
    if _parsed(path, new) != expected:
        raise UsageProblem(f"{key} does not stand on one line of its own in {path}.", hint="Change it by hand.")
    if not dry_run:
        write_text(path, new, force=True)
    return value


def split_key(key: str) -> tuple[str, str]:
    """Section and name of a key; the section is empty for one at the top.

    >>> split_key("hubs.mine"), split_key("jobs")
    (('hubs', 'mine'), ('', 'jobs'))
    """
    section, dot, name = key.partition(".")
    return (section, name) if dot and section in {"hubs", "uis"} else ("", key)


def _check_key(key: str) -> None:
    if key not in KEYS:
        raise UsageProblem(f"There is no setting {key}; there are {', '.join(KEYS)}, hubs.NAME and uis.NAME.")


def _typed(key: str, text: str) -> str | int | float | bool:
    """What was typed as the value that TOML should hold."""
    if not text.isprintable():
        raise UsageProblem(f"The value of {key} holds characters that cannot be printed.")
    section, name = split_key(key)
    if section:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise UsageProblem(f"The name of a {section[:-1]} has letters, digits, - and _ only: {name}")
        if section == "uis":
            target_named(text.partition("=")[0])
        return text
    _check_key(key)
    if key == "offline" and text.lower() not in _WORDS:
        raise UsageProblem(f"The setting offline must be yes or no: {text}")
    if key == "target":
        target_named(text.partition("=")[0])
    checked = get_setting(with_value(Settings(directories()), key, text), key)
    # from wherever the command is run later, a relative folder would be another one
    return os.path.abspath(str(checked)) if key == "library" else checked if checked is not None else text  # noqa: PTH100  # keeps links


def _with_line(text: str, section: str, name: str, value: Value) -> str:
    """The text with one line changed, or added at the end of its section."""
    newline = "\r\n" if "\r\n" in text else "\n"
    rows = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    header = next((number for number, row in enumerate(rows) if re.fullmatch(rf"\s*\[{section}\]\s*(#.*)?", row)), None)
    if section and header is None:
        rows += [""] * bool(rows) + [f"[{section}]"]
    start = 0 if not section else len(rows) if header is None else header + 1
    stop = start + len(list(takewhile(lambda row: not re.match(r"\s*\[", row), rows[start:])))
    for number in range(start, stop):
        if match := re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", rows[number]):
            rest = rows[number][match.end() :]
            blanks = rest[: len(rest) - len(rest.lstrip())]
            rows[number] = f"{match[0]}{blanks}{_toml(value)}{_comment(rest)}"
            break
    else:
        while stop > start and not rows[stop - 1].strip():
            stop -= 1
        rows.insert(stop, f"{name} = {_toml(value)}")
    return newline.join(rows) + newline


def _comment(rest: str) -> str:
    """What follows the value on its line: blanks and a comment."""
    for match in re.finditer(r"\s*#", rest):
        try:
            tomli.loads(f"x ={rest[: match.start()]}")
        except tomli.TOMLDecodeError:  # a # inside the value
            continue
        return rest[match.start() :]
    return ""


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # a JSON string without control characters is a basic string of TOML
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise UsageProblem(f"The config file {path} is no UTF-8 text.", hint="Correct or delete it.") from error


def _parsed(path: Path, text: str) -> dict[str, object]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageProblem(f"The config file {path} is not valid TOML: {error}", hint="Change it by hand.") from error
