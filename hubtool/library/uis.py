"""UIs on this machine: found by the files that only they have, and remembered under a name."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import FolderMissing, LibraryProblem, StorageProblem
from hubtool.library.stability_matrix import lent_to, library_folder, packages_of
from hubtool.library.target import all_targets, target_named
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hubtool.library.target import Target
    from hubtool.settings import Settings

MAX_DEPTH = 3  # below a folder that is searched: home/StabilityMatrix/Packages/ComfyUI
_SKIPPED = frozenset({"node_modules", "venv", ".venv", "site-packages", "__pycache__", "models", "outputs", "output"})


@dataclass(frozen=True, slots=True)
class Ui:
    """An installation of a UI."""

    name: str  # under which it is known here; empty: not yet
    target: str
    title: str
    root: Path
    folders: tuple[Path, ...]  # where it looks for LoRAs; the one installed into first
    problem: str = ""  # why its own settings say nothing: one sentence

    @property
    def word(self) -> str:
        """What `--target` takes."""
        return self.name or f"{self.target}={self.root}"


def known_uis(settings: Settings) -> list[Ui]:
    """The UIs of the config.

    Raises:
        UsageProblem: one has no such target.
    """
    return [
        _ui(target_named(place.partition("=")[0]), Path(place.partition("=")[2]), name)
        for name, place in settings.uis.items()
    ]


def detect(settings: Settings, places: Iterable[Path]) -> list[Ui]:
    """The UIs in these folders and up to three levels below; those that are known have their names.

    Raises:
        FolderMissing: one of the places is no folder.
    """
    names = {ui.root: ui.name for ui in known_uis(settings)}
    found: dict[Path, Ui] = {}
    for place in map(from_home, places):
        if not place.is_dir():
            raise FolderMissing(place)
        for folder in _walk(Path(os.path.realpath(place))):
            target = target_at(folder)
            if target:
                found.setdefault(folder, _ui(target, folder, names.get(folder, "")))
            found |= _launched(folder, names)
    inside = {folder for folder in found for other in found if other != folder and folder in other.parents}
    # a launcher's folder that only contains the real one: Fooocus_win64/Fooocus
    return [ui for folder, ui in sorted(found.items()) if folder not in inside or target_at(folder, strict=True)]


def _launched(folder: Path, names: Mapping[Path, str]) -> dict[Path, Ui]:
    """The UIs that Stability Matrix keeps in this folder, wherever it put them, with the LoRA folders that it lends them."""
    found = {}
    for package in packages_of(folder):
        root = Path(os.path.realpath(package.root))
        target = target_at(root)
        if target:
            ui = _ui(target, root, names.get(root, ""))
            found[root] = replace(ui, folders=_joined(ui.folders, package.shared))
    return found


def owner_of(folder: Path) -> Target | None:
    """The UI whose usual LoRA folder this is, whoever else reads it."""
    for root in folder.parents[:3]:
        target = target_at(root, strict=True)
        if target:
            return target if folder in target.usual_folders(root) else None
    return None


def target_at(folder: Path, *, strict: bool = False) -> Target | None:
    """Which UI a folder holds; `strict`: itself, not in a folder of the UI's name below."""
    # SD.Next and Forge have A1111's files too, so it comes last
    for target in sorted(all_targets().values(), key=lambda target: target.id == "a1111"):
        for row in target.markers:
            if all((folder / marker).exists() for marker in row) and not (strict and "/" in row[0]):
                return target
    return None


def usual_places() -> list[Path]:
    """Where people put UIs, as far as there are such folders."""
    home = Path.home()
    usual = [Path(), home, home / "Documents", home / "AI", Path("/opt"), Path("/workspace"), Path("C:/")]
    launcher = library_folder()
    return [place for place in (*usual, *([launcher] if launcher else [])) if place.is_dir()]


def ui_at(root: Path, word: str) -> Ui:
    """The UI of `NAME=ROOT`, with NAME a target's id or, where ROOT says which UI it is, anything.

    Raises:
        FolderMissing: there is no such folder. LibraryProblem: nothing in it says which UI it is.
    """
    root = Path(os.path.realpath(from_home(root)))
    if not root.is_dir():
        raise FolderMissing(root)
    target = all_targets().get(word) or target_at(root)
    if target is None:
        known = ", ".join(all_targets())
        raise LibraryProblem(
            word, f"Nothing in {root} says which UI it is.", hint=f"Name it: one of {known}, then =ROOT."
        )
    return _ui(target, root, word)


def _ui(target: Target, root: Path, name: str) -> Ui:
    base = root / target.title if not (root / target.folder).exists() and (root / target.title).is_dir() else root
    try:
        folders, problem = target.lora_folders(base), ""
    except (LibraryProblem, StorageProblem) as error:  # one broken file must not hide the other UIs
        folders, problem = target.usual_folders(base), str(error)
    places = [Path(os.path.realpath(folder)) for folder in folders]
    there = [places[0], *(folder for folder in places[1:] if folder.is_dir())]
    return Ui(name, target.id, target.title, root, _joined(there, lent_to(root)), problem)


def _joined(folders: Iterable[Path], lent: Iterable[Path]) -> tuple[Path, ...]:
    """Each folder once; those lent by a launcher last."""
    return tuple(dict.fromkeys([*folders, *map(Path, map(os.path.realpath, lent))]))


def _walk(folder: Path, depth: int = 0) -> Iterator[Path]:
    if not folder.is_dir():
        return
    yield folder
    if depth == MAX_DEPTH or target_at(folder, strict=True):
        return
    try:
        below = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:  # somebody else's folder
        return
    for entry in below:
        if not entry.name.startswith(".") and entry.name not in _SKIPPED:
            yield from _walk(entry, depth + 1)
