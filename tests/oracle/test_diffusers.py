"""diffusers' own loaders end with the weight change that the source file means."""

from __future__ import annotations

import pytest
import torch
from oracle.models import (
    FOLDABLE,
    RECORDED,
    adapter_for,
    clip_g,
    clip_l,
    error,
    flux_transformer,
    sd1_unet,
    sdxl_unet,
    weights_of,
)

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.naming.address import Component, ModuleRef
from hubtool.operations.convert import ConvertOptions, convert

loaders = pytest.importorskip("diffusers.loaders")

TOLERANCE = 1e-6
#: One block of each kind; the others repeat them at greater widths.
SD1 = ("conv", "time", "down_blocks.0", "mid_block.attentions", "up_blocks.2.up", "up_blocks.3")
SDXL = ("conv", "time", "add", "down_blocks.0", "down_blocks.1", "mid_block.attentions", "up_blocks.1.up")
UNET_SCALES = pytest.mark.parametrize(("scales", "outcome"), [(FOLDABLE, "folded"), (RECORDED, "recorded")])


def merged(*adapters: Adapter) -> Adapter:
    """One adapter with the layers of several."""
    layers = {module: layer for adapter in adapters for module, layer in adapter.layers.items()}
    return Adapter(adapters[0].architecture, layers)


def check(model: torch.nn.Module, source: Adapter, component: Component, name: str = "ours") -> None:
    """Every module's ΔW in the loaded model is the source's, and no module is left out."""
    modules = dict(model.named_modules())
    compared = 0
    for module, layer in source.layers.items():
        if module.component is not component:
            continue
        target = modules.get(module.path) or modules[module.path.removeprefix("text_model.")]
        with torch.no_grad():
            theirs = target.get_delta_weight(name)
        shape = source.architecture.shape(module)
        assert error(theirs, layer.delta(shape)) < TOLERANCE, module.path
        compared += 1
    assert compared > 0


def canonical(adapter: Adapter) -> Adapter:
    """The adapter by canonical modules: fused ones split."""
    from hubtool.adapters.fusion import fit

    return fit(adapter, "diffusers").adapter


@UNET_SCALES
def test_sd1_unet_with_convolutions(tmp_path, scales, outcome):
    unet = sd1_unet()
    source = adapter_for("sd1", weights_of("sd1", Component.DENOISER, dict(unet.named_modules()), SD1), scales)
    write_adapter(tmp_path / "kohya.safetensors", source, "kohya")
    done = convert(tmp_path / "kohya.safetensors", "diffusers", tmp_path / "out.safetensors")
    assert (done.alpha, done.exact, done.modules) == (outcome, True, len(source.layers))

    mixin = loaders.StableDiffusionLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(tmp_path / "out.safetensors", return_lora_metadata=True)
    mixin.load_lora_into_unet(state, alphas, unet, metadata=metadata, adapter_name="ours")
    check(unet, source, Component.DENOISER)


@UNET_SCALES
def test_sdxl_unet_and_both_text_encoders(tmp_path, scales, outcome):
    models = {Component.DENOISER: sdxl_unet(), Component.CLIP_L: clip_l(), Component.CLIP_G: clip_g()}
    below = {Component.DENOISER: SDXL}
    named = [
        weights_of("sdxl", part, dict(model.named_modules()), below.get(part, ("",))) for part, model in models.items()
    ]
    source = adapter_for("sdxl", [module for modules in named for module in modules if _linear(module)], scales)
    write_adapter(tmp_path / "kohya.safetensors", source, "kohya")
    done = convert(tmp_path / "kohya.safetensors", "diffusers", tmp_path / "out.safetensors")
    assert (done.alpha, done.exact) == (outcome, True)

    mixin = loaders.StableDiffusionXLLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(tmp_path / "out.safetensors", return_lora_metadata=True)
    mixin.load_lora_into_unet(state, alphas, models[Component.DENOISER], metadata=metadata, adapter_name="ours")
    for part, prefix in ((Component.CLIP_L, "text_encoder"), (Component.CLIP_G, "text_encoder_2")):
        mixin.load_lora_into_text_encoder(
            state, alphas, models[part], prefix=prefix, metadata=metadata, adapter_name="ours"
        )
    for part, model in models.items():
        check(model, source, part)


