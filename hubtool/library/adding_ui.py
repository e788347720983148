"""A UI made known: its name in the config, its LoRA folders in the index."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import FolderMissing, UsageProblem
from hubtool.library.configuration import config_path, set_setting
from hubtool.library.index import Index
from hubtool.library.model_paths import NAME, add_lora_folder, with_lora_folder
from hubtool.library.record import Folder
from hubtool.library.uis import owner_of, target_at, ui_at
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.library.uis import Ui
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Addition:
    """A UI to be made known."""

    text: str  # NAME=ROOT
    share: Path | None = None  # a LoRA folder that it shall read, too
    dry_run: bool = False


def added_ui(settings: Settings, config: Path | None, addition: Addition, say: Callable[[str], None]) -> Ui:
    """Make a UI known; with `share`, let it read another LoRA folder, too.

    Raises:
        UsageProblem: no `=`, or a UI that cannot share. FolderMissing, LibraryProblem: no such folder, or no UI in it.
        StorageProblem: the disk refuses.
    """
    name, equals, root = addition.text.partition("=")
    if not equals or not name or not root:
        raise UsageProblem(f"Write NAME=ROOT, such as comfyui=~/ComfyUI: {addition.text}")
    found = ui_at(Path(root), name)
    looks = target_at(found.root)
    if looks and looks.id != found.target:
        say(f"The files in {found.root} are those of {looks.title}, not of {found.title}.")
    if addition.share is not None:
        found = _sharing(found, addition.share, addition, say)
    if not addition.dry_run:
        set_setting(config_path(config), f"uis.{name}", f"{found.target}={found.root}")
        with Index(settings.index_path) as index, index.writing():
            known = {folder.path: folder.target for folder in index.folders()}
            for place in found.folders:
                if place.is_dir():
                    index.remember(Folder(place, _owner(found, place, known)))
    return found


def _sharing(ui: Ui, share: Path, addition: Addition, say: Callable[[str], None]) -> Ui:
    """The UI as it is once it reads another folder, which its file then names."""
    if ui.target != "comfyui":
        raise UsageProblem(f"{ui.title} has no file for further folders; `--share` is for ComfyUI.")
    folder, path = Path(os.path.realpath(from_home(share))), ui.root / NAME
    if not folder.is_dir():
        raise FolderMissing(folder)
    if addition.dry_run:
        if with_lora_folder(path, folder) is not None:
            say(f"Would add {folder} to {path}.")
        return replace(ui, folders=tuple(dict.fromkeys([*ui.folders, folder])))
    if add_lora_folder(path, folder):
        say(f"Added {folder} to {path}.")
    return ui_at(ui.root, ui.name)


def _owner(ui: Ui, folder: Path, known: Mapping[Path, str]) -> str:
    """The target of one of a UI's folders: what lies in another UI is that one's, and this one merely reads it."""
    if ui.root in folder.parents:
        return ui.target
    if owner := owner_of(folder):
        return owner.id
    return ui.target if folder == ui.folders[0] else known.get(folder, ui.target)
