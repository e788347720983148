"""Which installed file a name in a prompt means.

A1111 (extensions-builtin/Lora/networks.py) knows a file by its stem and by the alias in its header, `ss_output_name`;
an alias that is taken twice, or that reads `none`, is forbidden, and only stems count then (a copy in another UI's folder
takes nothing away). The comparison is case-sensitive, and of two files with one stem the one listed last wins. SD.Next
knows no aliases, but the stem with `_` for `.` and the path below the folder; Fooocus the stem alone, the first file of
several; ComfyUI's LoRA Manager stem or path, SwarmUI the shortest path that contains the name, whatever the case.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from hubtool.library.record import Label

RESERVED = frozenset({"none"})  # forbidden from the start; so is "Addams", but it is compared in lower case
_EXTENSIONS = (".safetensors", ".ckpt", ".pt", ".bin", ".sft")


class Names:
    """The names by which files are known inside prompts."""

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels = sorted(labels, key=_listing_order)
        self._stems = {label.stem: label for label in self._labels}
        self._aliases = _aliases(self._labels, self._stems)

    def find(self, name: str, dialect: str) -> Label | None:
        """The file that this name means in a prompt of this dialect; None if there is none."""
        finders: Mapping[str, Callable[[str], Label | None]] = {
            "sdnext": self._sdnext.get,
            "comfyui": self._as_lora_manager,
            "swarmui": self._as_swarmui,
            "fooocus": self._fooocus.get,
        }
        return finders.get(dialect, self._as_a1111)(name)

    def suggestions(self, name: str) -> list[str]:
        """Names that would be found and are close to one that was not, the likeliest first; three at most."""
        known, wanted = self._folded, folded(name)
        close = difflib.get_close_matches(wanted, known, 3, 0.6)
        inside = [word for word in known if len(wanted) > 2 and (wanted in word or (len(word) > 2 and word in wanted))]
        return list(dict.fromkeys(known[word] for word in [*close, *inside]))[:3]

    def name_of(self, label: Label, dialect: str, *preferred: str) -> str | None:
        """A name by which a prompt of this dialect finds a file or a copy of it, of the `preferred` first; None if by none."""
        copies = [copy for word in label.contents for copy in self._contents.get(word, ())]
        tries = [
            *preferred,
            *(name for copy in copies for name in (copy.stem, copy.stem.replace(".", "_"), copy.inside)),
        ]
        found = ((name, self.find(name, dialect)) for name in dict.fromkeys(tries))
        return next((name for name, one in found if one and one.is_copy_of(label)), None)

    def at(self, paths: Collection[str]) -> list[Label]:
        """The files at these paths; by path."""
        return [label for path in sorted(paths) if (label := self._at.get(path))]

    def called(self, name: str) -> Label | None:
        """The file that alone has this stem or alias but for case, blanks and punctuation; copies of it are one."""
        alike = self._alike.get(folded(name), [])
        return alike[0] if alike and all(one.is_copy_of(alike[0]) for one in alike) else None

    @functools.cached_property
    def _contents(self) -> Mapping[str, list[Label]]:
        found: dict[str, list[Label]] = defaultdict(list)
        for label in self._labels:
            for word in label.contents:
                found[word].append(label)
        return found

    @functools.cached_property
    def _at(self) -> Mapping[str, Label]:
        return {label.path: label for label in self._labels}

    @functools.cached_property
    def _folded(self) -> Mapping[str, str]:
        """Folded name or alias → stem."""
        return {folded(word): label.stem for word, label in {**self._aliases, **self._stems}.items()}

    @functools.cached_property
    def _alike(self) -> Mapping[str, list[Label]]:
        found: dict[str, list[Label]] = defaultdict(list)
        for label in self._labels:
            for word in {folded(label.stem), folded(label.alias)} - {""}:
                found[word].append(label)
        return found

    def _as_a1111(self, name: str) -> Label | None:
        return self._stems.get(name) or self._aliases.get(name)

    @functools.cached_property
    def _by_path(self) -> list[Label]:
        return sorted(self._labels, key=lambda label: label.path)

    @functools.cached_property
    def _sdnext(self) -> Mapping[str, Label]:
        """Stems with `_` for `.`, and paths, the last one counting; then stems as they are, the first one."""
        found: dict[str, Label] = {}
        for label in self._by_path:
            found[label.stem.replace(".", "_")] = label
            found[label.inside] = label
            found.setdefault(label.stem, label)
        return found

    @functools.cached_property
    def _fooocus(self) -> Mapping[str, Label]:
        """Stems, in the order of its walk: deepest folders first."""
        walked = sorted(self._by_path, key=lambda label: -label.inside.count("/"))
        return {label.stem: label for label in reversed(walked)}

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Label]:
        """Paths and stems, of which the first file counts."""
        found: dict[str, Label] = {}
        for label in self._by_path:
            found.setdefault(label.inside, label)
            found.setdefault(label.stem, label)
        return found

    @functools.cached_property
    def _by_stem(self) -> Mapping[str, list[Label]]:
        found: dict[str, list[Label]] = defaultdict(list)
        for label in self._by_path:
            found[label.stem].append(label)
        return found

    @functools.cached_property
    def _swarm_names(self) -> list[tuple[str, Label]]:
        """The shortest first."""
        named = [(_swarm_name(_path_inside(label)), label) for label in self._by_path]
        return sorted(named, key=lambda pair: len(pair[0]))

    def _as_lora_manager(self, name: str) -> Label | None:
        """Path or stem; else the stem at the end of a path, best where the path begins with the file's folder."""
        wanted = _without_extension(name.replace("\\", "/"))
        exact = self._by_name.get(wanted)
        if exact or "/" not in wanted:
            return exact
        alike = self._by_stem.get(wanted.rpartition("/")[2], [])
        return next((label for label in reversed(alike) if wanted.startswith(_folder(label) or "/")), None) or (
            alike[0] if alike else None
        )

    def _as_swarmui(self, name: str) -> Label | None:
        """The path itself, else the shortest path that contains the name; blanks and square brackets do not count."""
        wanted = _swarm_name(name.replace("\\", "/"))
        # the name itself is the shortest that contains it
        return next((label for name, label in self._swarm_names if wanted in name), None)


