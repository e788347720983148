"""Modules that a file holds twice, under two spellings: copies that are equal add nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from hubtool.naming.address import ModuleRef

if TYPE_CHECKING:
    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.tensor import LazyTensor

_BLOCK = 1 << 20


def equal_duplicates(adapter: Adapter) -> tuple[str, ...]:
    """Keys that name a tensor a second time and hold the same bytes; reads both."""
    found = []
    for key, address in adapter.duplicates.items():
        first = adapter.layers[ModuleRef(address.component, address.module)].tensors[address.role]
        if _equal(first, adapter.leftovers[key]):
            found.append(key)
    return tuple(found)


def without_duplicates(adapter: Adapter, keys: tuple[str, ...]) -> Adapter:
    """The adapter without these second copies."""
    left = {key: tensor for key, tensor in adapter.leftovers.items() if key not in keys}
    rest = {key: address for key, address in adapter.duplicates.items() if key not in keys}
    return replace(adapter, leftovers=left, duplicates=rest)


def _equal(first: LazyTensor, second: LazyTensor) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return all(a == b for a, b in zip_longest(first.blocks(_BLOCK), second.blocks(_BLOCK)))
