"""What adapters change in each tensor of a checkpoint, found from headers alone.

A module's weight is a byte range of a file, whatever the layout: the whole of one tensor, or some rows of one that stacks several
modules. Which tensor it is shows in the position, so that no layout has to be known here.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.checkpoint import Weight, same_extent
from hubtool.errors import IncompatibleAdapters
from hubtool.formats.tensor import FileBytes
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.factors import changes_weight
from hubtool.operations.placement import Share, placed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.adapters.checkpoint import Checkpoint
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.sources import Weighted

_BIASES = (Role.DIFF_BIAS, Role.UP_BIAS, Role.NORM_BIAS)


class Edit(NamedTuple):
    """One adapter's change of some rows of a stored tensor."""

    start: int  # first row
    rows: int
    share: Share
    strength: float
    bias: Role | None = None  # the bias's change rather than the weight's
    swapped: bool = False  # the tensor has the module's halves in the authors' order


@dataclass(slots=True)
class Edits:
    """All changes of a checkpoint: by file and key, and what found no place."""

    by_key: dict[tuple[int, str], list[Edit]] = field(default_factory=dict)
    scales: dict[tuple[int, str], float] = field(default_factory=dict)  # of scaled float8 tensors
    modules: set[ModuleRef] = field(default_factory=set)
    absent: dict[str, list[ModuleRef]] = field(default_factory=dict)  # file name → modules the checkpoint lacks
    unheard: dict[str, int] = field(default_factory=dict)  # file name → biases and modulations that have no place


class _Found(NamedTuple):
    weight: Weight
    swapped: bool


def plan_edits(checkpoint: Checkpoint, adapters: Sequence[Weighted]) -> Edits:
    """Every adapter's every change, at the tensor that it belongs to.

    Raises:
        IncompatibleAdapters: a weight of the checkpoint has another shape than an adapter needs.
        BrokenAdapter: a layer's tensors fit no module.
    """
    finder, swapped = _Finder(checkpoint.files), _swapped(checkpoint)
    edits = Edits()
    for adapter in adapters:
        for module, shares in placed(adapter.adapter).items():
            strength = adapter.strength(module)
            if not strength:
                continue
            plain = checkpoint.weights.get(module)
            found = _Found(plain, swapped=False) if plain else swapped.get(module)
            if found is None:
                edits.absent.setdefault(adapter.source.path.name, []).append(module)
                continue
            for share in shares:
                _add(edits, finder, found, (module, share, strength), adapter.source.path.name)
                _add_bias(edits, finder, checkpoint, (module, share, strength), adapter.source.path.name)
    return edits


def weight_of(checkpoint: Checkpoint, source: ModuleRef) -> list[tuple[Weight, bool]]:
    """The weights that a module stacks, in order, and whether each has its halves in the authors' order."""
    if source in checkpoint.weights:
        return [(checkpoint.weights[source], False)]
    swapped = _swapped(checkpoint)
    if source in swapped:
        return [tuple(swapped[source])]  # type: ignore[list-item]  # a pair of these two
    fused = checkpoint.architecture.fused.get(source.path)
    parts = [ModuleRef(Component.DENOISER, path) for path in fused.parts] if fused else []
    found = [checkpoint.weights.get(part) for part in parts]
    return [(weight, False) for weight in found if weight] if all(found) else []


Asked = tuple[ModuleRef, Share, float]


def _add(edits: Edits, finder: _Finder, found: _Found, asked: Asked, name: str) -> None:
    module, share, strength = asked
    stored = found.weight.tensor
    if not changes_weight(share.layer):
        unheard = Role.DIFF_MODULATION in share.layer.tensors
        edits.unheard[name] = edits.unheard.get(name, 0) + unheard
        return
    if not same_extent(share.shape, stored.shape):
        message = (
            f"{name} changes {module.path} as {list(share.shape)}, but the checkpoint has {list(stored.shape)} there."
        )
        raise IncompatibleAdapters(module.path, message)
    place, row = finder.locate(stored)
    edits.by_key.setdefault(place, []).append(Edit(row, stored.shape[0], share, strength, swapped=found.swapped))
    edits.scales[place] = found.weight.scale
    edits.modules.add(module)


def _add_bias(edits: Edits, finder: _Finder, checkpoint: Checkpoint, asked: Asked, name: str) -> None:
    module, share, strength = asked
    for role in _BIASES:
        if role not in share.layer.tensors:
            continue
        stored = checkpoint.biases.get(module)
        if stored is None or stored.shape[0] != share.shape[0]:
            edits.unheard[name] = edits.unheard.get(name, 0) + 1
            continue
        place, row = finder.locate(stored)
        edits.by_key.setdefault(place, []).append(Edit(row, stored.shape[0], share, strength, role))
        edits.modules.add(module)


def _swapped(checkpoint: Checkpoint) -> dict[ModuleRef, _Found]:
    """Weights under the authors' name whose halves diffusers has the other way round."""
    found = {}
    for name, fused in checkpoint.architecture.fused.items():
        if fused.swapped:
            for key, tensor in checkpoint.others.items():
                if key.endswith(f"{name}.weight"):
                    found[ModuleRef(Component.DENOISER, fused.parts[0])] = _Found(Weight(tensor), swapped=True)
    return found


class _Finder:
    """Which tensor of which file holds a byte."""

    def __init__(self, files: Sequence[SafetensorsFile]) -> None:
        self._index = {id(file.file): number for number, file in enumerate(files)}
        self._keys = [_sorted_keys(file.tensors) for file in files]

    def locate(self, tensor: LazyTensor) -> tuple[tuple[int, str], int]:
        """((number of the file, key), first row) of a tensor that is all or some rows of a stored one."""
        data = tensor.data
        assert isinstance(data, FileBytes)  # noqa: S101  # a checkpoint's tensors lie in its files
        number = self._index[id(data.file)]
        starts, keys = self._keys[number]
        at = bisect_right(starts, data.start) - 1
        row_bytes = tensor.nbytes // tensor.shape[0]
        return (number, keys[at]), (data.start - starts[at]) // row_bytes


def _sorted_keys(tensors: Mapping[str, LazyTensor]) -> tuple[list[int], list[str]]:
    rows = sorted((t.data.start, key) for key, t in tensors.items() if isinstance(t.data, FileBytes) and t.nbytes)
    return [start for start, _ in rows], [key for _, key in rows]
