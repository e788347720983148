"""What LyCORIS's wrapper saves of a diffusers model is read under every prefix that its user may choose."""

from __future__ import annotations

import pytest
import torch
from oracle.models import empty, error
from safetensors.torch import save_file

from hubtool.adapters.codec import read_adapter
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture

lycoris = pytest.importorskip("lycoris")
pytestmark = pytest.mark.filterwarnings("ignore")

PATHS = [f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_out.0", "norm_q")] + ["norm_out.linear"]


def part_of_flux() -> torch.nn.Module:
    """A few of FLUX's layers, under their names; the whole would be gigabytes for LyCORIS to copy."""
    model = torch.nn.Module()
    for path in PATHS:
        *parents, name = path.split(".")
        parent = model
        for part in parents:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        shape = architecture("flux1").modules[path]
        layer = torch.nn.Linear(shape[1], shape[0]) if len(shape) == 2 else torch.nn.RMSNorm(shape[0])
        parent.add_module(name, layer)
    return model


@pytest.mark.parametrize("prefix", ["lycoris", "mystyle"])
def test_the_wrapper_of_flux_layers(tmp_path, monkeypatch, prefix):
    monkeypatch.setattr(lycoris.LycorisNetwork, "LORA_PREFIX", prefix)
    model = empty(part_of_flux)
    names = {name.replace(".", "_"): name for name, _ in model.named_modules()}
    network = lycoris.create_lycoris(model, 1.0, linear_dim=4, linear_alpha=2, algo="lora")
    network.apply_to()
    for lora in network.loras:
        torch.nn.init.normal_(lora.lora_up.weight)
    save_file(network.state_dict(), tmp_path / "x.safetensors")

    found = read_adapter(tmp_path / "x.safetensors", architecture_id="flux1")
    assert (found.dialect, found.malformed, dict(found.leftovers)) == ("lycoris", False, {})
    assert len(network.loras) == len(found.layers) == 3
    for lora in network.loras:
        path = names[lora.lora_name.removeprefix(f"{prefix}_")]
        ours = found.layers[ModuleRef(Component.DENOISER, path)].delta(found.architecture.modules[path])
        with torch.no_grad():
            assert error(lora.lora_up.weight @ lora.lora_down.weight * lora.scale, ours) < 1e-6
