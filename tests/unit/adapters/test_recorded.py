"""Scales that only the header's metadata know: read as PEFT reads them, whatever a stranger wrote there."""

import json
import time
from pathlib import Path

import pytest
from support.adapters import decoded, lora, modules_like
from support.effects import difference, effects
from support.files import write
from support.lazy import contents

from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.inspect import inspect_file

K, V = modules_like(
    "sd1", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", "attentions.0.transformer_blocks.0.attn2.to_v"
)[:2]
MODULES = modules_like("sd1", "attn2.to_k", "attn2.to_v")
SD1 = ConvertOptions(architecture="sd1")


def scales(config: dict[str, object], prefix: str = "unet.", dialect: str = "diffusers") -> set[float]:
    """Of every module of a rank 4 file with this configuration."""
    text = json.dumps({f"{prefix}{name}": value for name, value in config.items()})
    layers = decoded(lora("sd1", dialect, MODULES), {"lora_adapter_metadata": text}).layers
    return {layer.scale for layer in layers.values()}


def by_path(patterns: dict[str, object]) -> dict[str, float]:
    text = json.dumps({"unet.lora_alpha": 4, "unet.r": 4, "unet.alpha_pattern": patterns})
    layers = decoded(lora("sd1", "diffusers", MODULES), {"lora_adapter_metadata": text}).layers
    return {module.path: layer.scale for module, layer in layers.items()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"lora_alpha": 8, "r": 4}, 2.0),
        ({"lora_alpha": 8.0, "r": 99}, 2.0),
        ({"lora_alpha": 8, "r": 4, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "r": 4, "use_rslora": False}, 2.0),
        ({"lora_alpha": 8}, 2.0),
        ({"r": 4}, 1.0),
        ({}, 1.0),
        ({"lora_alpha": None}, 1.0),
        ({"lora_alpha": "8"}, 1.0),
        ({"lora_alpha": True}, 1.0),
        ({"lora_alpha": [8]}, 1.0),
        ({"lora_alpha": 10**400}, 1.0),
        ({"lora_alpha": 8, "use_rslora": "yes"}, 2.0),
        ({"lora_alpha": -8}, -2.0),
    ],
)
@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_the_scale_is_alpha_by_rank_of_the_tensors(config: dict[str, object], expected: float, prefix: str) -> None:
    assert scales(config, prefix) == {expected}


@pytest.mark.parametrize("dialect", ["diffusers", "peft", "diffusers-old"])
def test_dialects_without_alpha_tensors_have_their_scale_from_the_metadata(dialect: str) -> None:
    assert scales({"lora_alpha": 8}, dialect=dialect) == {2.0}


@pytest.mark.parametrize("dialect", ["comfyui", "kohya", "original"])
def test_dialects_whose_readers_ignore_the_metadata_ignore_it(dialect: str) -> None:
    assert scales({"lora_alpha": 8}, dialect=dialect) == {1.0}


def test_another_components_configuration_is_not_this_ones() -> None:
    assert scales({"lora_alpha": 8}, "text_encoder.") == {1.0}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"x"', "NaN", '{"unet.lora_alpha":NaN}', '{"unet.lora_alpha":1e999}', "[" * 90_000]
)
def test_metadata_that_are_no_configuration_count_as_absent(text: str) -> None:
    layers = decoded(lora("sd1", "diffusers", MODULES), {"lora_adapter_metadata": text}).layers
    assert {layer.scale for layer in layers.values()} == {1.0}


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("attn2.to_k", lambda path: path.endswith("attn2.to_k")),
        ("to_k", lambda path: path.endswith("to_k")),
        ("o_k", lambda _: False),
        ("^" + K.path, lambda path: path == K.path),
        ("^" + K.path.replace(".", r"\."), lambda path: path == K.path),
        ("^to_k", lambda _: False),
        (r".*up_blocks.*to_k", lambda path: "up_blocks" in path and path.endswith("to_k")),
        (r"attn2\.to_(k|q)", lambda path: path.endswith("to_k")),
        (r"(", lambda _: False),
        (r"[", lambda _: False),
        ("", lambda _: False),
        ("attn2xto_k", lambda _: False),
        (r"down_blocks\.0\..*", lambda path: path.startswith("down_blocks.0.")),
    ],
)
def test_a_pattern_names_modules_as_pefts_do(pattern: str, matches: object) -> None:
    assert by_path({pattern: 8}) == {module.path: 2.0 if matches(module.path) else 1.0 for module in MODULES}