def _folder(label: Label) -> str:
    folder = label.inside.rpartition("/")[0]
    return f"{folder}/" if folder else ""


def _path_inside(label: Label) -> str:
    """The path below the LoRA folder with its extension."""
    return label.inside + label.path[label.path.rfind(".") :]


def _swarm_name(path: str) -> str:
    return path.removesuffix(".safetensors").lower().translate(str.maketrans("", "", " []"))


def _aliases(labels: Iterable[Label], stems: Mapping[str, Label]) -> dict[str, Label]:
    """Alias → file, without those that are forbidden."""
    found: dict[str, Label] = {}
    forbidden = set(RESERVED)
    for label in labels:
        other = found.get(label.alias) or stems.get(label.alias)
        if other and not (other.folder != label.folder and other.is_copy_of(label)):
            forbidden.add(label.alias.lower())
        if label.alias:
            found[label.alias] = label
    return {alias: label for alias, label in found.items() if alias.lower() not in forbidden}


def _listing_order(label: Label) -> tuple[str, list[tuple[int, str]]]:
    """As A1111 walks the folder: numbers in names count as numbers."""
    folder, _, name = label.inside.lower().rpartition("/")
    parts = re.split(r"(\d+)", name)
    return folder, [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def folded(name: str) -> str:
    """Without case, separators and forms of one letter (full width, accents apart), for comparison by eye."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold()) or name


def _without_extension(name: str) -> str:
    return next((name[: -len(extension)] for extension in _EXTENSIONS if name.lower().endswith(extension)), name)
