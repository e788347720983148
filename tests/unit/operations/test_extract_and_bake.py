"""Extracting and baking undo each other: a tuned model comes back from its LoRA, a LoRA from the model it is baked into."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from support.changes import CROSS, KERNEL, LINEAR, POINT, lora, write_adapter
from support.checkpoints import small_model, tuned, write_ldm

from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import to_torch
from hubtool.operations.bake import BakeOptions, bake
from hubtool.operations.extract import ExtractOptions, extract
from hubtool.operations.sources import Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.naming.address import ModuleRef

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
RANKS = {LINEAR: 6, CROSS: 3, POINT: 9, KERNEL: 5}


def weights(path: Path) -> dict[ModuleRef, torch.Tensor]:
    """Every weight in float64."""
    return {module: to_torch(weight.tensor).double() for module, weight in read_checkpoint(path).weights.items()}


def deltas(path: Path, like: Mapping[ModuleRef, torch.Tensor]) -> dict[ModuleRef, torch.Tensor]:
    """What a LoRA adds to each weight, float64."""
    return {m: layer.delta(tuple(like[m].shape)).double() for m, layer in read_adapter(path).layers.items()}


def written(tmp_path: Path, name: str, model: Mapping[ModuleRef, torch.Tensor], dtype: str) -> Path:
    return write_ldm(tmp_path / f"{name}.safetensors", {m: w.to(DTYPES[dtype]) for m, w in model.items()})


def distance(first: Mapping[ModuleRef, torch.Tensor], second: Mapping[ModuleRef, torch.Tensor]) -> float:
    return math.sqrt(sum(float((first[m] - second[m]).square().sum()) for m in first))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tuned_model_comes_back_within_the_reported_error(tmp_path: Path, dtype: str) -> None:
    before = {module: weight.float() for module, weight in small_model().items()}
    base = written(tmp_path, "base", before, dtype)
    aim = written(tmp_path, "tuned", tuned(before, rank=40, size=3e-3, noise=1e-3), dtype)
    found = extract(aim, base, tmp_path / "lora.safetensors", ExtractOptions(rank=16, conv_rank=16, dtype="F32"))
    bake(base, [Source(found.output)], tmp_path / "back.safetensors", BakeOptions())
    targets = set(deltas(found.output, weights(base)))
    start, wanted, back = ({m: weights(p)[m] for m in targets} for p in (base, aim, tmp_path / "back.safetensors"))
    assert found.relative_error is not None
    assert 0.1 < found.relative_error < 0.9
    rounding = {"F16": 2.0**-11, "BF16": 2.0**-8, "F32": 2.0**-24}[dtype] * distance(
        back, {m: 0 * w for m, w in back.items()}
    )
    error = distance(wanted, back)
    reported = found.relative_error * distance(wanted, start)
    assert 0.999 * reported - rounding <= error <= math.hypot(1.001 * reported, rounding)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_baked_lora_comes_back_with_its_ranks(tmp_path: Path, dtype: str) -> None:
    base = written(tmp_path, "base", small_model(), dtype)
    layers = {name: lora(name, rank, seed, alpha=rank / 2) for seed, (name, rank) in enumerate(RANKS.items())}
    adapter = write_adapter(tmp_path / "a.safetensors", layers)
    bake(base, [Source(adapter, 0.5)], tmp_path / "baked.safetensors", BakeOptions())
    before = weights(base)
    true = {module: 0.5 * delta for module, delta in deltas(adapter, before).items()}
    after = weights(tmp_path / "baked.safetensors")
    floor = {m: float((after[m] - before[m] - delta).norm()) for m, delta in true.items()}
    shares = [floor[m] ** 2 / float(delta.square().sum()) for m, delta in true.items()]
    energy = 1 - max(2 * max(shares), 1e-9)  # all but the rounding of the checkpoint
    options = ExtractOptions(energy=energy, dtype="F32")
    found = extract(tmp_path / "baked.safetensors", base, tmp_path / "back.safetensors", options)
    assert {layer.module: layer.rank for layer in found.layers if layer.rank} == RANKS
    for module, delta in deltas(found.output, before).items():
        assert float((delta - true[module]).norm()) <= 1.1 * floor[module] + 1e-6 * float(true[module].norm()), module
