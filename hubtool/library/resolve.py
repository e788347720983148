"""Which installed file a name in a prompt means.

A1111 (extensions-builtin/Lora/networks.py) knows a file by its stem and by the alias in its header, `ss_output_name`;
an alias that is taken twice, or that reads `none`, is forbidden, and only stems count then. The comparison is
case-sensitive, and of two files with one stem the one listed last wins. SD.Next also accepts a path below the folder
and puts `_` for `.`; ComfyUI's loaders want that path, SwarmUI whatever the case.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hubtool.library.record import Label

_RESERVED = frozenset({"none", "addams"})  # forbidden_network_aliases at the start
_EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt")


class Names:
    """The names by which files are known inside prompts."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels = sorted(labels, key=_listing_order)
        self._stems = {label.stem: label for label in self._labels}
        self._aliases = _aliases(self._labels, self._stems)

    def find(self, name: str, dialect: str) -> Label | None:
        """The file that this name means in a prompt of this dialect; None if there is none."""
        finders: Mapping[str, Callable[[str], Label | None]] = {
            "sdnext": self._as_sdnext,
            "comfyui": self._as_path,
            "swarmui": self._as_swarmui,
        }
        return finders.get(dialect, self._as_a1111)(name)

    def suggestions(self, name: str) -> list[str]:
        """Names that would be found and are close to one that was not, the likeliest first; three at most."""
        known = {_folded(word): label.stem for word, label in {**self._aliases, **self._stems}.items()}
        wanted = _folded(name)
        close = difflib.get_close_matches(wanted, known, 3, 0.6)
        inside = [word for word in known if len(wanted) > 2 and (wanted in word or (len(word) > 2 and word in wanted))]
        return list(dict.fromkeys(known[word] for word in [*close, *inside]))[:3]

    def _as_a1111(self, name: str) -> Label | None:
        return self._stems.get(name) or self._aliases.get(name)

    def _as_sdnext(self, name: str) -> Label | None:
        dotless = {label.stem.replace(".", "_"): label for label in self._labels}
        return dotless.get(name) or self._paths().get(name) or self._as_a1111(name)

    def _as_path(self, name: str) -> Label | None:
        wanted = _without_extension(name.replace("\\", "/"))
        return self._paths().get(wanted) or self._stems.get(wanted)

    def _as_swarmui(self, name: str) -> Label | None:
        wanted = _without_extension(name.replace("\\", "/")).lower()
        paths = {path.lower(): label for path, label in self._paths().items()}
        if wanted in paths:
            return paths[wanted]
        ends = [path for path in paths if path.rpartition("/")[2] == wanted] or [
            path for path in paths if wanted in path
        ]
        return paths[min(ends, key=lambda path: (len(path), path))] if ends else None

    def _paths(self) -> dict[str, Label]:
        return {label.inside: label for label in self._labels}


def _aliases(labels: Iterable[Label], stems: Mapping[str, Label]) -> dict[str, Label]:
    """Alias → file, without those that are forbidden."""
    found: dict[str, Label] = {}
    forbidden = set(_RESERVED)
    for label in labels:
        if label.alias in found or label.alias in stems:
            forbidden.add(label.alias.lower())
        if label.alias:
            found[label.alias] = label
    return {alias: label for alias, label in found.items() if alias.lower() not in forbidden}


def _listing_order(label: Label) -> tuple[str, list[tuple[int, str]]]:
    """As A1111 walks the folder: numbers in names count as numbers."""
    folder, _, name = label.inside.lower().rpartition("/")
    parts = re.split(r"(\d+)", name)
    return folder, [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _folded(name: str) -> str:
    """Without case and separators, for comparison by eye."""
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def _without_extension(name: str) -> str:
    return next((name[: -len(extension)] for extension in _EXTENSIONS if name.lower().endswith(extension)), name)