def _linear(module: ModuleRef) -> bool:
    """diffusers loads text-encoder LoRAs of attention and MLP layers only."""
    return module.component is Component.DENOISER or ".layers." in module.path


@UNET_SCALES
def test_flux_with_fused_projections_and_swapped_halves(tmp_path, scales, outcome):
    transformer = flux_transformer()
    present = set(dict(transformer.named_modules()))
    target = adapter_for("flux1", []).architecture
    plain = [ModuleRef(Component.DENOISER, p) for p in target.original if p in present and len(target.modules[p]) > 1]
    whole = {name: fused for name, fused in target.fused.items() if not fused.partial}
    fused = [ModuleRef(Component.DENOISER, name) for name, one in whole.items() if set(one.parts) <= present]
    source = adapter_for("flux1", [*plain, *fused], scales)
    write_adapter(tmp_path / "kohya.safetensors", source, "kohya")
    done = convert(tmp_path / "kohya.safetensors", "diffusers", tmp_path / "out.safetensors")
    assert (done.alpha, done.exact, done.split) == (outcome, True, 3)

    mixin = loaders.FluxLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(
        tmp_path / "out.safetensors", return_alphas=True, return_lora_metadata=True
    )
    mixin.load_lora_into_transformer(state, alphas, transformer, metadata=metadata, adapter_name="ours")
    check(transformer, canonical(read_adapter(tmp_path / "kohya.safetensors")), Component.DENOISER)


def test_a_joined_file_means_what_diffusers_saved(tmp_path):
    """The other way round: PEFT's scale (alpha 32, rank 16) reaches kohya's fused modules."""
    from peft import LoraConfig

    transformer = flux_transformer()
    config = LoraConfig(r=16, lora_alpha=32, target_modules=["to_q", "to_k", "to_v", "proj_mlp", "linear"])
    config.init_lora_weights = False
    transformer.add_adapter(config, "ours")
    transformer.save_lora_adapter(tmp_path, adapter_name="ours", weight_name="saved.safetensors")
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(tmp_path / "saved.safetensors", "pt") as opened:
        metadata = {"lora_adapter_metadata": opened.metadata()["lora_adapter_metadata"]}
    tensors = load_file(tmp_path / "saved.safetensors")
    save_file({f"transformer.{key}": value for key, value in tensors.items()}, tmp_path / "a.safetensors", metadata)
    convert(tmp_path / "a.safetensors", "kohya", tmp_path / "b.safetensors", ConvertOptions(architecture="flux1"))
    kohya = canonical(read_adapter(tmp_path / "b.safetensors"))
    assert len(kohya.layers) == len(tensors) // 2
    check(transformer, kohya, Component.DENOISER)


def test_a_wrong_scale_would_be_noticed(tmp_path):
    """The comparison above can fail."""
    unet = sd1_unet()
    modules = weights_of("sd1", Component.DENOISER, dict(unet.named_modules()))[:20]
    source = adapter_for("sd1", modules, ((4, 4.0),))
    write_adapter(tmp_path / "kohya.safetensors", adapter_for("sd1", modules, ((4, 8.0),)), "kohya")
    convert(tmp_path / "kohya.safetensors", "diffusers", tmp_path / "out.safetensors")
    mixin = loaders.StableDiffusionLoraLoaderMixin
    state, alphas = mixin.lora_state_dict(tmp_path / "out.safetensors")
    mixin.load_lora_into_unet(state, alphas, unet, adapter_name="ours")
    with pytest.raises(AssertionError):
        check(unet, source, Component.DENOISER)
