"""Which file of the library a word on the command line means.

A path, a name, a name with its folder (`styles/ink`), with or without extension; else the alias in a header, else what differs in
case or in how accents are spelt. A name that several files have is never guessed at: the configured LoRA folder goes first, and
if that leaves more than one, the user has to say which.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import AmbiguousName, NotInstalled
from hubtool.library.companions import MODELS
from hubtool.library.resolve import Names
from hubtool.library.target import known_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Installed, Label
    from hubtool.settings import Settings


class Finder:
    """Finds files by name, in the whole library or in one LoRA folder; made once for a command."""

    def __init__(self, index: Index, settings: Settings, folder: Path | None = None) -> None:
        self._index, self._folder = index, folder
        self._preferred = {str(place.folder) for place in known_places(settings)}

    def find(self, name: str, *, copies_alike: bool = False) -> Installed:
        """The file that is meant; with `copies_alike` any of them, where all that have the name hold the same bytes.

        Raises:
            NotInstalled: there is none. AmbiguousName: there are several.
        """
        try:
            found = self._at(name) or self._called(name)
        except AmbiguousName as error:
            found = self._of_copies([Path(path) for path in error.paths]) if copies_alike else None
            if found is None:
                raise
        if found:
            return found
        names = Names(self._labels)
        raise NotInstalled(name, names.suggestions(name))

    def _at(self, name: str) -> Installed | None:
        """The file at a path."""
        path = Path(name)
        if not path.suffix or not os.path.lexists(path):
            return None
        place = Path(os.path.realpath(path.parent)) / path.name
        return self._index.at(path.absolute()) or self._index.at(place)

    def _called(self, name: str) -> Installed | None:
        plain = _without_extension(name.replace("\\", "/"))
        tries = ((self._names, name), (self._names, plain), (self._aliases, name), (self._folded, _folded(plain)))
        labels = next((found for table, word in tries if (found := table.get(word))), None)
        return self._index.at(Path(self._one(name, labels).path)) if labels else None

    def _of_copies(self, paths: Sequence[Path]) -> Installed | None:
        """The first, if the hashes of all are known and equal."""
        files = [self._index.at(path) for path in paths]
        digests = {file.digests.sha256 if file else "" for file in files}
        return files[0] if len(digests) == 1 and "" not in digests else None

    def _one(self, name: str, labels: Sequence[Label]) -> Label:
        here = [label for label in labels if label.folder in self._preferred]
        left = here or labels
        if len(left) > 1:
            raise AmbiguousName(name, [label.path for label in left])
        return left[0]

    @functools.cached_property
    def _labels(self) -> list[Label]:
        return [label for label in self._index.labels() if self._folder is None or label.folder == str(self._folder)]

    @functools.cached_property
    def _names(self) -> Mapping[str, Sequence[Label]]:
        return self._by(lambda label: (label.stem, label.inside))

    @functools.cached_property
    def _aliases(self) -> Mapping[str, Sequence[Label]]:
        return self._by(lambda label: (label.alias,))

    @functools.cached_property
    def _folded(self) -> Mapping[str, Sequence[Label]]:
        return self._by(lambda label: (_folded(label.stem), _folded(label.inside)))

    def _by(self, words: Callable[[Label], Sequence[str]]) -> Mapping[str, Sequence[Label]]:
        found: dict[str, list[Label]] = defaultdict(list)
        for label in self._labels:
            for word in dict.fromkeys(words(label)):
                if word:
                    found[word].append(label)
        return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _without_extension(name: str) -> str:
    """Only known extensions are any: names have dots."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot and f".{extension.lower()}" in MODELS else name
