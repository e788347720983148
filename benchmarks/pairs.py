"""Synthetic pairs of checkpoints in real shapes: a base of noise, and a tuned model whose change has a known spectrum.

The change of each matrix is full-rank noise, as training makes it, plus 96 directions whose singular values fall as i^-0.8 and
cross the edge of the noise at a random rank between 8 and 128: no gap anywhere, which is the hard case.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, NamedTuple

import torch

from hubtool.adapters.tensors import TORCH_DTYPES, from_torch
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import LazyTensor
from hubtool.naming.address import Component
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hubtool.formats.tensor import Shape

DIRECTIONS = 96
NOISE = 3e-4  # of each element of the change
WEIGHT = 0.03  # standard deviation of the base's elements

#: Where each architecture's one-file checkpoint keeps its first text encoder.
_ENCODERS = {"sd1": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}


class Pair(NamedTuple):
    """Two checkpoints of the same keys."""

    base: Path
    tuned: Path


def write_pair(folder: Path, architecture_id: str, dtype: str = "F16") -> Pair:
    """Write `base.safetensors` and `tuned.safetensors`, tensor by tensor, the same on every call."""
    pair = Pair(folder / "base.safetensors", folder / "tuned.safetensors")
    shapes = weights(architecture_id)
    for path, make in ((pair.base, _base), (pair.tuned, _tuned)):
        tensors = {key: LazyTensor(dtype, shape, _later(make, (key, shape, dtype))) for key, shape in shapes.items()}
        with atomic_output(path) as out:
            write_safetensors(out, tensors, {})
    return pair


def weights(architecture_id: str) -> dict[str, Shape]:
    """Key → shape of every weight, denoiser and CLIP-L."""
    target = architecture(architecture_id)
    found = {f"model.diffusion_model.{name}.weight": target.modules[path] for path, name in target.original.items()}
    encoder = target.encoders[Component.CLIP_L]
    return found | {f"{_ENCODERS[architecture_id]}{path}.weight": shape for path, shape in encoder.modules.items()}


def _later(make: Callable[[str, Shape], torch.Tensor], what: tuple[str, Shape, str]) -> Callable[[], memoryview]:
    key, shape, dtype = what
    return lambda: from_torch(make(key, shape).to(TORCH_DTYPES[dtype])).view()


def _generator(key: str, part: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * zlib.crc32(key.encode()) + part)


def _base(key: str, shape: Shape) -> torch.Tensor:
    return torch.randn(shape, generator=_generator(key, 0)).mul_(WEIGHT)


def _tuned(key: str, shape: Shape) -> torch.Tensor:
    # the base as it is stored, so that its rounding is not part of the change
    return _base(key, shape).half().float().add_(_change(key, shape)) if len(shape) > 1 else _base(key, shape)


def _change(key: str, shape: Shape) -> torch.Tensor:
    rows, columns = shape[0], math.prod(shape[1:])
    generator = _generator(key, 1)
    count = min(DIRECTIONS, rows, columns)
    crossing = 8 + 120 * float(torch.rand(1, generator=generator))
    edge = NOISE * (math.sqrt(rows) + math.sqrt(columns))
    values = edge * (torch.arange(1, count + 1) / crossing) ** -0.8
    left = torch.randn(rows, count, generator=generator) / math.sqrt(rows)
    right = torch.randn(count, columns, generator=generator) / math.sqrt(columns)
    change = torch.randn(rows, columns, generator=generator).mul_(NOISE)
    return change.addmm_(left * values, right).reshape(shape)
