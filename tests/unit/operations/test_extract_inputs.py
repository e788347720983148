"""Odd inputs of an extraction: other containers, other layouts, next to nothing, and twins that are not the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import ATTENTION, ldm_keys, small_model, tuned, unet, write_diffusers, write_file, write_ldm

from hubtool.adapters.codec import read_adapter
from hubtool.errors import CheckpointProblem, IncompatibleCheckpoints
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component, ModuleRef
from hubtool.operations.extract import ExtractOptions, extract

if TYPE_CHECKING:
    from pathlib import Path

NORM_OUT = ModuleRef(Component.DENOISER, "transformer_blocks.23.norm1_context.linear")


def test_pickled_checkpoints_give_the_file_that_safetensors_give(tmp_path: Path) -> None:
    base = small_model()
    changed = tuned(base)
    for name, weights in (("base", base), ("tuned", changed)):
        write_ldm(tmp_path / f"{name}.safetensors", weights)
        torch.save({"state_dict": ldm_keys(weights), "epoch": 1}, tmp_path / f"{name}.ckpt")
    for kind in ("safetensors", "ckpt"):
        extract(tmp_path / f"tuned.{kind}", tmp_path / f"base.{kind}", tmp_path / f"{kind}.out", ExtractOptions(rank=8))
    first, second = (read_adapter(tmp_path / f"{kind}.out").layers for kind in ("safetensors", "ckpt"))
    for module, layer in first.items():
        assert {role: bytes(part.view()) for role, part in layer.tensors.items()} == {
            role: bytes(part.view()) for role, part in second[module].tensors.items()
        }


@pytest.mark.parametrize("said", ["by a tensor", "by metadata"])
def test_models_that_predict_different_things_are_compared_and_said_to_be(tmp_path: Path, said: str) -> None:
    base = small_model()
    write_ldm(tmp_path / "base.safetensors", base)
    marker = {"v_pred": torch.empty(0)} if said == "by a tensor" else {}
    metadata = {} if marker else {"modelspec.prediction_type": "v"}
    write_file(tmp_path / "tuned.safetensors", ldm_keys(tuned(base)) | marker, metadata)
    output = tmp_path / "out.safetensors"
    found = extract(tmp_path / "tuned.safetensors", tmp_path / "base.safetensors", output, ExtractOptions(rank=4))
    assert any("tuned.safetensors predicts v, base.safetensors noise" in note for note in found.notes)
    assert read_safetensors(output).metadata["modelspec.prediction_type"] == "v"


def test_a_checkpoint_of_one_module_is_enough(tmp_path: Path) -> None:
    base = {module: weight for module, weight in small_model().items() if module == unet(ATTENTION)[0]}
    changed = tuned(base, rank=3)
    paths = [write_diffusers(tmp_path / name, weights) for name, weights in (("tuned", changed), ("base", base))]
    found = extract(*paths, tmp_path / "out.safetensors", ExtractOptions(rank=4))
    assert (found.modules, found.rank) == (1, found.rank)
    assert found.relative_error is not None
    assert found.relative_error < 0.05


def test_tensors_without_elements_are_passed_over(tmp_path: Path) -> None:
    base = small_model()
    for name, weights in (("base", base), ("tuned", tuned(base))):
        keys = ldm_keys(weights) | {"model.diffusion_model.nothing": torch.empty(0, 4).half()}
        write_file(tmp_path / f"{name}.safetensors", keys)
    found = extract(tmp_path / "tuned.safetensors", tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    assert found.modules == 6


def test_a_module_without_elements_is_no_module_of_the_architecture(tmp_path: Path) -> None:
    base = small_model()
    for name, weights in (("base", base), ("tuned", tuned(base))):
        keys = ldm_keys(weights)
        first = next(iter(keys))
        keys[first] = torch.empty(0, *keys[first].shape[1:]).half()
        write_file(tmp_path / f"{name}.safetensors", keys)
    with pytest.raises((CheckpointProblem, IncompatibleCheckpoints)):
        extract(tmp_path / "tuned.safetensors", tmp_path / "base.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_layouts_that_keep_halves_the_other_way_round_are_compared_by_meaning(tmp_path: Path) -> None:
    """Stable Diffusion 3's last context norm: the authors have shift first, diffusers scale."""
    generator = torch.Generator().manual_seed(0)
    canonical = torch.randn(3072, 1536, generator=generator).half()
    change = (torch.randn(3072, 2, generator=generator) @ torch.randn(2, 1536, generator=generator) * 0.01).half()
    other = torch.randn(6144, 1536, generator=generator).half()
    authors = "joint_blocks.{}.adaLN_modulation.1.weight"
    base = {authors.format("23.context_block"): torch.cat([canonical[1536:], canonical[:1536]])}
    base["joint_blocks.0.x_block.mlp.fc1.weight"] = other
    tuned_keys = {f"{NORM_OUT.path}.weight": canonical + change, "transformer_blocks.0.ff.net.0.proj.weight": other}
    paths = [
        write_file(
            tmp_path / "tuned" / "transformer" / "diffusion_pytorch_model.safetensors", tuned_keys
        ).parent.parent,
        write_file(tmp_path / "base.safetensors", base),
    ]
    found = extract(*paths, tmp_path / "out.safetensors", ExtractOptions(rank=4, dialect="diffusers", dtype="F32"))
    assert found.skipped_unchanged == 1
    (layer,) = read_adapter(tmp_path / "out.safetensors", architecture_id=found.architecture).layers.values()
    wanted = (canonical + change).float() - canonical.float()
    assert float((layer.delta((3072, 1536)) - wanted).norm()) < 0.05 * float(wanted.norm())
