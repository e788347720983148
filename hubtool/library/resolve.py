"""Which installed file a name in a prompt means.

A1111 (extensions-builtin/Lora/networks.py) knows a file by its stem and by the alias in its header, `ss_output_name`;
an alias that is taken twice, or that reads `none`, is forbidden, and only stems count then. The comparison is
case-sensitive, and of two files with one stem the one listed last wins. SD.Next also accepts a path below the folder
and puts `_` for `.`; ComfyUI's loaders want that path, SwarmUI whatever the case.
"""

from __future__ import annotations

import difflib
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.library.record import Installed

_RESERVED = frozenset({"none", "addams"})  # forbidden_network_aliases at the start
_EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt")


class Names:
    """The names by which adapters are known inside prompts."""

    def __init__(self, adapters: Sequence[Installed]) -> None:
        self._adapters = sorted(adapters, key=_listing_order)
        self._stems = {adapter.name: adapter for adapter in self._adapters}
        self._aliases = _aliases(self._adapters, self._stems)

    def find(self, name: str, dialect: str) -> Installed | None:
        """The adapter that this name means in a prompt of this dialect; None if there is none."""
        finders: Mapping[str, Callable[[str], Installed | None]] = {
            "sdnext": self._as_sdnext,
            "comfyui": self._as_path,
            "swarmui": self._as_swarmui,
        }
        return finders.get(dialect, self._as_a1111)(name)

    def suggestions(self, name: str) -> list[str]:
        """Names that would be found and are close to one that was not, the likeliest first; three at most."""
        known = {_folded(word): adapter.name for word, adapter in {**self._aliases, **self._stems}.items()}
        wanted = _folded(name)
        close = difflib.get_close_matches(wanted, known, 3, 0.6)
        inside = [word for word in known if len(wanted) > 2 and (wanted in word or (len(word) > 2 and word in wanted))]
        return list(dict.fromkeys(known[word] for word in [*close, *inside]))[:3]

    def _as_a1111(self, name: str) -> Installed | None:
        return self._stems.get(name) or self._aliases.get(name)

    def _as_sdnext(self, name: str) -> Installed | None:
        dotless = {adapter.name.replace(".", "_"): adapter for adapter in self._adapters}
        return dotless.get(name) or self._paths().get(name) or self._as_a1111(name)

    def _as_path(self, name: str) -> Installed | None:
        wanted = _without_extension(name.replace("\\", "/"))
        return self._paths().get(wanted) or self._stems.get(wanted)

    def _as_swarmui(self, name: str) -> Installed | None:
        wanted = _without_extension(name.replace("\\", "/")).lower()
        paths = {path.lower(): adapter for path, adapter in self._paths().items()}
        if wanted in paths:
            return paths[wanted]
        ends = [path for path in paths if PurePosixPath(path).name == wanted] or [
            path for path in paths if wanted in path
        ]
        return paths[min(ends, key=lambda path: (len(path), path))] if ends else None

    def _paths(self) -> dict[str, Installed]:
        """By path below the LoRA folder, without extension, with forward slashes."""
        return {a.path.relative_to(a.folder).with_suffix("").as_posix(): a for a in self._adapters}


def _aliases(adapters: Sequence[Installed], stems: Mapping[str, Installed]) -> dict[str, Installed]:
    """Alias → adapter, without those that are forbidden."""
    found: dict[str, Installed] = {}
    forbidden = set(_RESERVED)
    for adapter in adapters:
        alias = adapter.facts.alias
        if alias in found or alias in stems:
            forbidden.add(alias.lower())
        if alias:
            found[alias] = adapter
    return {alias: adapter for alias, adapter in found.items() if alias.lower() not in forbidden}


def _listing_order(adapter: Installed) -> tuple[str, list[tuple[int, str]]]:
    """As A1111 walks the folder: numbers in names count as numbers."""
    inside = adapter.path.relative_to(adapter.folder)
    parts = re.split(r"(\d+)", inside.as_posix().lower())
    return inside.parent.as_posix().lower(), [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _folded(name: str) -> str:
    """Without case and separators, for comparison by eye."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def _without_extension(name: str) -> str:
    return next((name[: -len(extension)] for extension in _EXTENSIONS if name.lower().endswith(extension)), name)
