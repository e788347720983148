"""The weights of a base model as an adapter's modules need them: whole, in float32, in the module's own shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hubtool.adapters.checkpoint import Checkpoint, read_checkpoint
from hubtool.adapters.tensors import to_torch
from hubtool.errors import IncompatibleCheckpoints
from hubtool.naming.address import Component, ModuleRef

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from hubtool.naming.architecture import Architecture


class BaseWeights:
    """A checkpoint, asked for one module's weight at a time."""

    def __init__(self, checkpoint: Checkpoint, target: Architecture) -> None:
        self._checkpoint, self._target = checkpoint, target

    def weight(self, module: ModuleRef) -> Tensor:
        """A module's weight; that of a fused module is stacked from its parts.

        Raises:
            IncompatibleCheckpoints: the checkpoint lacks it, or has it in another size.
        """
        shape = self._target.shape(module)
        fused = self._target.fused.get(module.path) if module.component is Component.DENOISER else None
        if fused is None:
            weight = self._stored(module)
        else:
            weight = torch.cat([self._stored(ModuleRef(Component.DENOISER, part)) for part in fused.parts])
            weight = weight.roll(weight.shape[0] // 2, 0) if fused.swapped else weight
        if shape is None or weight.shape[0] != shape[0] or weight.numel() != torch.Size(shape).numel():
            name, found = self._checkpoint.path, list(weight.shape)
            message = f"{module.path} is {found} in {name.name}; the adapter was made for {list(shape or ())}."
            raise IncompatibleCheckpoints(name, message)
        return weight.reshape(shape)

    def _stored(self, module: ModuleRef) -> Tensor:
        found = self._checkpoint.weights.get(module)
        if found is None:
            path = self._checkpoint.path
            raise IncompatibleCheckpoints(path, f"{path.name} has no weight for {module.path}.")
        return to_torch(found.tensor).float() * found.scale


def read_base(path: Path, target: Architecture) -> BaseWeights:
    """Open the model that an adapter was made for.

    Raises:
        FileProblem, CheckpointProblem: see `read_checkpoint`.
        IncompatibleCheckpoints: it is of another architecture.
    """
    checkpoint = read_checkpoint(path)
    if target.id not in checkpoint.fits:
        message = f"{path.name} is a {' or '.join(checkpoint.fits)} checkpoint, the adapter was made for {target.id}."
        raise IncompatibleCheckpoints(path, message)
    return BaseWeights(checkpoint.read_as(target.id), target)
