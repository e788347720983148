"""Tensors of a file gathered by what stands before the suffix, before anyone knows what it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.layer import Layer, extent_of
from hubtool.naming.address import Role
from hubtool.naming.identify import Group
from hubtool.naming.suffixes import ROLE_OF, SplitKey, split_key
from hubtool.naming.traversal import PER_BLOCK, number_of, older

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.formats.tensor import LazyTensor

_IA3 = ".weight"


class Grouped(NamedTuple):
    """All tensors of a file: by base, and those whose key ends in no adapter's suffix."""

    tensors: Mapping[str, Mapping[str, LazyTensor]]  # base → suffix → tensor
    keys: Mapping[tuple[str, str], str]  # (base, suffix) → key in the file
    others: Mapping[str, LazyTensor]
    groups: Sequence[Group]  # what identification needs to know of each base

    @property
    def size(self) -> int:
        """Number of tensors that may belong to an adapter."""
        return len(self.keys)


def group_tensors(tensors: Mapping[str, LazyTensor]) -> Grouped:
    """Gather tensors by base. `.weight` counts only where `.on_input` shows that it is (IA)³ and no plain weight."""
    found: dict[str, dict[str, LazyTensor]] = {}
    keys: dict[tuple[str, str], str] = {}
    others: dict[str, LazyTensor] = {}
    for key, tensor in tensors.items():
        cut = _cut(key, tensors)
        if cut is None:
            others[key] = tensor
            continue
        if (cut.base, cut.suffix) in keys:  # two adapter names of one PEFT model
            others[key] = tensor
            continue
        found.setdefault(cut.base, {})[cut.suffix] = tensor
        keys[cut.base, cut.suffix] = key
    if renumbered := _renumbered(found):
        found = {renumbered.get(base, base): rows for base, rows in found.items()}
        keys = {(renumbered.get(base, base), suffix): key for (base, suffix), key in keys.items()}
    groups = [
        Group(base, frozenset(rows), extent_of({ROLE_OF[suffix]: tensor.shape for suffix, tensor in rows.items()}))
        for base, rows in found.items()
    ]
    return Grouped(found, keys, others, groups)


def _renumbered(found: Mapping[str, Mapping[str, LazyTensor]]) -> dict[str, str]:
    """Numbers of modules (see `traversal`) in the older order, if gates in the places of the newer show that it was used."""
    numbers = {base: number for base in found if base.startswith("unet:") and (number := number_of(base)) is not None}
    gates = {number % PER_BLOCK for base, number in numbers.items() if _is_gate(found[base])}
    if gates != {PER_BLOCK - 1}:
        return {}
    return {base: f"unet:{older(number)}" for base, number in numbers.items()}


def _is_gate(rows: Mapping[str, LazyTensor]) -> bool:
    """Whether these factors change a gated feed-forward's first layer, the only one with eight outputs for each input."""
    up, down = (rows[suffix].shape if suffix in rows else () for suffix in (":up", ":down"))
    return len(up) == len(down) == 2 and up[0] == 8 * down[1]


def _cut(key: str, tensors: Mapping[str, LazyTensor]) -> SplitKey | None:
    """The key before its suffix; (IA)³'s `.weight` goes before longer ones, for a module may be called `mlp.up`."""
    if key.endswith(_IA3) and f"{key[: -len(_IA3)]}.on_input" in tensors:
        return SplitKey(key[: -len(_IA3)], _IA3)
    cut = split_key(key)
    return None if cut is None or cut.suffix == _IA3 else cut


def layer_of(base: str, rows: Mapping[str, LazyTensor]) -> Layer:
    """The layer that a group of suffixes makes; of two that mean the same role the first counts."""
    tensors: dict[Role, LazyTensor] = {}
    for suffix, tensor in rows.items():
        tensors.setdefault(ROLE_OF[suffix], tensor)
    return Layer(tensors, base)


def is_lone_scale(rows: Mapping[str, LazyTensor]) -> bool:
    """A `.scale` or `.alpha` without anything it could scale."""
    return {ROLE_OF[suffix] for suffix in rows} <= {Role.SCALE, Role.ALPHA}
