"""Conversions of small adapters there and back, on disk as users do them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from support.effects import difference, effects
from support.files import Raw, write
from support.lazy import contents

from hubtool.operations.convert import Conversion, ConvertOptions, convert

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Trip(NamedTuple):
    """A file's way to another dialect and back."""

    there: Conversion
    back: Conversion
    before: dict[str, Raw]
    between: dict[str, Raw]
    after: dict[str, Raw]
    change: float  # of the effect on the model, on the way there


def round_trip(
    folder: Path,
    tensors: Mapping[str, Raw],
    target: str,
    *,
    metadata: Mapping[str, str] | None = None,
    options: ConvertOptions | None = None,
) -> Trip:
    """Write the tensors, convert them to `target`, and that to the dialect it came from."""
    options = options or ConvertOptions()
    paths = [folder / f"{name}.safetensors" for name in ("before", "there", "back")]
    for path in paths:
        path.unlink(missing_ok=True)
    write(paths[0], tensors, metadata)
    there = convert(paths[0], target, paths[1], options)
    back = convert(paths[1], there.from_, paths[2], ConvertOptions(architecture=options.architecture))
    change = difference(effects(paths[0]), effects(paths[1]))
    return Trip(there, back, dict(tensors), contents(paths[1]), contents(paths[2]), change)
