"""`lora_adapter_metadata` as we write it: diffusers builds PEFT's config from it, so it has to mention magnitudes too."""

from __future__ import annotations

import pytest
import torch
from oracle.models import adapter_for, error, flux_transformer

from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.tensors import from_torch
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.convert import convert

loaders = pytest.importorskip("diffusers.loaders.lora_pipeline")

PATHS = ["transformer_blocks.0.attn.to_out.0", "transformer_blocks.0.ff.net.2", "single_transformer_blocks.0.proj_out"]


@pytest.mark.filterwarnings("ignore")
def test_magnitudes_and_scales_are_loaded_together(tmp_path):
    source = adapter_for("flux1", [ModuleRef(Component.DENOISER, path) for path in PATHS], [(4, 3.0), (2, 5.0)])
    random = torch.Generator().manual_seed(3)
    for layer in source.layers.values():
        rows = layer.tensors[Role.UP].shape[0]
        layer.tensors[Role.MAGNITUDE] = from_torch(torch.rand((rows, 1), generator=random))
    write_adapter(tmp_path / "kohya.safetensors", source, "kohya")
    done = convert(tmp_path / "kohya.safetensors", "diffusers", tmp_path / "out.safetensors")
    assert (done.alpha, done.exact) == ("recorded", True)

    transformer, mixin = flux_transformer(), loaders.FluxLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(
        tmp_path / "out.safetensors", return_alphas=True, return_lora_metadata=True
    )
    mixin.load_lora_into_transformer(state, alphas, transformer, metadata=metadata, adapter_name="ours")
    layers = dict(transformer.named_modules())
    for module, layer in source.layers.items():
        theirs = layers[module.path]
        magnitude = theirs.lora_magnitude_vector["ours"].weight.detach()
        assert torch.equal(magnitude.flatten(), layer.float(Role.MAGNITUDE).flatten())
        with torch.no_grad():
            change = theirs.get_delta_weight("ours")
        assert error(change, layer.delta(source.architecture.modules[module.path])) < 1e-6
    ours = read_adapter(tmp_path / "out.safetensors")
    assert {m: layer.scale for m, layer in ours.layers.items()} == {
        m: layer.scale for m, layer in source.layers.items()
    }
