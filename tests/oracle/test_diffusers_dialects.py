"""diffusers' own readers of other tools' keys find the change in a file that we find in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from oracle.models import adapter_for, empty, error
from safetensors.torch import save_file
from support.files import Raw, random_tensor, write

from hubtool.adapters.codec import encode, read_adapter, write_adapter
from hubtool.adapters.fusion import fit
from hubtool.adapters.tensors import to_torch
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect
from hubtool.naming.spelling import denoiser_names
from hubtool.operations.convert import convert

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-6
PEFT = (".lora_A.weight", ".lora_B.weight")
PLAIN = (".down.weight", ".up.weight")


def ours(path: Path, architecture_id: str) -> dict[str, Layer]:
    """The canonical modules of a file as we read it."""
    fitted = fit(read_adapter(path, architecture_id=architecture_id), "diffusers").adapter
    return {module.path: layer for module, layer in fitted.layers.items() if module.component is Component.DENOISER}


def theirs(path: Path, loader: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Module → (A, B) as diffusers reads it; it folds alpha into these."""
    state = getattr(diffusers.loaders, loader).lora_state_dict(path)
    state = state[0] if isinstance(state, tuple) else state
    modules = {key.partition(".lora_")[0] for key in state}
    return {
        module.removeprefix("transformer."): (state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"])
        for module in modules
    }


def same(path: Path, architecture_id: str, loader: str) -> int:
    """Compare all modules that both have, and that neither has more; their number."""
    mine, other = ours(path, architecture_id), theirs(path, loader)
    assert mine.keys() == other.keys()
    for module, layer in mine.items():
        down, up = other[module]
        probe = torch.randn(down.shape[1], 8, generator=torch.Generator().manual_seed(1))
        expected = layer.float(Role.UP) @ (layer.float(Role.DOWN) @ probe) * layer.scale
        assert error(up.float() @ (down.float() @ probe), expected) < TOLERANCE, module
    return len(mine)


def factors(names: Iterable[tuple[str, tuple[int, ...]]], suffixes: tuple[str, str], rank: int = 4) -> dict[str, Raw]:
    """A LoRA under these names, in float32."""
    tensors: dict[str, Raw] = {}
    for seed, (name, shape) in enumerate(names):
        tensors[name + suffixes[0]] = random_tensor(2 * seed, (rank, shape[1]), "F32")
        tensors[name + suffixes[1]] = random_tensor(2 * seed + 1, (shape[0], rank), "F32")
    return tensors


def named(architecture_id: str, naming: str, *parts: str) -> list[tuple[str, tuple[int, ...]]]:
    """Names of matrices in a naming, of modules whose name holds one of the parts, with shapes."""
    target = architecture(architecture_id)
    rows = [(name, target.shape(module) or ()) for module, name in denoiser_names(target, naming)]
    return [(name, shape) for name, shape in rows if len(shape) == 2 and any(part in name for part in parts)]


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]


def flux(*paths: str) -> list[ModuleRef]:
    return [ModuleRef(Component.DENOISER, path) for path in paths]


def test_onetrainers_oldest_format_of_flux(tmp_path):
    attention = [f"transformer_blocks.0.attn.{name}" for name in ATTENTION]
    single = [f"single_transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")]
    write_adapter(tmp_path / "x.safetensors", adapter_for("flux1", flux(*attention, *single)), "onetrainer")
    assert same(tmp_path / "x.safetensors", "flux1", "FluxLoraLoaderMixin") == 11


def test_diffusers_mixes_up_what_is_not_attention_in_that_format_and_we_do_not(tmp_path):
    """Names of feed-forward and norm layers are cut to the block's, so that one overwrites the other."""
    others = flux(
        "transformer_blocks.0.attn.to_q", "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2",
        "transformer_blocks.0.norm1.linear",
    )  # fmt: skip
    write_adapter(tmp_path / "x.safetensors", adapter_for("flux1", others), "onetrainer")
    assert len(theirs(tmp_path / "x.safetensors", "FluxLoraLoaderMixin")) < len(others)
    assert ours(tmp_path / "x.safetensors", "flux1").keys() == {module.path for module in others}


def test_xlabs_processors(tmp_path):
    bases = [f"double_blocks.0.processor.{x}_lora{i}" for x in ("qkv", "proj") for i in (1, 2)]
    names = [(base, (9216 if "qkv" in base else 3072, 3072)) for base in bases]
    names += [
        ("single_blocks.0.processor.qkv_lora", (9216, 3072)),
        ("single_blocks.0.processor.proj_lora", (3072, 15360)),
    ]
    write(tmp_path / "x.safetensors", factors(names, PLAIN))
    assert same(tmp_path / "x.safetensors", "flux1", "FluxLoraLoaderMixin") == 8 + 4


