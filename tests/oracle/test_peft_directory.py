"""The folders we write are PEFT's: `PeftModel.from_pretrained` loads them to the same change."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from oracle.models import adapter_for, error
from oracle.test_peft import PATHS, block
from safetensors.torch import save_file

from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.tensors import from_torch
from hubtool.errors import NotRepresentable
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.convert import convert

peft = pytest.importorskip("peft")

MIXED = [*PATHS, "down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv_shortcut", "conv_in"]
SCALES = ((4, 3.0), (8, 8.0), (4, 3.0), (5, 1.0))


def modules(paths):
    return [ModuleRef(Component.DENOISER, path) for path in paths]


def loaded(source, folder):
    """Each layer of a bare model after PEFT has loaded the folder into it."""
    model = block({module.path: source.architecture.modules[module.path] for module in source.layers})
    wrapped = peft.PeftModel.from_pretrained(model, folder)
    return {name.removeprefix("base_model.model."): layer for name, layer in wrapped.named_modules()}


def written(source, tmp_path, start="kohya"):
    write_adapter(tmp_path / "in.safetensors", source, start)
    convert(tmp_path / "in.safetensors", "peft", tmp_path / "folder" / "adapter_model.safetensors")
    return tmp_path / "folder"


@pytest.mark.filterwarnings("error:Found missing adapter keys")
@pytest.mark.parametrize("paths", [PATHS, MIXED], ids=["linear", "convolutions"])
def test_ranks_and_alphas_that_differ_are_patterns(tmp_path, paths):
    source = adapter_for("sdxl", modules(paths), SCALES)
    layers = loaded(source, written(source, tmp_path))
    for module, layer in source.layers.items():
        with torch.no_grad():
            theirs = layers[module.path].get_delta_weight("default")
        assert error(theirs, layer.delta(source.architecture.modules[module.path])) < 1e-6


def test_a_path_that_is_the_ending_of_another_reaches_that_one_only(tmp_path):
    """FLUX.1 has proj_out at the end and in every single block; PEFT takes a target for an ending."""
    source = adapter_for("flux1", modules(["proj_out", "x_embedder"]), SCALES)
    folder = written(source, tmp_path)
    target = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    model = block({"proj_out": (8, 8), "single_transformer_blocks.0.proj_out": (8, 8), "x_embedder": (8, 8)})
    config = peft.LoraConfig(r=2, target_modules=target)
    assert sorted(peft.get_peft_model(model, config).targeted_module_names) == ["proj_out", "x_embedder"]


def test_magnitudes_are_loaded(tmp_path):
    source = adapter_for("sdxl", modules(PATHS), SCALES)
    random = torch.Generator().manual_seed(1)
    for layer in source.layers.values():
        rows = layer.tensors[Role.UP].shape[0]
        layer.tensors[Role.MAGNITUDE] = from_torch(torch.rand((rows, 1), generator=random))
    layers = loaded(source, written(source, tmp_path))
    for module, layer in source.layers.items():
        theirs = layers[module.path].lora_magnitude_vector["default"].weight
        assert torch.equal(theirs.detach().flatten(), layer.float(Role.MAGNITUDE).flatten())


@pytest.mark.parametrize("options", [{"r": 4, "alpha": 2}, {"r": 4, "alpha": 2, "use_effective_conv2d": True}])
def test_loha_goes_there_and_back(tmp_path, options):
    paths = [*PATHS, "down_blocks.0.resnets.0.conv1"]
    shapes = {path: adapter_for("sdxl", []).architecture.modules[path] for path in paths}
    config = peft.LoHaConfig(target_modules=paths, init_weights=False, **options)
    wrapped = peft.get_peft_model(block(shapes), config)
    wrapped.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs" / "adapter_model.safetensors", "kohya", tmp_path / "kohya.safetensors")
    convert(tmp_path / "kohya.safetensors", "peft", tmp_path / "ours" / "adapter_model.safetensors")
    again = peft.PeftModel.from_pretrained(block(shapes), tmp_path / "ours")
    layers = dict(again.named_modules())
    for name, layer in wrapped.named_modules():
        if hasattr(layer, "get_delta_weight"):
            with torch.no_grad():
                assert error(layers[name].get_delta_weight("default"), layer.get_delta_weight("default")) < 1e-6


def test_a_folder_reads_back_to_the_same_keys_and_bytes(tmp_path):
    source = adapter_for("sdxl", modules(PATHS), SCALES)
    folder = written(source, tmp_path)
    convert(folder / "adapter_model.safetensors", "kohya", tmp_path / "back.safetensors")
    first, second = read_adapter(tmp_path / "in.safetensors"), read_adapter(tmp_path / "back.safetensors")
    assert first.layers.keys() == second.layers.keys()
    for module, role in itertools.product(first.layers, (Role.UP, Role.DOWN, Role.ALPHA)):
        assert bytes(first.layers[module].tensors[role].view()) == bytes(second.layers[module].tensors[role].view())


def test_text_encoders_have_folders_of_their_own(tmp_path):
    encoder = ModuleRef(Component.CLIP_L, "text_model.encoder.layers.0.mlp.fc1")
    source = adapter_for("sdxl", [*modules(PATHS), encoder], SCALES)
    folder = written(source, tmp_path)
    config = peft.PeftConfig.from_pretrained(folder, subfolder="text_encoder")
    assert config.target_modules == {encoder.path}
    assert list(read_adapter(folder / "text_encoder" / "adapter_model.safetensors").layers) == [encoder]
    model = block({encoder.path: (3072, 768)})
    wrapped = peft.PeftModel.from_pretrained(model, folder, subfolder="text_encoder")
    layer = dict(wrapped.named_modules())[f"base_model.model.{encoder.path}"]
    with torch.no_grad():
        assert error(layer.get_delta_weight("default"), source.layers[encoder].delta((3072, 768))) < 1e-6


def test_magnitudes_of_some_modules_only_are_refused(tmp_path):
    source = adapter_for("sdxl", modules(PATHS), SCALES)
    first = next(iter(source.layers.values()))
    first.tensors[Role.MAGNITUDE] = from_torch(torch.rand((first.tensors[Role.UP].shape[0], 1)))
    with pytest.raises(NotRepresentable):
        written(source, tmp_path)
    assert not (tmp_path / "folder").exists()


def test_a_base_model_that_nobody_knows_has_no_folder(tmp_path):
    strange = {
        f"lora_unet_strange_{i}.lora_{part}.weight": torch.rand((4, 4)) for i in range(4) for part in ("up", "down")
    }
    save_file(strange, tmp_path / "in.safetensors")
    with pytest.raises(NotRepresentable, match="unknown"):
        convert(tmp_path / "in.safetensors", "peft", tmp_path / "folder" / "adapter_model.safetensors")
    assert not (tmp_path / "folder").exists()
