"""PEFT itself reads our `peft` dialect, and we read what it saves."""

from __future__ import annotations

import pytest
import torch
from oracle.models import FOLDABLE, adapter_for, error
from safetensors.torch import load_file

from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.rewriting import magnitudes_for
from hubtool.naming.address import Component, ModuleRef
from hubtool.operations.convert import convert

peft = pytest.importorskip("peft")

#: A few layers of one attention block, as diffusers names them.
PATHS = [
    f"down_blocks.1.attentions.0.transformer_blocks.0.{name}"
    for name in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k", "ff.net.0.proj", "ff.net.2")
]


def block(shapes: dict[str, tuple[int, ...]]) -> torch.nn.Module:
    """A tree of linear layers and convolutions under the given dotted names."""
    root = torch.nn.Module()
    for path, (rows, columns, *kernel) in shapes.items():
        *parents, leaf = path.split(".")
        node = root
        for name in parents:
            if not hasattr(node, name):
                node.add_module(name, torch.nn.Module())
            node = getattr(node, name)
        layer = (
            torch.nn.Conv2d(columns, rows, kernel, bias=False) if kernel else torch.nn.Linear(columns, rows, bias=False)
        )
        node.add_module(leaf, layer)
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


#: A 1×1 convolution, a 3×3 one, and a linear layer whose sides differ.
MIXED = ["down_blocks.1.resnets.0.conv_shortcut", "down_blocks.0.resnets.0.conv1", PATHS[2]]


@pytest.mark.parametrize(
    ("kind", "options", "family"),
    [
        ("LoHaConfig", {"r": 4, "alpha": 2}, "loha"),
        ("LoHaConfig", {"r": 4, "alpha": 2, "use_effective_conv2d": True}, "loha"),
        ("LoKrConfig", {"r": 4, "alpha": 2}, "lokr"),
        ("LoKrConfig", {"r": 4, "alpha": 8, "decompose_both": True}, "lokr"),
        ("LoKrConfig", {"r": 4, "alpha": 8, "use_effective_conv2d": True, "decompose_factor": 4}, "lokr"),
        ("LoraConfig", {"r": 4, "lora_alpha": 12, "alpha_pattern": {"attn2.to_k": 2}}, "lora"),
        ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_rslora": True, "rank_pattern": {"ff.net.2": 9}}, "lora"),
        ("LoraConfig", {"r": 4, "lora_alpha": 8, "use_dora": True}, "lora"),
        ("OFTConfig", {"oft_block_size": 32, "r": 0, "use_cayley_neumann": False}, "oft"),
        ("OFTConfig", {"oft_block_size": 32, "r": 0}, "oft"),
        ("OFTConfig", {"oft_block_size": 32, "r": 0, "num_cayley_neumann_terms": 7}, "oft"),
        ("OFTConfig", {"oft_block_size": 16, "r": 0, "block_share": True}, "oft"),
        ("BOFTConfig", {"boft_block_size": 32}, "boft"),
        ("IA3Config", {"feedforward_modules": []}, "ia3"),
        ("IA3Config", {"feedforward_modules": ["attn2.to_k", "conv_shortcut", "ff.net.2"]}, "ia3"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # BOFT looks for a compiler of CUDA
@pytest.mark.parametrize("paths", [PATHS, MIXED], ids=["linear", "convolutions"])
def test_every_family_that_peft_saves_is_read_to_pefts_own_change(tmp_path, kind, options, family, paths):
    """Scales of LoHa and LoKr, and which way OFT turns, stand in adapter_config.json alone."""
    shapes = {path: adapter_for("sdxl", []).architecture.modules[path] for path in paths}
    model = block(shapes)
    if (
        family in {"lora", "loha", "lokr"} and "use_dora" not in options
    ):  # so that merging does not round the change away
        model.requires_grad_(requires_grad=False)
        for weight in model.parameters():
            weight.zero_()
    init = {"LoraConfig": "init_lora_weights", "IA3Config": "init_ia3_weights"}.get(kind, "init_weights")
    options = {**options, init: False}
    if kind == "IA3Config":
        options["feedforward_modules"] = [p for p in paths if p.endswith(tuple(options["feedforward_modules"]))]
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, getattr(peft, kind)(target_modules=paths, **options))
    layers = {name.removeprefix("base_model.model."): layer for name, layer in wrapped.named_modules()}
    if options.get("use_dora"):
        for path in paths:
            layers[path].lora_magnitude_vector["default"].weight.data *= 1.3
    wrapped.save_pretrained(tmp_path)

    ours = read_adapter(tmp_path / "adapter_model.safetensors", architecture_id="sdxl")
    assert (len(ours.layers), ours.leftovers) == (len(paths), {})
    ours = magnitudes_for(ours, "kohya")  # (1, n, 1, 1) means outputs to PEFT and inputs to everyone else
    for module, layer in ours.layers.items():
        assert layer.parametrization is not None
        assert layer.parametrization.id == family
        base = layers[module.path].base_layer.weight.detach().clone()
        layers[module.path].merge()
        theirs = layers[module.path].base_layer.weight.detach() - base
        assert error(theirs, layer.change(shapes[module.path], base)) < 2e-5, module