def test_the_first_pattern_that_matches_counts() -> None:
    assert by_path({"attn2.to_k": 8, "to_k": 16, "to_v": 2})[K.path] == 2.0
    assert by_path({"to_k": 16, "attn2.to_k": 8, "to_v": 2})[K.path] == 4.0
    assert by_path({".*to_k": 16, "attn2.to_k": 8})[K.path] == 4.0


@pytest.mark.parametrize("value", [None, "8", [], {}, True, 10**400])
def test_a_pattern_whose_value_is_no_number_does_no_harm(value: object) -> None:
    assert set(by_path({"to_k": value}).values()) <= {1.0}


@pytest.mark.parametrize(
    "patterns",
    [
        {"(a+)+$": 8},
        {"(\\w+\\.?)+!": 8},
        {"(a|a)*b": 8},
        {"(.*)*x": 8},
        {".*.*.*.*.*.*.*.*.*.*.*.*x": 8},
        {"(?:[a-z_.]*)*(?:[a-z_.]*)*#": 8},
        {"\\w*\\w*\\w*\\w*\\w*\\w*\\w*\\w*#": 8},
        {"(x{1,9999}){1,9999}": 8},
        {"(a?){60}a{60}": 8},
        {f"blocks.{i}.*": 8 for i in range(20_000)},
        {f"p{i}": 8 for i in range(100_000)},
        {f"[{chr(97 + i % 26)}]{i}": 8 for i in range(20_000)},
        {"a" * 100_000: 8},
        {"." * 50_000: 8},
    ],
    ids=range(14),
)
def test_no_pattern_takes_long(patterns: dict[str, object]) -> None:
    started = time.process_time()
    by_path(patterns)
    assert time.process_time() - started < 2


def test_a_thousand_modules_with_alphas_of_their_own_are_read_at_once(tmp_path: Path) -> None:
    modules = modules_like("sdxl", "to_k", "to_q", "to_v", "to_out.0", "ff.net.2")
    tensors = lora("sdxl", "kohya", modules, rank=1)
    for index, key in enumerate([key for key in tensors if "lora_up" in key]):
        from support.files import number

        tensors[key.replace("lora_up.weight", "alpha")] = number(1 + index / 7)
    before = write(tmp_path / "before.safetensors", tensors)
    there = convert(before, "diffusers", tmp_path / "there.safetensors")
    started = time.process_time()
    back = convert(there.output, "kohya", tmp_path / "back.safetensors")
    assert time.process_time() - started < 3
    assert contents(back.output) == tensors


# ---------------------------------------------------------------- leaving diffusers


@pytest.mark.parametrize("target", ["kohya", "comfyui"])
@pytest.mark.parametrize("root", [True, False])
def test_a_recorded_scale_becomes_an_alpha_that_every_reader_sees(tmp_path: Path, target: str, root: bool) -> None:
    config = {"unet.lora_alpha": 12, "unet.r": 4, "unet.use_rslora": root, "unet.alpha_pattern": {"to_v": 3}}
    metadata = {"lora_adapter_metadata": json.dumps(config), "ss_x": "kept"}
    before = write(tmp_path / "in.safetensors", lora("sd1", "diffusers", MODULES), metadata)
    result = convert(before, target, tmp_path / "out.safetensors", SD1)
    alphas = {key.split("to_")[-1][0]: raw for key, raw in contents(result.output).items() if key.endswith(".alpha")}
    assert set(alphas) == {"k", "v"}
    assert difference(effects(before), effects(result.output)) < 1e-6
    found = inspect_file(_open(result.output)).metadata
    assert "lora_adapter_metadata" not in found
    assert found["ss_x"] == "kept"


def _open(path: Path) -> object:
    from hubtool.formats.safetensors import read_safetensors

    return read_safetensors(path)


def test_a_scale_of_one_becomes_no_alpha(tmp_path: Path) -> None:
    config = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.r": 4})}
    before = write(tmp_path / "in.safetensors", lora("sd1", "diffusers", MODULES), config)
    result = convert(before, "kohya", tmp_path / "out.safetensors", SD1)
    assert not [key for key in contents(result.output) if key.endswith(".alpha")]


def test_a_recorded_scale_stays_in_force_between_diffusers_and_peft(tmp_path: Path) -> None:
    config = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 3, "unet.r": 4})}
    before = write(tmp_path / "in.safetensors", lora("sd1", "diffusers", MODULES), config)
    result = convert(before, "peft", tmp_path / "out.safetensors", SD1)
    assert difference(effects(before), effects(result.output)) < 1e-12
