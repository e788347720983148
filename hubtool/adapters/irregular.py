"""What can be irregular about an adapter that any careful reader still understands; `normalize` mends it, `validate` notes it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.dialect import dialect
from hubtool.naming.suffixes import SplitKey, split_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor
    from hubtool.naming.spelling import Reader

#: Dialects whose writers always store alpha. Elsewhere it is stored for all modules or for none.
_ALWAYS = frozenset({"kohya", "onetrainer", "lycoris", "hunyuan"})
_SCALED = frozenset({"lora", "loha", "lokr"})  # families whose scale is alpha / rank and is 1 without alpha
_INTEGERS = frozenset({"U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"})


def is_ambiguous(adapter: Adapter) -> bool:
    """Whether neither keys nor metadata say which of several architectures is meant."""
    best = adapter.identification.best
    return adapter.identification.ambiguous and not (best and best.hint)


def lacking_alpha(adapter: Adapter) -> list[ModuleRef]:
    """Modules without alpha in a dialect that has it always, or among modules that have it."""
    if not adapter.dialect or not dialect(adapter.dialect).says(Role.ALPHA):
        return []
    scaled = {module: layer for module, layer in adapter.layers.items() if _is_scaled(layer)}
    lacking = [module for module, layer in scaled.items() if layer.tensors.keys().isdisjoint({Role.ALPHA, Role.SCALE})]
    some = any(Role.ALPHA in layer.tensors for layer in scaled.values())
    return lacking if some or adapter.dialect in _ALWAYS else []


def _is_scaled(layer: Layer) -> bool:
    kind = layer.parametrization
    return kind is not None and kind.id in _SCALED and bool(layer.rank) and not kind.missing(layer.shapes)


def has_integer_alpha(layer: Layer) -> bool:
    """An alpha that diffusers' loaders refuse because it is no float."""
    tensor = layer.tensors.get(Role.ALPHA)
    return tensor is not None and tensor.dtype in _INTEGERS


def has_shaped_alpha(layer: Layer) -> bool:
    """An alpha of shape (1) or (1, 1) instead of none."""
    tensor = layer.tensors.get(Role.ALPHA)
    return tensor is not None and bool(tensor.shape) and math.prod(tensor.shape) == 1


def misspelt(adapter: Adapter, keys: Mapping[LazyTensor, str]) -> list[ModuleRef]:
    """Modules whose keys are not spelt as the adapter's dialect has them: those of another dialect, and malformed ones."""
    tables = dialect(adapter.dialect).readers(adapter.architecture) if adapter.dialect else ()
    found = []
    for module, layer in adapter.layers.items():
        cuts = [split_key(keys[tensor]) for tensor in layer.tensors.values()]
        if not any(all(cut and _reads(row, cut, module) for cut in cuts) for row in tables):
            found.append(module)
    return found


def _reads(row: Reader, cut: SplitKey, module: ModuleRef) -> bool:
    suffixes = (suffix for known in row.spelling.suffixes.values() for suffix in known)
    rest = cut.base[len(row.prefix) :]
    return cut.base.startswith(row.prefix) and row.paths.get(rest) == module and cut.suffix in suffixes
