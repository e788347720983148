"""A checkpoint is read by what its weights are, whatever layout it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import (
    ATTENTION,
    ENCODER,
    full_shapes,
    ldm_keys,
    small_model,
    unet,
    write_diffusers,
    write_file,
    write_ldm,
    write_sparse,
)

from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.tensors import to_torch
from hubtool.errors import CheckpointProblem, FileMissing, FileProblem
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture, architecture_ids

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.adapters.checkpoint import Checkpoint
    from hubtool.naming.architecture import Architecture

LAYER = "text_model.encoder.layers.0."


def assert_holds(checkpoint: Checkpoint, weights: dict[ModuleRef, torch.Tensor]) -> None:
    assert checkpoint.weights.keys() == weights.keys()
    for module, weight in weights.items():
        assert torch.equal(to_torch(checkpoint.weights[module].tensor).flatten(), weight.flatten()), module


def test_one_file_and_a_diffusers_folder_hold_the_same_modules(tmp_path: Path) -> None:
    weights = small_model()
    for path in (write_ldm(tmp_path / "one.safetensors", weights), write_diffusers(tmp_path / "folder", weights)):
        checkpoint = read_checkpoint(path)
        assert checkpoint.architecture.id == "sd1"
        assert checkpoint.components == {Component.DENOISER, Component.CLIP_L}
        assert_holds(checkpoint, weights)


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
def test_a_denoiser_is_found_under_every_prefix(tmp_path: Path, prefix: str) -> None:
    weights = {module: weight for module, weight in small_model().items() if module.component is Component.DENOISER}
    keys = {key.replace("model.diffusion_model.", prefix): weight for key, weight in ldm_keys(weights).items()}
    assert_holds(read_checkpoint(write_file(tmp_path / "unet.safetensors", keys)), weights)


def test_a_denoiser_saved_alone_is_read_as_file_and_as_folder(tmp_path: Path) -> None:
    weights = {module: weight for module, weight in small_model().items() if module.component is Component.DENOISER}
    folder = write_diffusers(tmp_path / "folder", weights) / "unet"
    assert_holds(read_checkpoint(folder), weights)
    assert_holds(read_checkpoint(folder / "diffusion_pytorch_model.safetensors"), weights)


def test_text_encoder_names_without_text_model_are_the_same_modules(tmp_path: Path) -> None:
    weights = small_model()
    keys = {key.replace("transformer.text_model.", "transformer."): weight for key, weight in ldm_keys(weights).items()}
    assert_holds(read_checkpoint(write_file(tmp_path / "short.safetensors", keys)), weights)


@pytest.mark.parametrize(
    ("architecture", "component", "prefix", "width"),
    [
        ("sd2", Component.CLIP_H, "cond_stage_model.model.", 1024),
        ("sdxl", Component.CLIP_G, "conditioner.embedders.1.model.", 1280),
    ],
)
def test_open_clip_attention_is_cut_into_q_k_and_v(
    tmp_path: Path, architecture: str, component: Component, prefix: str, width: int
) -> None:
    block = f"{prefix}transformer.resblocks.0."
    fused = torch.arange(3.0)[:, None, None].expand(3, width, width).reshape(3 * width, width).half()
    tensors = {
        f"{block}attn.in_proj_weight": fused,
        f"{block}attn.in_proj_bias": torch.arange(3.0).repeat_interleave(width).half(),
        f"{block}attn.out_proj.weight": torch.full((width, width), 3.0).half(),
        f"{block}mlp.c_fc.weight": torch.full((4 * width, width), 4.0).half(),
        f"{block}mlp.c_proj.weight": torch.full((width, 4 * width), 5.0).half(),
    }
    checkpoint = read_checkpoint(write_file(tmp_path / "clip.safetensors", tensors))
    assert checkpoint.architecture.id == architecture
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    for value, name in enumerate(names):
        weight = to_torch(checkpoint.weights[ModuleRef(component, LAYER + name)].tensor)
        assert weight.unique().tolist() == [value], name
    biases = [to_torch(checkpoint.biases[ModuleRef(component, LAYER + name)]).unique().tolist() for name in names[:3]]
    assert biases == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    ("architecture", "encoders"),
    [
        ("sd1", [(Component.CLIP_L, "cond_stage_model.transformer.")]),
        ("sd2", []),
        ("sdxl", [(Component.CLIP_L, "conditioner.embedders.0.transformer.")]),
    ],
)
def test_every_weight_of_a_whole_model_is_understood(
    tmp_path: Path, architecture: str, encoders: list[tuple[Component, str]]
) -> None:
    shapes = full_shapes(architecture, encoders)
    checkpoint = read_checkpoint(write_sparse(tmp_path / "x.safetensors", shapes))
    assert checkpoint.fits == (architecture,)
    assert not checkpoint.others
    assert len(checkpoint.weights) == len(shapes)


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    weights = small_model()
    named = {f"{module.path}.weight": weight for module, weight in weights.items() if module.path != ENCODER}
    folder = tmp_path / "model" / "unet"
    names = [f"diffusion_pytorch_model-0000{part}-of-00002.safetensors" for part in (1, 2)]
    for part, name in enumerate(names):
        write_file(folder / name, dict(list(named.items())[part::2]))
    table = {key: names[index % 2] for index, key in enumerate(named)}
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    for path in (tmp_path / "model", folder, index):
        checkpoint = read_checkpoint(path)
        assert_holds(checkpoint, {module: w for module, w in weights.items() if module.path != ENCODER})
        assert len(checkpoint.files) == 2


@pytest.mark.parametrize("table", ['{"weight_map": {"a": "../secret.safetensors"}}', "[]", "{", '{"weight_map": 3}'])
def test_an_index_that_is_none_or_leads_elsewhere_is_refused(tmp_path: Path, table: str) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(table)
    with pytest.raises(CheckpointProblem):
        read_checkpoint(index)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(FileMissing, match="model-00001-of-00001"):
        read_checkpoint(index)


def test_of_several_variants_the_full_one_is_read_and_said_so(tmp_path: Path) -> None:
    weights = small_model()
    folder = write_diffusers(tmp_path / "model", weights)
    half = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    write_file(half, {f"{ATTENTION}.weight": torch.zeros(320, 320).half()})
    checkpoint = read_checkpoint(folder)
    assert_holds(checkpoint, weights)
    assert any("unet holds 2 variants" in note for note in checkpoint.notes)


def test_a_folder_with_only_a_half_precision_variant_is_read(tmp_path: Path) -> None:
    weights = {module: small_model()[module] for module in unet(ATTENTION)}
    named = {f"{module.path}.weight": weight for module, weight in weights.items()}
    write_file(tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors", named)
    assert_holds(read_checkpoint(tmp_path), weights)


def test_averaged_weights_are_left_alone_and_mentioned(tmp_path: Path) -> None:
    weights = small_model()
    keys = ldm_keys(weights)
    averaged = {"model_ema.diffusion_modelinput_blocks11proj_inweight": torch.zeros(320, 320, 1, 1)}
    checkpoint = read_checkpoint(write_file(tmp_path / "ema.safetensors", keys | averaged))
    assert_holds(checkpoint, weights)
    assert any("1 averaged (EMA)" in note for note in checkpoint.notes)


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
def test_scaled_float8_weights_come_with_their_scale(tmp_path: Path, suffix: str) -> None:
    key = next(iter(ldm_keys({module: torch.zeros(1) for module in unet(ATTENTION)})))
    tensors = {
        key: torch.ones(320, 320).to(torch.float8_e4m3fn),
        key.removesuffix("weight") + suffix: torch.tensor(0.25),
    }
    checkpoint = read_checkpoint(write_file(tmp_path / "fp8.safetensors", tensors))
    assert checkpoint.weights[unet(ATTENTION)[0]].scale == 0.25


def test_a_lora_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    path = write_file(tmp_path / "style.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(4, 320)})
    with pytest.raises(CheckpointProblem, match=r"style\.safetensors is a LoRA"):
        read_checkpoint(path)


def test_weights_of_no_known_architecture_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path / "other.safetensors", {"layer.0.weight": torch.zeros(4, 4)})
    with pytest.raises(CheckpointProblem, match="fit no architecture"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_at_all_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointProblem, match="holds no weights"):
        read_checkpoint(tmp_path / "empty")
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl" + b"\0" * 100)
    with pytest.raises(FileProblem):
        read_checkpoint(pickle)


def original_shapes(target: Architecture) -> dict[str, tuple[int, ...]]:
    """Every module of the denoiser under the authors' name, stacked as they have it."""
    found = {name: target.modules[path] for path, name in target.original.items()}
    done = set(target.original)
    for name, fused in target.fused.items():
        if not fused.partial and done.isdisjoint(fused.parts):
            found[name] = target.shape(ModuleRef(Component.DENOISER, name)) or ()
            done.update(fused.parts)
    return found


