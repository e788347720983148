"""Extracting, baking and comparing belong together: what one takes out of two checkpoints, the other puts in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import CROSS, ENCODER, KERNEL, small_model, tuned, unet, write_ldm

from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.codec import read_adapter
from hubtool.adapters.scaling import ROUNDING
from hubtool.adapters.tensors import to_torch
from hubtool.operations.bake import BakeOptions, bake
from hubtool.operations.diff import diff
from hubtool.operations.extract import ExtractOptions, extract
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.sources import Source

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.naming.address import ModuleRef


def weights(path: Path) -> dict[ModuleRef, torch.Tensor]:
    return {module: to_torch(weight.tensor).float() for module, weight in read_checkpoint(path).weights.items()}


def distance(
    first: dict[ModuleRef, torch.Tensor], second: dict[ModuleRef, torch.Tensor], modules: set[ModuleRef]
) -> float:
    return sum(float((first[m] - second[m]).square().sum()) for m in modules) ** 0.5


@pytest.mark.parametrize("noise", [0.0, 2e-4])
def test_an_extraction_baked_onto_its_base_is_the_tuned_model_within_the_error_that_was_told(
    tmp_path: Path, noise: float
) -> None:
    model = small_model()
    base = write_ldm(tmp_path / "base.safetensors", {m: w.float() for m, w in model.items()})
    changed = tuned({m: w.float() for m, w in model.items()}, rank=8, noise=noise)
    target = write_ldm(tmp_path / "tuned.safetensors", changed)
    found = extract(target, base, tmp_path / "lora.safetensors", ExtractOptions(rank=8, dtype="F32"))
    bake(base, [Source(tmp_path / "lora.safetensors")], tmp_path / "baked.safetensors", BakeOptions())
    modules = set(read_adapter(tmp_path / "lora.safetensors").layers)
    before, wanted, got = (weights(tmp_path / f"{name}.safetensors") for name in ("base", "tuned", "baked"))
    assert found.relative_error is not None
    size = distance(wanted, before, modules)
    assert distance(got, wanted, modules) / size == pytest.approx(found.relative_error, rel=0.02, abs=5e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_lora_baked_and_extracted_again_is_that_lora_but_for_the_checkpoints_rounding(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = {module: weight.to(dtype) for module, weight in small_model().items()}
    base = write_ldm(tmp_path / "base.safetensors", model)
    plain = {module: weight.float() for module, weight in model.items()}
    first, second = (
        write_ldm(tmp_path / f"{i}.safetensors", w) for i, w in enumerate((plain, tuned(plain, rank=4, size=0.05)))
    )
    options = ExtractOptions(rank=4, dtype="F32")
    extract(second, first, tmp_path / "lora.safetensors", options)
    baked = bake(base, [Source(tmp_path / "lora.safetensors")], tmp_path / "baked.safetensors", BakeOptions())
    extract(tmp_path / "baked.safetensors", base, tmp_path / "again.safetensors", options)
    found = diff(tmp_path / "lora.safetensors", tmp_path / "again.safetensors")
    assert baked.rounding is not None
    assert found.relative_error is not None
    assert found.relative_error <= 1.1 * baked.rounding + 3e-6
    assert (
        baked.rounding
        < 100 * ROUNDING[{torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]] + 1e-5
    )


def test_a_merge_baked_is_both_baked(tmp_path: Path) -> None:
    model = {module: weight.float() for module, weight in small_model().items()}
    base = write_ldm(tmp_path / "base.safetensors", model)
    sources = []
    for seed, strength in ((1, 0.7), (2, 0.4)):
        changed = write_ldm(tmp_path / f"tuned{seed}.safetensors", tuned(model, rank=4, seed=seed))
        extract(changed, base, tmp_path / f"{seed}.safetensors", ExtractOptions(rank=4, dtype="F32"))
        sources.append(Source(tmp_path / f"{seed}.safetensors", strength))
    merge(sources, tmp_path / "both.safetensors", MergeOptions())
    bake(base, sources, tmp_path / "a.safetensors", BakeOptions())
    bake(base, [Source(tmp_path / "both.safetensors")], tmp_path / "b.safetensors", BakeOptions())
    one, two, before = (weights(tmp_path / f"{name}.safetensors") for name in ("a", "b", "base"))
    modules = {module for module in one if not one[module].equal(before[module])}
    assert {*unet(CROSS, KERNEL)} < modules
    assert any(module.path == ENCODER for module in modules)
    assert distance(one, two, modules) < 2e-6 * distance(one, before, modules)
