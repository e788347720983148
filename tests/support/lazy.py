"""Between literal tensors and the code's own lazy ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.files import Raw

from hubtool.formats.safetensors import read_safetensors, write_safetensors
from hubtool.formats.tensor import LazyTensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def lazy(tensors: Mapping[str, Raw]) -> dict[str, LazyTensor]:
    """Tensors in memory."""
    return {key: LazyTensor(*raw) for key, raw in tensors.items()}


def literal(tensor: LazyTensor) -> Raw:
    """What a lazy tensor holds."""
    return Raw(tensor.dtype, tensor.shape, bytes(tensor.view()))


def written(path: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None = None) -> Path:
    """A file made by the writer under test."""
    with path.open("wb") as out:
        write_safetensors(out, tensors, metadata or {})
    return path


def contents(path: Path) -> dict[str, Raw]:
    """All tensors of a file, read by the reader under test."""
    return {key: literal(tensor) for key, tensor in read_safetensors(path).tensors.items()}