def test_fals_trainer(tmp_path):
    """Its converter takes every matrix of every block for granted."""
    names = named("flux1", "original", "double_blocks.", "single_blocks.", "final_layer.linear")
    whole = [(f"base_model.model.{name}", shape) for name, shape in names if not name.endswith("linear1_qkv")]
    write(tmp_path / "x.safetensors", factors(whole, PEFT, rank=1))
    assert same(tmp_path / "x.safetensors", "flux1", "FluxLoraLoaderMixin") == 19 * 14 + 38 * 6 + 1


def test_hunyuanvideo_in_tencents_own_names(tmp_path):
    """diffusers cuts the refiner's fused `lora_A` by rank and swaps that of the last norm, which is why those are left out."""
    names = named(
        "hunyuanvideo", "second", "double_blocks.0.", "single_blocks.0.", "time_in", "vector_in", "guidance_in"
    )
    write(tmp_path / "x.safetensors", factors([(f"transformer.{name}", shape) for name, shape in names], PEFT))
    assert same(tmp_path / "x.safetensors", "hunyuanvideo", "HunyuanVideoLoraLoaderMixin") > 20


def test_flux2_with_a_beheaded_prefix(tmp_path):
    """`transformer.transformer_blocks` without the sixteen letters of `diffusion_model.`."""
    names = [
        row for row in named("flux2", "diffusers", "transformer_blocks.0.attn.") if row[0].startswith("transformer")
    ]
    cut = [(f"diffusion_model.{name.removeprefix('tran')}", shape) for name, shape in names]
    write(tmp_path / "x.safetensors", factors(cut, PEFT))
    assert read_adapter(tmp_path / "x.safetensors", architecture_id="flux2").malformed
    assert same(tmp_path / "x.safetensors", "flux2", "Flux2LoraLoaderMixin") == 8


# ---------------------------------------------------------------- AnimateDiff


def of_diffusers_script(tensors: dict[str, LazyTensor]) -> dict[str, torch.Tensor]:
    """What diffusers' script for motion LoRAs makes of the authors' keys."""
    pairs = {".attention_blocks.0": ".attn1", ".attention_blocks.1": ".attn2", ".temporal_transformer": ""}
    found = {}
    for key, tensor in tensors.items():
        name = key
        for old, new in pairs.items():
            name = name.replace(old, new)
        found[f"unet.{name}"] = to_torch(tensor).clone()
    return found


def motion_unet() -> torch.nn.Module:
    """Two of Stable Diffusion's four levels, with motion modules."""
    down, up = ("DownBlockMotion",) * 2, ("UpBlockMotion",) * 2
    return empty(
        lambda: diffusers.UNetMotionModel(
            block_out_channels=(320, 640), down_block_types=down, up_block_types=up, cross_attention_dim=768
        )
    )


def motion_lora() -> Adapter:
    """A motion LoRA of one block, without alphas as they all are."""
    target = architecture("animatediff")
    block = "down_blocks.0.motion_modules.0.transformer_blocks.0."
    source = adapter_for("animatediff", [m for m in dialect("animatediff").written(target) if m.path.startswith(block)])
    layers = {module: layer.having(layer.without(Role.ALPHA)) for module, layer in source.layers.items()}
    return replace(source, layers=layers)


def test_motion_loras_of_both_spellings(tmp_path):
    source = motion_lora()
    write_adapter(tmp_path / "authors.safetensors", source, "animatediff")
    save_file(of_diffusers_script(encode(source, "animatediff")), tmp_path / "script.safetensors")
    convert(tmp_path / "authors.safetensors", "diffusers", tmp_path / "ours.safetensors")

    mixin = diffusers.loaders.StableDiffusionLoraLoaderMixin
    readings = [ours(tmp_path / f"{name}.safetensors", "animatediff") for name in ("authors", "script", "ours")]
    for name in ("script", "ours"):
        model = motion_unet()
        state, alphas = mixin.lora_state_dict(tmp_path / f"{name}.safetensors", unet_config=model.config)
        mixin.load_lora_into_unet(state, alphas, model, adapter_name="x")
        loaded = dict(model.named_modules())
        for path, layer in [row for reading in readings for row in reading.items()]:
            with torch.no_grad():
                change = loaded[path].get_delta_weight("x")
            assert error(change, layer.delta(source.architecture.modules[path])) < TOLERANCE, path
    assert [len(reading) for reading in readings] == [8, 8, 8]
