"""Two small checkpoints to extract a LoRA from: Stable Diffusion 1.5's names and shapes, a few of its modules, noise for values.

The tuned one differs from the base by updates of a known rank, so that what an extraction finds can be judged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import from_torch, to_torch
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import read_safetensors, write_safetensors
from hubtool.hubs.sample.recipe import noise
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubtool.formats.tensor import LazyTensor, Shape

RANK = 4  # of each update
_PRESENT = re.compile(  # modules, by the checkpoint's own names
    r"model\.diffusion_model\.input_blocks\.1\.1\..*"
    r"|model\.diffusion_model\.input_blocks\.1\.0\.in_layers\.2"
    r"|cond_stage_model\.transformer\.text_model\.encoder\.layers\.0\.self_attn\.[qv]_proj"
)
_TUNED = re.compile(r".*\.attn[12]\..*|.*\.in_layers\.2|.*\.self_attn\..*")  # the feed-forward layers stay as they are
_UPDATE_BOUND = 1 / 8  # of each factor; the update is then about a third of the weight


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the two lie."""

    base: Path
    tuned: Path


def write_pair(folder: Path) -> Pair:
    """Write `base.safetensors` and `tuned.safetensors` (F16, 7 MB each); needs torch for the sums.

    Raises:
        OutputExists, StorageProblem: from the disk.
    """
    pair = Pair(folder / "base.safetensors", folder / "tuned.safetensors")
    base = {f"{name}.weight": _weight(name, shape) for _, name, shape in _modules()}
    tuned = {key: _updated(key, weight) if _TUNED.fullmatch(key) else weight for key, weight in base.items()}
    for path, tensors in ((pair.base, base), (pair.tuned, tuned)):
        with atomic_output(path) as out:
            write_safetensors(out, tensors, {"modelspec.architecture": "stable-diffusion-v1"})
    return pair


class _Module(NamedTuple):
    ref: ModuleRef
    name: str  # in the checkpoint
    shape: Shape


def _modules() -> Iterator[_Module]:
    """What the two hold: matrices and convolutions only."""
    target = architecture("sd1")
    for path, name in target.original.items():
        yield from _wanted(ModuleRef(Component.DENOISER, path), f"model.diffusion_model.{name}", target.modules[path])
    for path, shape in target.encoders[Component.CLIP_L].modules.items():
        yield from _wanted(ModuleRef(Component.CLIP_L, path), f"cond_stage_model.transformer.{path}", shape)


def _wanted(ref: ModuleRef, name: str, shape: Shape) -> Iterator[_Module]:
    if len(shape) > 1 and _PRESENT.fullmatch(name):
        yield _Module(ref, name, shape)


def _weight(name: str, shape: Shape) -> LazyTensor:
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return noise(f"checkpoint/{name}", shape, (-bound, bound))


def _updated(key: str, weight: LazyTensor) -> LazyTensor:
    """The weight plus a product of two thin matrices, rounded to F16 as a trainer would store it."""
    rows, columns = weight.shape[0], math.prod(weight.shape[1:])
    bounds = (-_UPDATE_BOUND, _UPDATE_BOUND)
    up = to_torch(noise(f"{key}/up", (rows, RANK), bounds)).float()
    down = to_torch(noise(f"{key}/down", (RANK, columns), bounds)).float()
    values = to_torch(weight)
    return from_torch((values.float() + (up @ down).reshape(values.shape)).to(values.dtype))


def missed(pair: Pair, lora: Path) -> float:
    """How much of the difference between the two a LoRA lacks: ‖ΔW − BA‖ / ‖ΔW‖ over all modules, in float32.

    Raises:
        FileProblem, AdapterProblem, NamingProblem: the LoRA cannot be read.
    """
    layers = read_adapter(lora, architecture_id="sd1").layers
    base, tuned = read_safetensors(pair.base).tensors, read_safetensors(pair.tuned).tensors
    lacking = whole = 0.0
    for module, name, shape in _modules():
        key = f"{name}.weight"
        difference = to_torch(tuned[key]).float() - to_torch(base[key]).float()
        whole += float(difference.square().sum())
        if module in layers:
            difference -= layers[module].delta(shape).reshape(shape)
        lacking += float(difference.square().sum())
    return math.sqrt(lacking / whole)
