"""Files that are no LoRA are called what they are: by inspect, validate and convert alike."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from support.adapters import in_memory, lora, modules_like
from support.files import Raw, number, random_tensor, write

from hubtool.errors import NotAnAdapter
from hubtool.operations.convert import convert
from hubtool.operations.inspect import inspect_file
from hubtool.operations.validate import validate

Shape = tuple[int, ...]


def weights(*keys: str, shape: Shape = (4, 4)) -> dict[str, Raw]:
    return {key: random_tensor(index, shape) for index, key in enumerate(keys)}


class Case(NamedTuple):
    """A file's tensors, and what has to be said of it."""

    tensors: dict[str, Raw]
    kind: str
    what: str
    ending: str = "OTHER"  # of validation's code


CONTROLNET = ("other", "a ControlNet", "CONTROLNET")
LLLITE = ("other", "a ControlNet (LLLite)", "CONTROLNET")
VAE = ("other", "a VAE", "VAE")
UPSCALER = ("other", "an upscaler")
EMBEDDING = ("embedding", "a textual-inversion embedding", "EMBEDDING")
CHECKPOINT = ("checkpoint", "a checkpoint (whole model weights)", "CHECKPOINT")
CONTROL_LORA = [f"input_blocks.{i}.1.proj_in.{x}" for i in (4, 5) for x in ("up", "down")]
TRANSFORMER_LLLITE = [f"lllite_dit_blocks_{i}_self_attn_q_proj.{x}.weight" for i in (0, 1) for x in ("down", "up")]

FILES = {
    "ControlNet of SD 1.x": Case(
        weights("control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.weight"), *CONTROLNET),
    "ControlNet with its checkpoint": Case(
        weights("control_model.zero_convs.0.0.weight", "model.diffusion_model.out.2.weight"), *CONTROLNET),
    "ControlNet of diffusers": Case(
        weights("controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"), *CONTROLNET),
    "ControlNet of FLUX": Case(weights("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight"), *CONTROLNET),
    "Control-LoRA": Case(weights("lora_controlnet", *CONTROL_LORA), "other", "a ControlNet (Control-LoRA)", "CONTROLNET"),
    "LLLite": Case(weights(*(f"lllite_unet_input_blocks_4_1.{x}.0.weight" for x in ("down", "mid", "up"))), *LLLITE),
    "LLLite of a transformer": Case(weights(*TRANSFORMER_LLLITE), *LLLITE),
    "T2I-Adapter": Case(weights("adapter.body.0.resnets.0.block1.weight"), "other", "a T2I-Adapter"),
    "IP-Adapter": Case(weights("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "other", "an IP-Adapter"),
    "motion module": Case(
        weights("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"), "other", "a motion module (AnimateDiff)"),
    "VAE of CompVis": Case(weights("encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"), *VAE),
    "VAE of diffusers": Case(weights("decoder.up_blocks.0.resnets.0.conv1.weight", "quant_conv.weight"), *VAE),
    "upscaler": Case(weights("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), *UPSCALER),
    "upscaler with windows": Case(
        weights("conv_first.weight", "layers.0.residual_group.blocks.0.attn.qkv.weight"), *UPSCALER),
    "hypernetwork": Case(
        weights("768.0.linear.0.weight", "768.1.linear.0.weight", "1280.0.linear.0.weight"), "other", "a hypernetwork"),
    "embedding of A1111": Case({"emb_params": random_tensor(1, (8, 768))}, *EMBEDDING),
    "embedding of SDXL": Case({"clip_l": random_tensor(1, (8, 768)), "clip_g": random_tensor(2, (8, 1280))}, *EMBEDDING),
    "embedding of diffusers": Case({"<cat-toy>": random_tensor(1, (768,))}, *EMBEDDING),
    "checkpoint of CompVis": Case(
        weights("model.diffusion_model.out.2.weight", "first_stage_model.decoder.conv_in.weight"), *CHECKPOINT),
    "checkpoint of diffusers": Case(weights("transformer_blocks.0.attn.to_q.weight"), *CHECKPOINT),
    "text encoder": Case(weights("text_model.encoder.layers.0.mlp.fc1.weight"), "checkpoint", "a text encoder", "CHECKPOINT"),
    "language model": Case(
        weights("model.layers.0.self_attn.q_proj.weight", "lm_head.weight"), "checkpoint", "a language model", "CHECKPOINT"),
    "image encoder": Case(
        weights("vision_model.encoder.layers.0.mlp.fc1.weight"), "checkpoint", "an image encoder", "CHECKPOINT"),
    "nothing known": Case(weights("whatever"), "other", "no LoRA-family file"),
}  # fmt: skip

files = pytest.mark.parametrize("case", FILES.values(), ids=FILES.keys())


@files
def test_it_is_called_what_it_is(tmp_path: Path, case: Case) -> None:
    path = write(tmp_path / "x.safetensors", case.tensors)
    found = inspect_file(in_memory(case.tensors))
    assert (found.kind, found.what) == (case.kind, case.what)
    assert (found.dialect, found.architecture, found.modules, found.relatives) == (None, None, 0, ())
    verdict = validate(path)
    assert verdict.verdict == "refused"
    assert [problem.code for problem in verdict.problems] == [f"E_NOT_A_LORA_{case.ending}"]
    assert case.what in verdict.problems[0].message


@files
def test_convert_names_it_and_writes_nothing(tmp_path: Path, case: Case) -> None:
    path = write(tmp_path / "x.safetensors", case.tensors)
    with pytest.raises(NotAnAdapter, match=re.escape(f"x.safetensors is {case.what}")):
        convert(path, "kohya", tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stray", ["control.weight", "down_blocks.0.motion_modules.0.proj_in.weight", "clip_l"])
def test_a_lora_with_a_stray_tensor_of_another_kind_stays_a_lora(stray: str) -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn2.to_k")[:3], alpha=2) | {stray: number(1, "F16", (2,))}
    found = inspect_file(in_memory(tensors))
    assert (found.kind, found.architecture, found.leftovers) == ("adapter", "sd1", (stray,))


def test_a_checkpoint_with_a_few_lora_keys_is_a_checkpoint() -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn2.to_k")[:1]) | weights(
        *(f"model.diffusion_model.input_blocks.{i}.0.weight" for i in range(9))
    )
    assert inspect_file(in_memory(tensors)).kind == "checkpoint"


def test_numbers_as_wide_as_tokens_are_no_embedding_where_they_have_module_names() -> None:
    assert inspect_file(in_memory({"proj.weight": random_tensor(1, (8, 768))})).kind == "other"
