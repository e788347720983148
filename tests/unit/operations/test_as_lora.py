"""LoKr, LoHa and differences rewritten as LoRA: exact at full rank, the best approximation below."""

from __future__ import annotations

import pytest
import torch

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch
from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.operations.as_lora import rank_rule, rewrite_as_lora
from hubtool.operations.convert import ConvertOptions, convert

LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"  # (320, 768)
CONVOLUTION = "down_blocks.0.resnets.0.conv1"  # (320, 320, 3, 3)


def random_tensor(*shape):
    return from_torch(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.1)


def layers() -> dict[str, tuple[str, dict[Role, object]]]:
    """Name → module and tensors."""
    return {
        "lokr both whole": (LINEAR, {Role.LOKR_W1: random_tensor(8, 8), Role.LOKR_W2: random_tensor(40, 96)}),
        "lokr factorised": (
            LINEAR,
            {
                Role.LOKR_W1: random_tensor(8, 8),
                Role.LOKR_W2_A: random_tensor(40, 4),
                Role.LOKR_W2_B: random_tensor(4, 96),
                Role.ALPHA: scalar_tensor(2),
            },
        ),
        "lokr convolution": (
            CONVOLUTION,
            {
                Role.LOKR_W1: random_tensor(8, 8),
                Role.LOKR_W2_A: random_tensor(40, 3),
                Role.LOKR_W2_B: random_tensor(3, 40 * 9),
                Role.ALPHA: scalar_tensor(-1),
            },
        ),
        "lokr tucker": (
            CONVOLUTION,
            {
                Role.LOKR_W1: random_tensor(8, 8),
                Role.LOKR_W2_A: random_tensor(3, 40),
                Role.LOKR_W2_B: random_tensor(3, 40),
                Role.LOKR_T2: random_tensor(3, 3, 3, 3),
                Role.ALPHA: scalar_tensor(1),
            },
        ),
        "loha": (
            LINEAR,
            {
                Role.HADA_W1_A: random_tensor(320, 4),
                Role.HADA_W1_B: random_tensor(4, 768),
                Role.HADA_W2_A: random_tensor(320, 4),
                Role.HADA_W2_B: random_tensor(4, 768),
                Role.ALPHA: scalar_tensor(2),
            },
        ),
        "loha of high rank": (
            LINEAR,
            {
                Role.HADA_W1_A: random_tensor(320, 12),
                Role.HADA_W1_B: random_tensor(12, 768),
                Role.HADA_W2_A: random_tensor(320, 12),
                Role.HADA_W2_B: random_tensor(12, 768),
                Role.ALPHA: scalar_tensor(6),
            },
        ),
        "difference": (LINEAR, {Role.DIFF: random_tensor(320, 768)}),
    }


def adapter_of(name: str) -> tuple[Adapter, ModuleRef]:
    path, tensors = layers()[name]
    module = ModuleRef(Component.DENOISER, path)
    return Adapter(architecture("sd1"), {module: Layer(tensors, "m")}), module


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", layers())
def test_at_full_rank_the_change_is_the_same(name):
    adapter, module = adapter_of(name)
    shape = adapter.architecture.shape(module)
    rewritten, errors = rewrite_as_lora(adapter, rank_rule(320, None))
    assert rewritten.layers[module].parametrization.id == "lora"
    assert errors[module] < 1e-5
    assert error(rewritten.layers[module].delta(shape), adapter.layers[module].delta(shape)) < 1e-5


@pytest.mark.parametrize("name", layers())
def test_at_a_lower_rank_the_error_is_the_optimum_and_is_reported(name):
    adapter, module = adapter_of(name)
    shape = adapter.architecture.shape(module)
    change = adapter.layers[module].delta(shape)
    values = torch.linalg.svdvals(change.flatten(1).double())
    optimum = float(values[5:].square().sum().sqrt() / values.square().sum().sqrt())
    rewritten, errors = rewrite_as_lora(adapter, rank_rule(5, None))
    assert rewritten.layers[module].rank == 5
    found = error(rewritten.layers[module].delta(shape), change)
    assert found == pytest.approx(optimum, rel=0.01)
    assert errors[module] == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("name", layers())
def test_energy_takes_the_fewest_directions_that_hold_it(name):
    adapter, module = adapter_of(name)
    shape = adapter.architecture.shape(module)
    values = torch.linalg.svdvals(adapter.layers[module].delta(shape).flatten(1).double()).square()
    fewest = int((values.cumsum(0) < 0.9 * values.sum()).sum()) + 1
    rewritten, _ = rewrite_as_lora(adapter, rank_rule(None, 0.9))
    assert rewritten.layers[module].rank == fewest


def test_what_depends_on_the_base_weight_is_refused():
    module = ModuleRef(Component.DENOISER, LINEAR)
    adapter = Adapter(architecture("sd1"), {module: Layer({Role.OFT_BLOCKS: random_tensor(80, 4, 4)}, "m")})
    with pytest.raises(NotRepresentable, match="without the base model"):
        rewrite_as_lora(adapter, rank_rule(8, None))


def test_a_lokr_file_becomes_one_that_diffusers_can_say(tmp_path):
    adapter, module = adapter_of("lokr factorised")
    write_adapter(tmp_path / "lokr.safetensors", adapter, "kohya")
    with pytest.raises(UsageProblem, match="how exactly"):
        convert(
            tmp_path / "lokr.safetensors",
            "diffusers",
            tmp_path / "no.safetensors",
            ConvertOptions(architecture="sd1", parametrization="lora"),
        )
    assert not (tmp_path / "no.safetensors").exists()
    options = ConvertOptions(architecture="sd1", parametrization="lora", rank=32)
    done = convert(tmp_path / "lokr.safetensors", "diffusers", tmp_path / "out.safetensors", options)
    assert (done.exact, len(done.lossy)) == (False, 1)
    shape = adapter.architecture.shape(module)
    read = read_adapter(tmp_path / "out.safetensors", architecture_id="sd1")
    assert error(read.layers[module].delta(shape), adapter.layers[module].delta(shape)) < 1e-5
