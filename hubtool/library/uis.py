"""UIs on this machine: found by the files that only they have, and remembered under a name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.library.model_paths import NAME as MODEL_PATHS
from hubtool.library.model_paths import lora_folders
from hubtool.library.target import all_targets, target_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    """The UIs in these folders and up to three levels below; those that are known have their names."""
    names = {ui.root: ui.name for ui in known_uis(settings)}
    found: dict[Path, Ui] = {}
    for place in places:
        for folder in _walk(Path(os.path.realpath(place.expanduser()))):
            target = target_at(folder)
            if target:
                found[folder] = _ui(target, folder, names.get(folder, ""))
    inside = {folder for folder in found for other in found if other != folder and folder in other.parents}
    # a launcher's folder that only contains the real one: Fooocus_win64/Fooocus
    return [ui for folder, ui in sorted(found.items()) if folder not in inside or target_at(folder, strict=True)]


def target_at(folder: Path, *, strict: bool = False) -> Target | None:
    """Which UI a folder holds; `strict`: itself, not in a folder of the UI's name below."""
    # SD.Next and Forge have A1111's files too, so it comes last
    for target in sorted(all_targets().values(), key=lambda target: target.id == "a1111"):
        for row in target.markers:
            if all((folder / marker).exists() for marker in row) and not (strict and "/" in row[0]):
                return target
    return None


def usual_places() -> list[Path]:
    """Where people put UIs."""
    home = Path.home()
    return [Path(), home, home / "Documents", home / "AI", Path("/opt"), Path("/workspace"), Path("C:/")]


def ui_at(root: Path, word: str) -> Ui:
    """The UI of `NAME=ROOT`, with NAME a target's id or, where ROOT says which UI it is, anything.

    Raises:
        StorageProblem: there is no such folder. LibraryProblem: nothing in it says which UI it is.
    """
    root = Path(os.path.realpath(root.expanduser()))
    if not root.is_dir():
        raise StorageProblem(root, "is no folder")
    target = all_targets().get(word) or target_at(root)
    if target is None:
        known = ", ".join(all_targets())
        raise LibraryProblem(
            word, f"Nothing in {root} says which UI it is.", hint=f"Name it: one of {known}, then =ROOT."
        )
    return _ui(target, root, word)


def _ui(target: Target, root: Path, name: str) -> Ui:
    base = root / target.title if not (root / target.folder).exists() and (root / target.title).is_dir() else root
    own = [base / folder for folder in (target.folder, *target.also_read)]
    extra = lora_folders(base / MODEL_PATHS) if target.id == "comfyui" else []
    folders = [own[0], *(folder for folder in [*own[1:], *extra] if folder.is_dir())]
    return Ui(name, target.id, target.title, root, tuple(folders))


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
