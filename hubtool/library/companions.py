"""What belongs to a model: the files beside it that carry its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem
from hubtool.library.history import SUFFIX as HISTORY
from hubtool.library.sidecar import all_sidecars, fill, read_table
from hubtool.library.sidecars.preview import existing_preview

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODELS = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl"})
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".avif", ".jxl", ".mp4", ".webm")
_INFIXES = ("", ".preview", ".thumb", *(f".example.{number}" for number in range(10)))
# A1111's description, and what Civitai Browser and sd-model-hub leave
_TEXTS = (".txt", ".description.txt", ".html", ".sdmodelhub.json", ".yaml", HISTORY)


def companions(model: Path) -> list[Path]:
    """The sidecars and pictures of a model, by name; none that another model of the folder has a better claim to.

    Raises:
        StorageProblem: the folder cannot be read.
    """
    try:
        names = {entry.name for entry in model.parent.iterdir() if entry.name.startswith(f"{model.stem}.")}
    except OSError as error:
        raise StorageProblem(model.parent, error.strerror or "cannot be read") from error
    names.discard(model.name)
    rivals = {name.rpartition(".")[0] for name in names if f".{name.rpartition('.')[2].lower()}" in MODELS}
    if model.stem in rivals:  # ink.safetensors and ink.pt: what lies beside them is of both
        return []
    found = (name for name in names if name[len(model.stem) :].lower() in _suffixes())
    return sorted(model.with_name(name) for name in found if not any(name.startswith(f"{rival}.") for rival in rivals))


def _suffixes() -> frozenset[str]:
    pictures = (infix + extension for infix in _INFIXES for extension in _PICTURES)
    return frozenset([*(sidecar.suffix for sidecar in all_sidecars().values()), *_TEXTS, *pictures])


def say_new_place(model: Path) -> None:
    """Correct the sidecars that say where their model lies.

    Raises:
        StorageProblem: one cannot be written.
    """
    for sidecar, fields in _placed(model):
        path = sidecar
        fill(path, fields, placed=tuple(fields))


def _placed(model: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    picture = existing_preview(model)
    values: dict[str, object] = {
        "file_name": model.stem,
        "file_path": model.as_posix(),
        "preview_url": picture.as_posix() if picture else "",
    }
    for sidecar in all_sidecars().values():
        path = sidecar.path(model)
        if sidecar.placed and read_table(path) is not None:
            yield path, {key: values[key] for key in sidecar.placed}
