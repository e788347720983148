"""What a sample LoRA is made of, and its tensors: real keys and shapes of an architecture, values that are only noise.

The same recipe gives the same bytes on every machine: the noise is SHAKE-128 of the tensor's name, turned into half-precision
numbers by a table, so that no torch and no numpy is needed and a megabyte takes milliseconds.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import encode
from hubtool.adapters.layer import Layer
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Role
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubtool.formats.tensor import Shape
    from hubtool.naming.address import ModuleRef

_UP_BOUND = 1 / 16  # so that the smallest values can still be halved without a loss
_MAGNITUDES = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which modules are adapted, and how."""

    architecture: str
    dialect: str
    bases: str  # regular expression of what stands before the suffix, for the modules that are adapted
    rank: int = 1
    alpha: float | None = None  # None: the dialect has no alpha tensors
    dora: bool = False  # with a magnitude per output row, as LyCORIS >= 3.2 writes it


def tensors_of(recipe: Recipe, seed: str) -> Mapping[str, LazyTensor]:
    """Key → tensor, F16; `seed` sets files of one recipe apart."""
    target = architecture(recipe.architecture)
    layers = {
        module: Layer(dict(_layer(recipe, shape, f"{seed}/{base}"))) for module, base, shape in _bases(recipe, target)
    }
    return encode(Adapter(target, layers), recipe.dialect)


def _bases(recipe: Recipe, target: Architecture) -> Iterator[tuple[ModuleRef, str, Shape]]:
    """The modules that are adapted, how the dialect spells them, and their weights' shapes."""
    wanted = re.compile(recipe.bases)
    for module, base in dialect(recipe.dialect).written(target).items():
        shape = target.shape(module)
        if shape is not None and len(shape) > 1 and wanted.fullmatch(base):  # one dimension: a norm
            yield module, base, shape


def _layer(recipe: Recipe, shape: Shape, label: str) -> Iterator[tuple[Role, LazyTensor]]:
    """The tensors of one module: `down` carries the kernel, `up` is 1×1."""
    rows, *columns = shape
    ones = (1,) * (len(columns) - 1)
    bound = 1 / math.sqrt(math.prod(columns))
    yield Role.DOWN, noise(f"{label}/down", (recipe.rank, *columns), (-bound, bound))
    yield Role.UP, noise(f"{label}/up", (rows, recipe.rank, *ones), (-_UP_BOUND, _UP_BOUND))
    if recipe.alpha is not None:
        yield Role.ALPHA, scalar_tensor(recipe.alpha, "F16")
    if recipe.dora:
        yield Role.MAGNITUDE, noise(f"{label}/magnitude", (rows, 1, *ones), _MAGNITUDES)


def noise(label: str, shape: Shape, bounds: tuple[float, float]) -> LazyTensor:
    """Numbers spread evenly between two bounds."""
    raw = bytearray(hashlib.shake_128(label.encode()).digest(2 * math.prod(shape)))
    raw[1::2] = raw[1::2].translate(_upper_bytes(*bounds))
    return LazyTensor("F16", shape, bytes(raw))


@lru_cache(maxsize=64)
def _upper_bytes(low: float, high: float) -> bytes:
    """Random byte → sign, exponent and first mantissa bits of an F16 between the bounds; the lower byte may be anything."""
    steps = (low + (high - low) * (number + 0.5) / 256 for number in range(256))
    return bytes(struct.pack("<e", value)[1] for value in steps)
