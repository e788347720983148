"""The rarer dialects, on the way there and back: the same effect on the model, and the same bytes in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from support.adapters import denoiser, lora, modules_like
from support.conversions import round_trip
from support.effects import difference, effects
from support.files import write

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect
from hubtool.operations.convert import ConvertOptions, convert

if TYPE_CHECKING:
    from pathlib import Path

FLUX = denoiser(
    "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v",
    "transformer_blocks.0.ff.net.0.proj", "norm_out.linear", "proj_out",
)  # fmt: skip
CLIP = ModuleRef(Component.CLIP_L, "text_model.encoder.layers.0.self_attn.q_proj")
HUNYUAN = denoiser(
    "double_blocks.0.img_attn.qkv", "transformer_blocks.0.norm1.linear", "single_blocks.1.linear1",
    "txt_in.individual_token_refiner.blocks.0.self_attn.qkv",
)  # fmt: skip
MOTION = modules_like(
    "animatediff", "down_blocks.0.motion_modules.1.transformer_blocks.0.attn2.to_out.0", "attn1.to_q"
)[:6]


class Way(NamedTuple):
    """What is converted to what."""

    architecture: str
    source: str
    modules: list[ModuleRef]
    alpha: float | None
    target: str


TRIPS = [
    Way("flux1", "onetrainer", [*FLUX, CLIP], 2.0, "kohya"),
    Way("flux1", "onetrainer", FLUX, 2.0, "comfyui"),
    Way("flux1", "onetrainer", [*FLUX, CLIP], None, "diffusers"),
    Way("flux1", "lycoris", FLUX, 2.0, "kohya"),
    Way("flux1", "lycoris", FLUX, 2.0, "onetrainer"),
    Way("flux1", "lycoris", FLUX, 2.0, "diffusers"),
    Way("sdxl", "lycoris", modules_like("sdxl", "0.attn2.to_k")[:4], 3.0, "kohya"),
    Way("hunyuanvideo", "hunyuan", HUNYUAN, 2.0, "kohya"),
    Way("hunyuanvideo", "hunyuan", HUNYUAN, 2.0, "comfyui"),
    Way("hunyuanvideo", "hunyuan", HUNYUAN, 2.0, "diffusers"),
    Way("hunyuanvideo", "hunyuan", HUNYUAN, 2.0, "onetrainer"),
    Way("animatediff", "animatediff", MOTION, None, "diffusers"),
    Way("animatediff", "animatediff", MOTION, None, "diffusers-old"),
    Way("animatediff", "animatediff", MOTION, None, "kohya"),
    Way("animatediff", "kohya", MOTION, 2.0, "animatediff"),
    Way("animatediff", "kohya", MOTION, 3.0, "animatediff"),
    Way("hunyuandit", "peft", denoiser("blocks.0.attn1.to_q", "blocks.0.attn2.to_k"), None, "original"),
]


@pytest.mark.parametrize("way", TRIPS, ids=lambda way: f"{way.architecture} {way.source} {way.target} {way.alpha}")
def test_there_and_back(tmp_path: Path, way: Way) -> None:
    tensors = lora(way.architecture, way.source, way.modules, alpha=way.alpha, dtype="F32")
    trip = round_trip(tmp_path, tensors, way.target, options=ConvertOptions(architecture=way.architecture))
    assert (trip.there.from_, trip.there.to, trip.there.exact) == (way.source, way.target, True)
    assert trip.change < 1e-6
    assert trip.after == trip.before
    assert set(trip.between) != set(trip.before)


#: The modules of FLUX above as OneTrainer wrote them in 2025.
OF_2025 = [
    "double_blocks.0.img_attn.qkv.0", "double_blocks.0.img_attn.qkv.1", "double_blocks.0.img_attn.qkv.2",
    "double_blocks.0.img_mlp.0", "final_layer.linear",
]  # fmt: skip


def test_onetrainers_second_format_means_the_same_as_its_first(tmp_path: Path) -> None:
    modules = [module for module in FLUX if module.path != "norm_out.linear"]  # whose halves are swapped there
    tensors = lora("flux1", "onetrainer", modules, alpha=2, dtype="F32")
    bases = dict.fromkeys(key.partition(".")[0] for key in tensors)
    names = dict(zip(bases, OF_2025, strict=True))
    split = {f"transformer.{names[key.partition('.')[0]]}.{key.partition('.')[2]}": raw for key, raw in tensors.items()}
    paths = write(tmp_path / "first.safetensors", tensors), write(tmp_path / "second.safetensors", split)
    results = [
        convert(path, "kohya", path.with_suffix(".out"), ConvertOptions(architecture="flux1")).output for path in paths
    ]
    assert difference(effects(results[0]), effects(results[1])) == 0


@pytest.mark.parametrize("architecture_id", ["flux1", "chroma", "sd3-medium", "hunyuanvideo", "sdxl", "wan21-1.3b"])
def test_every_module_of_an_architecture_has_a_name_in_onetrainers_oldest_format(architecture_id: str) -> None:
    target = architecture(architecture_id)
    written = dialect("onetrainer").written(target)
    assert {ModuleRef(Component.DENOISER, path) for path in target.modules} <= written.keys()
