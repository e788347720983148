"""A target: a UI, the folder where it looks for LoRAs, and what it wants to find beside them."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem, StorageProblem, UsageProblem
from hubtool.library import targets
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Target:
    """The conventions of one UI; one file of `hubtool.library.targets` each, with its `TARGET`."""

    id: str
    title: str  # its name for people
    source: str  # where the facts were read
    folder: str  # the LoRA folder below the UI's own folder
    extensions: frozenset[str]  # lower case, with the dot: what the UI lists
    sidecars: tuple[str, ...]  # ids of `hubtool.library.sidecars` that are of use there
    markers: tuple[tuple[str, ...], ...] = ()  # a folder with all files of one row is an installation of it
    grammar: str = "a1111"  # dialect of `hubtool.library.prompts`
    preview: str = ".preview"  # what stands between the model's name and the picture's extension
    pictures: frozenset[str] = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})  # that it shows
    also_read: tuple[str, ...] = ()  # further LoRA folders, which we list but never install into
    # root and usual LoRA folders → those that the UI's own settings name, the one installed into first
    named: Callable[[Path, Sequence[Path]], list[Path]] | None = None
    flat_names: bool = False  # True: files are known by their stem alone, whatever subfolder they are in
    keeps_paths: bool = False  # True: its own database says where its models lie, and loses those that move

    def prompt(self, name: str) -> str:
        """The words that use an adapter at full strength."""
        return f"<lora:{name}:1>"

    def usual_folders(self, root: Path) -> list[Path]:
        """Where a UI in this folder looks for LoRAs if nobody told it otherwise; the one installed into first."""
        return [root / folder for folder in (self.folder, *self.also_read)]

    def lora_folders(self, root: Path) -> list[Path]:
        """Where the UI in this folder looks for LoRAs by its own settings; the one installed into first.

        Raises:
            LibraryProblem: its settings cannot be understood. StorageProblem: they cannot be read.
        """
        usual = self.usual_folders(root)
        named = self.named(root, usual) if self.named else usual
        return [folder for folder in named if "\0" not in str(folder)] or usual


@dataclass(frozen=True, slots=True)
class Place:
    """A LoRA folder and the UI that reads it."""

    target: Target
    folder: Path  # absolute, links resolved
    deep: bool = True  # the UI reads its subfolders too


@functools.cache
def all_targets() -> Mapping[str, Target]:
    """Every target, by id."""
    names = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    found = (importlib.import_module(f"{targets.__name__}.{name}").TARGET for name in names)
    return {target.id: target for target in found}


def target_named(name: str, others: Iterable[str] = ()) -> Target:
    """The target with this id; `others` are names that could have been meant as well.

    Raises:
        UsageProblem: there is none.
    """
    known = all_targets()
    if name not in known:
        names = ", ".join([*known, *others])
        raise UsageProblem(f"There is no install target {name}; there are {names}.", hint="Use `--to DIR`.")
    return known[name]


def choose_place(settings: Settings, target: str | None = None, to: Path | None = None) -> Place:
    """Where `--target NAME[=ROOT]` or `--to DIR` lead; by default the configured target below the library's root.

    NAME is a target, or a UI that `hubtool ui add` made known, which brings its root along.

    Raises:
        UsageProblem: no such target, or ROOT and `--to` together.
        LibraryProblem, StorageProblem: the UI's own settings cannot be understood, or read.
    """
    name, root = _named(settings, target or settings.target)
    chosen = target_named(name, settings.uis)
    if to is not None:
        if target and "=" in target:
            raise UsageProblem(f"`--target {target}` and `--to {to}` both name a folder.", hint="Give one of them.")
        return Place(chosen, _real(to), deep=False)
    return Place(chosen, _real(chosen.lora_folders(_root(settings, root))[0]))


def known_places(settings: Settings) -> tuple[Place, ...]:
    """The folders of the configured target that exist: the one installed into first."""
    name, root = _named(settings, settings.target)
    chosen = target_named(name)
    place = _root(settings, root)
    try:
        folders = chosen.lora_folders(place)
    except (LibraryProblem, StorageProblem):  # said by `install` and `ui`; what is usual can be listed all the same
        folders = chosen.usual_folders(place)
    return tuple(Place(chosen, folder) for folder in dict.fromkeys(map(_real, folders)) if folder.is_dir())


def _named(settings: Settings, text: str) -> tuple[str, str]:
    """Target and root (empty: the library's) of what was typed."""
    name, _, root = text.partition("=")
    if not root and name in settings.uis:
        name, _, root = settings.uis[name].partition("=")
    return name, root


def _root(settings: Settings, root: str) -> Path:
    return from_home(root) if root else settings.library or Path()


def _real(path: Path) -> Path:
    """Links resolved once, at the root: a linked library works, and one folder has one name in the index."""
    return Path(os.path.realpath(from_home(path)))
