"""A UI made known: its name in the config, its LoRA folders in the index."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.library.configuration import config_path, set_setting
from hubtool.library.index import Index
from hubtool.library.model_paths import NAME, add_lora_folder
from hubtool.library.record import Folder
from hubtool.library.uis import ui_at
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubtool.library.uis import Ui
    from hubtool.settings import Settings


def added_ui(settings: Settings, config: Path | None, text: str, share: Path | None, say: Callable[[str], None]) -> Ui:
    """Make the UI of `NAME=ROOT` known; with `share`, let it read another LoRA folder, too.

    Raises:
        UsageProblem: no `=`, or a UI that cannot share. StorageProblem, LibraryProblem: no such folder, or no UI in it.
    """
    name, equals, root = text.partition("=")
    if not equals or not name or not root:
        raise UsageProblem(f"Write NAME=ROOT, such as comfyui=~/ComfyUI: {text}")
    found = ui_at(Path(root), name)
    if share is not None:
        if found.target != "comfyui":
            raise UsageProblem(f"{found.title} has no file for further folders; `--share` is for ComfyUI.")
        folder = Path(os.path.realpath(from_home(share)))
        if add_lora_folder(found.root / NAME, folder):
            say(f"Added {folder} to {found.root / NAME}.")
        found = ui_at(Path(root), name)
    set_setting(config_path(config), f"uis.{name}", f"{found.target}={found.root}")
    with Index(settings.index_path) as index, index.writing():
        for folder in found.folders:
            if folder.is_dir():
                index.remember(Folder(Path(os.path.realpath(folder)), found.target))
    return found
