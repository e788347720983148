"""What adapters change in each tensor of a checkpoint, found from headers alone.

A module's weight is the whole of a stored tensor, or some rows of one that stacks several modules, or one whose halves stand in
the authors' order: `hubtool.adapters.checkpoint_layouts` says which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.checkpoint import same_extent
from hubtool.adapters.checkpoint_layouts import place
from hubtool.errors import IncompatibleAdapters
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.factors import changes_weight
from hubtool.operations.placement import Share, placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.adapters.checkpoint import Checkpoint
    from hubtool.formats.safetensors import SafetensorsFile
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


class _Home(NamedTuple):
    """Where a module's weight or bias is stored."""

    place: tuple[int, str]  # number of the file, key
    start: int  # first row
    shape: tuple[int, ...]
    swapped: bool


_Homes = dict[tuple[ModuleRef, str], _Home]  # by module and kind ("weight", "bias")


def plan_edits(checkpoint: Checkpoint, adapters: Sequence[Weighted]) -> Edits:
    """Every adapter's every change, at the tensor that it belongs to.

    Raises:
        IncompatibleAdapters: a weight of the checkpoint has another shape than an adapter needs.
        BrokenAdapter: a layer's tensors fit no module.
    """
    homes, edits = _homes(checkpoint), Edits()
    for adapter in adapters:
        name = adapter.source.path.name
        for module, shares in placed(adapter.adapter).items():
            strength, home = adapter.strength(module), homes.get((module, "weight"))
            if not strength:
                continue
            if home is None:
                edits.absent.setdefault(name, []).append(module)
                continue
            for share in shares:
                asked = _Asked(module, share, strength, name)
                _add(edits, home, asked)
                _add_bias(edits, homes.get((module, "bias")), asked)
            edits.scales[home.place] = checkpoint.weights[module].scale
    return edits


class _Asked(NamedTuple):
    module: ModuleRef
    share: Share
    strength: float
    file: str


def _add(edits: Edits, home: _Home, asked: _Asked) -> None:
    layer = asked.share.layer
    if not changes_weight(layer):
        edits.unheard[asked.file] = edits.unheard.get(asked.file, 0) + (Role.DIFF_MODULATION in layer.tensors)
        return
    if not same_extent(asked.share.shape, home.shape):
        shapes = f"as {list(asked.share.shape)}, but the checkpoint has {list(home.shape)} there"
        raise IncompatibleAdapters(asked.module.path, f"{asked.file} changes {asked.module.path} {shapes}.")
    edit = Edit(home.start, home.shape[0], asked.share, asked.strength, swapped=home.swapped)
    edits.by_key.setdefault(home.place, []).append(edit)
    edits.modules.add(asked.module)


def _add_bias(edits: Edits, home: _Home | None, asked: _Asked) -> None:
    for role in _BIASES:
        if role not in asked.share.layer.tensors:
            continue
        if home is None or home.shape[0] != asked.share.shape[0]:
            edits.unheard[asked.file] = edits.unheard.get(asked.file, 0) + 1
            continue
        edit = Edit(home.start, home.shape[0], asked.share, asked.strength, role, home.swapped)
        edits.by_key.setdefault(home.place, []).append(edit)
        edits.modules.add(asked.module)


def _homes(checkpoint: Checkpoint) -> _Homes:
    """The tensor and rows of every module that the checkpoint holds; of several copies the one that was read."""
    found: _Homes = {}
    for number, file in enumerate(checkpoint.files):
        folder = _folder(checkpoint, file)
        for key, tensor in file.tensors.items():
            meaning, start = place(checkpoint.architecture, folder + key), 0
            for module in meaning.modules if meaning and tensor.shape else ():
                assert meaning is not None  # noqa: S101  # it has modules
                stored = checkpoint.weights.get(module)
                rows = (
                    (checkpoint.architecture.shape(module) or (0,))[0] if len(meaning.modules) > 1 else tensor.shape[0]
                )
                home = _Home((number, key), start, (rows, *tensor.shape[1:]), meaning.swapped)
                start += rows
                if stored is not None:
                    found.setdefault((module, meaning.kind), home)
    return found


def _folder(checkpoint: Checkpoint, file: SafetensorsFile) -> str:
    """What stands for a pipeline's folder in front of a key."""
    inside = checkpoint.path.is_dir() and file.path.parent != checkpoint.path
    return f"{file.path.parent.name}/" if inside else ""
