"""PEFT itself reads our `peft` dialect, and we read what it saves."""

from __future__ import annotations

import pytest
import torch
from oracle.models import FOLDABLE, adapter_for, error
from safetensors.torch import load_file

from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.naming.address import Component, ModuleRef
from hubtool.operations.convert import convert

peft = pytest.importorskip("peft")

#: A few layers of one attention block, as diffusers names them.
PATHS = [
    f"down_blocks.1.attentions.0.transformer_blocks.0.{name}"
    for name in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2")
]


def block(shapes: dict[str, tuple[int, int]]) -> torch.nn.Module:
    """A tree of linear layers under the given dotted names."""
    root = torch.nn.Module()
    for path, (rows, columns) in shapes.items():
        *parents, leaf = path.split(".")
        node = root
        for name in parents:
            if not hasattr(node, name):
                node.add_module(name, torch.nn.Module())
            node = getattr(node, name)
        node.add_module(leaf, torch.nn.Linear(columns, rows, bias=False))
    root.forward = lambda x: x  # PEFT wraps it; nothing is run
    return root


def test_peft_loads_our_file_to_the_same_change(tmp_path):
    source = adapter_for("sdxl", [ModuleRef(Component.DENOISER, path) for path in PATHS], FOLDABLE[:1])
    write_adapter(tmp_path / "kohya.safetensors", source, "kohya")
    convert(tmp_path / "kohya.safetensors", "peft", tmp_path / "out.safetensors")

    model = block({path: source.architecture.modules[path] for path in PATHS})
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=PATHS)
    wrapped = peft.get_peft_model(model, config)
    found = peft.set_peft_model_state_dict(wrapped, load_file(tmp_path / "out.safetensors"))
    assert found.unexpected_keys == []
    layers = {name.removeprefix("base_model.model."): layer for name, layer in wrapped.named_modules()}
    for module, layer in source.layers.items():
        with torch.no_grad():
            theirs = layers[module.path].get_delta_weight("default")
        assert error(theirs, layer.delta(source.architecture.modules[module.path])) < 1e-6


def test_we_read_what_peft_saves(tmp_path):
    shapes = {path: adapter_for("sdxl", []).architecture.modules[path] for path in PATHS}
    config = peft.LoraConfig(r=6, lora_alpha=6, target_modules=PATHS, init_lora_weights=False)
    wrapped = peft.get_peft_model(block(shapes), config)
    wrapped.save_pretrained(tmp_path)

    ours = read_adapter(tmp_path / "adapter_model.safetensors")
    assert (ours.dialect, ours.architecture.id, len(ours.layers)) == ("peft", "sdxl", len(PATHS))
    layers = {name.removeprefix("base_model.model."): layer for name, layer in wrapped.named_modules()}
    for module, layer in ours.layers.items():
        with torch.no_grad():
            theirs = layers[module.path].get_delta_weight("default")
        assert error(theirs, layer.delta(shapes[module.path])) < 1e-6


def test_a_raw_state_dict_keeps_its_adapter_name_and_is_read_all_the_same(tmp_path):
    from safetensors.torch import save_file

    shapes = {path: adapter_for("sdxl", []).architecture.modules[path] for path in PATHS}
    config = peft.LoraConfig(r=6, lora_alpha=6, target_modules=PATHS, init_lora_weights=False)
    wrapped = peft.get_peft_model(block(shapes), config, adapter_name="my_style")
    state = {name: value for name, value in wrapped.state_dict().items() if "lora_" in name}
    save_file(state, tmp_path / "raw.safetensors")

    ours = read_adapter(tmp_path / "raw.safetensors")
    assert (ours.dialect, ours.architecture.id, len(ours.layers), ours.leftovers) == ("peft", "sdxl", len(PATHS), {})


@pytest.mark.parametrize(
    ("kind", "options", "family"),
    [
        ("LoHaConfig", {"r": 4, "alpha": 2}, "loha"),
        ("LoKrConfig", {"r": 4, "alpha": 2}, "lokr"),
        ("LoKrConfig", {"r": 4, "alpha": 8, "decompose_both": True}, "lokr"),
        ("LoraConfig", {"r": 4, "lora_alpha": 12, "alpha_pattern": {"attn2.to_k": 2}}, "lora"),
        ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"ff.net.2": 9}}, "lora"),
        ("OFTConfig", {"oft_block_size": 32, "r": 0, "use_cayley_neumann": False}, "oft"),
        ("IA3Config", {"feedforward_modules": []}, "ia3"),
    ],
)
def test_every_family_that_peft_saves_is_read_to_pefts_own_change(tmp_path, kind, options, family):
    """Scales of LoHa and LoKr stand in adapter_config.json alone."""
    shapes = {path: adapter_for("sdxl", []).architecture.modules[path] for path in PATHS}
    model = block(shapes)
    if family in {"lora", "loha", "lokr"}:  # so that merging does not round their change away
        model.requires_grad_(requires_grad=False)
        for weight in model.parameters():
            weight.zero_()
    extra = {} if kind == "IA3Config" else {"init_weights": False}
    extra = {"init_lora_weights": False} if kind == "LoraConfig" else extra
    extra = {"init_ia3_weights": False} if kind == "IA3Config" else extra
    wrapped = peft.get_peft_model(model, getattr(peft, kind)(target_modules=PATHS, **options, **extra))
    wrapped.save_pretrained(tmp_path)

    ours = read_adapter(tmp_path / "adapter_model.safetensors")
    assert (ours.dialect, len(ours.layers), ours.leftovers) == ("peft", len(PATHS), {})
    layers = {name.removeprefix("base_model.model."): layer for name, layer in wrapped.named_modules()}
    for module, layer in ours.layers.items():
        assert layer.parametrization is not None
        assert layer.parametrization.id == family
        base = layers[module.path].base_layer.weight.detach().clone()
        layers[module.path].merge()
        theirs = layers[module.path].base_layer.weight.detach() - base
        assert error(theirs, layer.delta(shapes[module.path], base)) < 1e-5
