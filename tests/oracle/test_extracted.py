"""What was extracted means the same to the tools that load it: diffusers and LyCORIS compute the change that we do."""

from __future__ import annotations

import pytest
import torch
from oracle.models import error, sd1_unet
from safetensors.torch import load_file
from support.checkpoints import small_model, tuned, write_ldm

from hubtool.adapters.codec import read_adapter
from hubtool.naming.address import Component
from hubtool.operations.extract import ExtractOptions, extract

loaders = pytest.importorskip("diffusers.loaders")
lycoris_modules = pytest.importorskip("lycoris.modules")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def pair(tmp_path):
    base = small_model()
    del base[next(module for module in base if module.path == "conv_in")]  # no target
    changed = tuned(base, rank=20, noise=1e-4)
    return [write_ldm(tmp_path / f"{name}.safetensors", w) for name, w in (("tuned", changed), ("base", base))]


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_diffusers_computes_the_change_that_was_extracted(tmp_path, pair, dialect):
    out = tmp_path / "out.safetensors"
    extract(*pair, out, ExtractOptions(rank=16, conv_rank=4, dialect=dialect, dtype="F32"))
    unet, mixin = sd1_unet(), loaders.StableDiffusionLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(out, return_lora_metadata=True)
    mixin.load_lora_into_unet(state, alphas, unet, metadata=metadata, adapter_name="ours")
    modules = dict(unet.named_modules())
    layers = {m: layer for m, layer in read_adapter(out).layers.items() if m.component is Component.DENOISER}
    assert len(layers) == 5
    for module, layer in layers.items():
        with torch.no_grad():
            theirs = modules[module.path].get_delta_weight("ours")
        assert error(theirs, layer.delta(tuple(theirs.shape))) < 1e-6, module.path


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 16, "conv_rank": 4},
        {"rank": 16, "conv": "tucker"},
        {"parametrization": "lokr"},
        {"parametrization": "full"},
    ],
)
def test_lycoris_computes_the_change_that_was_extracted(tmp_path, pair, options):
    out = tmp_path / "out.safetensors"
    extract(*pair, out, ExtractOptions(dtype="F32", **options))
    state, adapter = load_file(out), read_adapter(out)
    assert len(adapter.layers) == 6
    for module, layer in adapter.layers.items():
        shape = adapter.architecture.shape(module)
        original = torch.nn.Conv2d(shape[1], shape[0], shape[2]) if len(shape) == 4 else torch.nn.Linear(*shape[1::-1])
        original.weight.data.zero_()
        kind, parts = lycoris_modules.get_module(state, layer.base)
        theirs = lycoris_modules.make_module(kind, parts, layer.base, original)
        with torch.no_grad():
            assert error(theirs.get_diff_weight(1.0)[0].reshape(shape), layer.delta(shape)) < 2e-6, module.path
