"""Where things are kept and how hubtool behaves: defaults ← config.toml ← environment ← flags.

Directories follow platformdirs; `HUBTOOL_HOME` moves config, data and cache below one folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tomli

from hubtool.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HUB = "civitai"
STALL_S = 20.0  # no byte for this long: reconnect and resume
MOST_CONNECTIONS = 16  # for one file; more than this is rude anywhere
GIVE_UP_FACTOR = 4.5  # × STALL_S: less than 64 KiB of progress in that time ends the transfer

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

#: What `config set` accepts: key → (type name, what it means).
KEYS: Mapping[str, tuple[str, str]] = {
    "hub": ("text", "hub to use when --hub is not given"),
    "library": ("path", "folder below which LoRAs are installed"),
    "target": ("text", "default install target, such as a1111 or comfyui=/path/to/ComfyUI"),
    "jobs": ("number", "files handled at the same time"),
    "connections": (
        "number or auto",
        "connections for each file at most; auto: one, and more where measuring shows a gain",
    ),
    "limit_rate": ("rate", "bytes a second over all downloads together, such as 500K or 10M; none: no limit"),
    "timeout": ("seconds", "silence after which a transfer reconnects"),
    "offline": ("yes/no", "never use the network"),
    "previews": ("level", "the most explicit picture to put beside a model: none, soft, mature, all"),
    "fallback": ("list", "hubs to ask for what Civitai does not have, separated by commas, or none"),
}


def from_home(text: str | Path) -> Path:
    """A path as people type it: `~` is the user's folder. `Path.expanduser` fails for a user that there is not.

    >>> from_home("~no such user/loras").parts
    ('~no such user', 'loras')
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111


@dataclass(frozen=True, slots=True)
class Directories:
    """The three folders of this user; nothing is created until it is needed."""

    config: Path
    data: Path
    cache: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """One run's settings, after every layer was applied."""

    directories: Directories
    hub: str = DEFAULT_HUB
    library: Path | None = None  # root below which the default target's folder lies; None: current folder
    target: str = "a1111"
    jobs: int = 4
    connections: int | None = None  # for one file; None: found out by measuring
    limit_bytes_s: int | None = None  # over all files together
    timeout_s: float = STALL_S
    offline: bool = False
    previews: str = "soft"  # as --nsfw of `search`
    hubs: Mapping[str, str] = field(default_factory=dict)  # the user's own names for hub URLs
    uis: Mapping[str, str] = field(default_factory=dict)  # the user's UIs: name → TARGET=ROOT
    further_hubs: tuple[str, ...] = ()  # asked after `hub`, in order
    fallback: tuple[str, ...] = ("civarchive",)  # asked for what Civitai does not have

    @property
    def index_path(self) -> Path:
        """The SQLite index of the library."""
        return self.directories.data / "index.sqlite"

    @property
    def give_up_s(self) -> float:
        """Time in which at least 64 KiB must arrive."""
        return self.timeout_s * GIVE_UP_FACTOR


def directories(environment: Mapping[str, str] | None = None) -> Directories:
    """The user's folders: below `HUBTOOL_HOME` if set, else where the platform keeps such things."""
    home = (os.environ if environment is None else environment).get("HUBTOOL_HOME")
    if home:
        root = from_home(home)
        return Directories(root / "config", root / "data", root / "cache")
    import platformdirs  # noqa: PLC0415  # 19 ms that HUBTOOL_HOME and most commands never need

    found = platformdirs.PlatformDirs("hubtool", appauthor=False)
    return Directories(Path(found.user_config_dir), Path(found.user_data_dir), Path(found.user_cache_dir))


def read_config(path: Path) -> dict[str, object]:
    """The table in a config file; empty if there is none.

    Raises:
        UsageProblem: the file is not valid TOML.
    """
    try:
        return tomli.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageProblem(
            f"The config file {path} is not valid TOML: {error}", hint="Correct or delete it."
        ) from error


