"""A project in a temporary folder: settings that ask no hub, its LoRA folder, and what lies there."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hubtool.library.project import Project
from hubtool.library.scan import fresh_index
from hubtool.library.target import choose_place
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.library.target import Place


def opened(root: Path, home: Path | None = None) -> tuple[Settings, Place]:
    """Settings for a library below `root`, and its LoRA folder."""
    home = home or root / "home"
    settings = Settings(Directories(home, home, home), library=root, offline=True)
    return settings, choose_place(settings)


def carried(root: Path, other: Path) -> Path:
    """Manifest and lock brought from one project to another; the other one."""
    other.mkdir(exist_ok=True)
    for name in ("loras.toml", "loras.lock"):
        shutil.copy(root / name, other / name)
    return other


def rebuilt(root: Path, other: Path) -> Place:
    """The LoRA folder of a project that was carried and synced: files are copied, and are there when it is synced again."""
    settings, place = opened(carried(root, other), root / "home")
    for status in ("copied", "present"):
        with fresh_index(settings, print) as index:
            rows = Project(other, settings, place, index, print).sync(frozen=True)
        assert {row.status for row in rows} == {status}
    return place


def files_of(root: Path) -> dict[Path, bytes]:
    """Every file but those of the library's own."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and "home" not in path.parts}
