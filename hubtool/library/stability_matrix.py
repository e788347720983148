"""Stability Matrix: a launcher that keeps UIs in `Packages` and lends them all its `Models/Lora` and `Models/LyCORIS`.

Its `settings.json` lists the packages; `library.json` in the user's application data says where that is. A package shares by
links in its models folder or by an entry in the UI's own settings, and not at all with `None`. Source:
LykosAI/StabilityMatrix Core/Models/Settings/Settings.cs, InstalledPackage.cs, SharedFolderMethod.cs.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from hubtool.settings import from_home

NAMES = ("Lora", "LyCORIS")  # both go to every UI's LoRA folder
MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Package:
    """A UI that Stability Matrix installed."""

    root: Path
    shared: tuple[Path, ...]  # the launcher's LoRA folders that it reads; none if it was told not to


def packages_of(folder: Path) -> list[Package]:
    """The UIs of the library in this folder; none if it is none."""
    table = _table(folder / "settings.json")
    listed = table.get("InstalledPackages")
    if not isinstance(listed, list):
        return []
    override = table.get("ModelDirectoryOverride")
    models = folder / override if isinstance(override, str) and override else folder / "Models"
    shared = tuple(place for name in NAMES if (place := models / name).is_dir())
    found = []
    for entry in listed:
        root = _root(folder, entry) if isinstance(entry, dict) else None
        if root is not None and root.is_dir():
            found.append(Package(root, () if entry.get("PreferredSharedFolderMethod") == "None" else shared))
    return found


def lent_to(root: Path) -> tuple[Path, ...]:
    """The LoRA folders that the launcher lends to the UI in this folder (links resolved); none if it keeps no such UI."""
    elsewhere = library_folder()
    for library in [*root.parents[:2], *([elsewhere] if elsewhere else [])]:  # Packages/NAME
        for package in packages_of(library):
            if Path(os.path.realpath(package.root)) == root:
                return package.shared
    return ()


def library_folder() -> Path | None:
    """Where this user's library lies, if it is not where people usually look."""
    for variable, default in (("APPDATA", ""), ("XDG_CONFIG_HOME", "~/.config"), ("", "~/Library/Application Support")):
        place = os.environ.get(variable) or default
        said = _table(from_home(place) / "StabilityMatrix" / "library.json").get("LibraryPath") if place else None
        if isinstance(said, str) and Path(said).is_dir():
            return Path(said)
    return None


def _root(library: Path, entry: dict[str, object]) -> Path | None:
    """`LibraryPath` below the library, written on Windows as often as not; `Path` is what old versions had."""
    inside, old = entry.get("LibraryPath"), entry.get("Path")
    if isinstance(inside, str) and inside:
        return library / inside.replace("\\", "/")
    return Path(old) if isinstance(old, str) and old else None


def _table(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty for anything else, which is no Stability Matrix then."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            return {}
        table = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