@pytest.mark.parametrize("id", architecture_ids())
@pytest.mark.parametrize("naming", ["diffusers", "original", "one file"])
def test_every_architecture_is_read_in_every_naming(tmp_path: Path, id: str, naming: str) -> None:
    target = architecture(id)
    shapes = dict(target.modules) if naming == "diffusers" else original_shapes(target)
    if not shapes:
        pytest.skip("the authors' code uses diffusers' names")
    prefix = "model.diffusion_model." if naming == "one file" else ""
    sparse = {f"{prefix}{name}.weight": shape for name, shape in shapes.items()}
    checkpoint = read_checkpoint(write_sparse(tmp_path / "model.safetensors", sparse, "BF16"))
    assert id in checkpoint.fits
    assert len(checkpoint.others) == 0
    named = set(target.original) | {part for fused in target.fused.values() for part in fused.parts}
    wanted = set(target.modules) if naming == "diffusers" else named
    assert {module.path for module in checkpoint.weights} == wanted


def test_halves_that_the_authors_keep_the_other_way_round_are_swapped(tmp_path: Path) -> None:
    target = architecture("flux1")
    keys = {
        key: shape
        for key, shape in original_shapes(target).items()
        if key.startswith(("final_layer", "time_in", "vector_in"))
    }
    tensors = {f"{key}.weight": torch.zeros(shape, dtype=torch.bfloat16) for key, shape in keys.items()}
    weight = tensors["final_layer.adaLN_modulation.1.weight"]
    weight[:3072] = 1
    found = read_checkpoint(write_file(tmp_path / "flux.safetensors", tensors))
    read = to_torch(found.weights[ModuleRef(Component.DENOISER, "norm_out.linear")].tensor)
    assert torch.equal(read, torch.cat([weight[3072:], weight[:3072]]))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_checkpoint_is_read_without_running_it(tmp_path: Path, zipped: bool) -> None:
    weights = small_model()
    saved = {"state_dict": ldm_keys(weights), "global_step": 7}
    torch.save(saved, tmp_path / "model.ckpt", _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(tmp_path / "model.ckpt")
    assert_holds(checkpoint, weights)
    assert len(checkpoint.header_sha256) == 64


def test_a_folder_of_bin_files_is_read_where_there_are_no_others(tmp_path: Path) -> None:
    weights = small_model()
    (tmp_path / "unet").mkdir()
    unets = {f"{module.path}.weight": weights[module] for module in weights if module.component is Component.DENOISER}
    torch.save(unets, tmp_path / "unet" / "diffusion_pytorch_model.bin")
    assert read_checkpoint(tmp_path).weights.keys() == {m for m in weights if m.component is Component.DENOISER}


def test_a_float8_weight_with_a_scale_for_each_row_is_refused(tmp_path: Path) -> None:
    keys = ldm_keys(small_model())
    name = next(iter(keys)).removesuffix(".weight")
    keys[f"{name}.scale_weight"] = torch.ones(320, 1)
    with pytest.raises(CheckpointProblem, match="320"):
        read_checkpoint(write_file(tmp_path / "rows.safetensors", keys))