def load(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the defaults, the config file and the environment; flags come on top with `replace`.

    Raises:
        UsageProblem: a value has the wrong type.
    """
    environment = os.environ if environment is None else environment
    found = directories(environment)
    table = read_config(config or found.config / "config.toml")
    settings = Settings(found)
    for key, value in table.items():
        settings = with_value(settings, key, value)
    variables = {"HUBTOOL_HUB": "hub", "HUBTOOL_LIBRARY": "library", "HUBTOOL_TIMEOUT": "timeout"}
    for variable, key in variables.items():
        if environment.get(variable):
            settings = with_value(settings, key, environment[variable])
    offline = (environment.get(name, "") for name in ("HUBTOOL_OFFLINE", "CIVITAI_OFFLINE"))
    if any(value.lower() in {"1", "true", "yes", "on"} for value in offline):
        settings = replace(settings, offline=True)
    return settings


def with_value(settings: Settings, key: str, value: object) -> Settings:
    """The settings with one key of the config file or the environment applied.

    Raises:
        UsageProblem: the value has the wrong type.
    """
    if key == "uis" and isinstance(value, dict):
        return replace(settings, uis={str(name): str(place) for name, place in value.items()})
    if key == "hubs" and isinstance(value, dict):
        return replace(settings, hubs={str(name): str(url) for name, url in value.items()})
    if key not in KEYS:
        return settings  # an older hubtool must be able to read a newer config
    try:
        return _converted(settings, key, value)
    except (TypeError, ValueError) as error:
        raise UsageProblem(f"The setting {key} must be a {KEYS[key][0]}: {value}") from error


def _converted(settings: Settings, key: str, value: object) -> Settings:
    text = str(value)
    match key:
        case "fallback":
            changed = replace(settings, fallback=_names(value))
        case "library":
            changed = replace(settings, library=from_home(text))
        case "offline":
            changed = replace(settings, offline=text.lower() in {"1", "true", "yes", "on"})
        case "previews":
            changed = replace(settings, previews=_level(text))
        case "hub":
            changed = replace(settings, hub=text)
        case "target":
            changed = replace(settings, target=text)
        case _:
            changed = _with_figure(settings, key, text)
    return changed


def _with_figure(settings: Settings, key: str, text: str) -> Settings:
    match key:
        case "jobs":
            return replace(settings, jobs=max(1, int(text)))
        case "connections":
            return replace(settings, connections=connections(text))
        case "limit_rate":
            return replace(settings, limit_bytes_s=bytes_a_second(text))
        case _:
            return replace(settings, timeout_s=_seconds(text))


def connections(text: str) -> int | None:
    """A number of connections from 1 to MOST_CONNECTIONS, or None for `auto`.

    Raises:
        ValueError: it is neither.
    """
    if text.lower() == "auto":
        return None
    if not 1 <= int(text) <= MOST_CONNECTIONS:
        raise ValueError(text)
    return int(text)


def bytes_a_second(text: str) -> int | None:
    """A rate of at least 1024 bytes a second, or None for `none`.

    >>> bytes_a_second("500k"), bytes_a_second("2.5MiB/s"), bytes_a_second("none")
    (512000, 2621440, None)

    Raises:
        ValueError: it is no such rate.
    """
    plain = text.strip().upper()
    if plain == "NONE":
        return None
    plain = plain.removesuffix("/S").removesuffix("B").removesuffix("I")
    number, unit = (plain[:-1], _UNITS[plain[-1]]) if plain[-1:] in _UNITS else (plain, 1)
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", number) or float(number) * unit < _UNITS["K"]:
        raise ValueError(text)
    return int(float(number) * unit)


def _level(text: str) -> str:
    if text not in {"none", "soft", "mature", "all"}:
        raise ValueError(text)
    return text


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:
        raise ValueError(text)
    return seconds


def _names(value: object) -> tuple[str, ...]:
    """Names from a TOML list, or separated by commas; `none` is an empty list."""
    entries = value if isinstance(value, list) else str(value).split(",")
    names = [str(entry).strip() for entry in entries]
    return tuple(name for name in names if name and name != "none")
