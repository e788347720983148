"""Each validation rule on a file that has one fault, and none of its findings on a file that has none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.adapters import denoiser, lora, modules_like
from support.files import Raw, number, random_tensor, write

from hubtool.operations.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

K = modules_like("sd1", "attn2.to_k")
BASE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONV = "lora_unet_down_blocks_0_resnets_0_conv1"
FLUX = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
GOOD = lora("sd1", "kohya", K, alpha=4)
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def conv(**more: Raw) -> dict[str, Raw]:
    """A LoCon with a Tucker core of rank 4, changed."""
    parts = {
        "lora_down.weight": random_tensor(1, (4, 320, 1, 1)),
        "lora_up.weight": random_tensor(2, (320, 4, 1, 1)),
        "lora_mid.weight": random_tensor(3, (4, 4, 3, 3)),
        "alpha": number(4),
    }
    return GOOD | {f"{CONV}.{name}": raw for name, raw in (parts | more).items()}


FAULTS = {
    "a core of another rank": ("E_FACTOR_SHAPE", conv(**{"lora_mid.weight": random_tensor(3, (5, 4, 3, 3))}), {}),
    "a magnitude of no side": ("E_FACTOR_SHAPE", GOOD | {f"{BASE}.dora_scale": random_tensor(1, (7, 1))}, {}),
    "a bias of another width": ("E_FACTOR_SHAPE", GOOD | {f"{BASE}.diff_b": random_tensor(1, (7,))}, {}),
    "blocks that are not square": (
        "E_FACTOR_SHAPE",
        GOOD | {"lora_unet_mid_block_attentions_0_proj_in.oft_blocks": random_tensor(1, (4, 320, 8))},
        {},
    ),
    "a norm of another length, where its suffix means a weight": (
        "E_BASE_SHAPE",
        {f"double_blocks.{i}.img_attn.norm.key_norm.scale": random_tensor(i, (128 if i else 1,)) for i in range(8)},
        {},
    ),
    "no weights": ("E_PAIR_MISSING", {key: raw for key, raw in GOOD.items() if key.endswith("alpha")}, {}),
    "equal copies": ("W_EQUAL_COPIES", GOOD | lora("sd1", "diffusers", K[:1]), {}),
    "a whole and its parts": (
        "E_DUPLICATE_MODULE",
        lora("flux1", "kohya", modules_like("flux1", ".img_attn.qkv"), alpha=4)
        | lora("flux1", "diffusers", denoiser(*FLUX)),
        {"ss_base_model_version": "flux1"},
    ),
    "q without k and v": (
        "W_PARTIAL_FUSED",
        lora("flux1", "diffusers", denoiser(FLUX[0], "transformer_blocks.0.ff.net.2")),
        {"ss_base_model_version": "flux1"},
    ),
    "several base models possible": ("W_AMBIGUOUS", lora("flux1", "diffusers", denoiser(*FLUX)), {}),
    "alpha as an integer": ("W_ALPHA_INTEGER", GOOD | {f"{BASE}.alpha": number(4, "I64")}, {}),
    "alpha with a dimension": ("W_ALPHA_SHAPE", GOOD | {f"{BASE}.alpha": number(4, "F32", (1,))}, {}),
    "one alpha missing": ("W_ALPHA_MISSING", {key: raw for key, raw in GOOD.items() if key != f"{BASE}.alpha"}, {}),
    "alpha NaN": ("E_NONFINITE", GOOD | {f"{BASE}.alpha": Raw("F16", (), b"\x00\x7e")}, {}),
    "a huge alpha": ("W_ALPHA_HUGE", GOOD | {f"{BASE}.alpha": number(4096)}, {}),
    "scale that is no number": ("E_ALPHA", GOOD | {f"{BASE}.scale": random_tensor(1, (2,))}, {}),
    "alpha of nothing that is no number": ("E_ALPHA", GOOD | {f"{CONV}.alpha": random_tensor(1, (0, 4))}, {}),
    "alpha in the metadata": (
        "W_RECORDED_SCALE",
        lora("sd1", "diffusers", K),
        {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.r": 4})},
    ),
    "PEFT without its config": ("W_NO_CONFIG", lora("sd1", "peft", K), {}),
    "rank stated wrongly": ("W_DIM_METADATA", GOOD, {"ss_network_dim": "64"}),
    "alpha stated wrongly": ("W_ALPHA_METADATA", GOOD, {"ss_network_alpha": "64"}),
    "JSON that is none": ("W_METADATA_FIELD", GOOD, {"ss_tag_frequency": "{"}),
    "JSON that is nested for ever": ("W_METADATA_FIELD", GOOD, {"ss_datasets": "[" * 100_000}),
    "a number that is none": ("W_METADATA_FIELD", GOOD, {"ss_epoch": "many"}),
    "a number beyond all bounds": ("W_METADATA_FIELD", GOOD, {"ss_learning_rate": "1e999"}),
    "an incomplete modelspec": ("W_MODELSPEC", GOOD, {"modelspec.title": "x"}),
    "the hash of nothing": ("W_HASH_METADATA", GOOD, {"sshs_model_hash": NOTHING}),
    "the short hash of nothing": ("W_HASH_METADATA", GOOD, {"sshs_legacy_hash": NOTHING[:8]}),
    "a hash of something else": ("W_HASH_METADATA", GOOD, {"modelspec.hash_sha256": "0x" + "12" * 32}),
    "a terminal's commands": ("W_METADATA_TEXT", GOOD, {"ss_output_name": "\x1b[2J"}),
    "text turned around": ("W_METADATA_TEXT", GOOD, {"modelspec.title": "a\u202eb"}),
    "another base model stated": ("W_BASE_MISMATCH", GOOD, {"ss_base_model_version": "sdxl_base_v1-0"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(tmp_path: Path, name: str) -> None:
    code, tensors, metadata = FAULTS[name]
    found = validate(write(tmp_path / "x.safetensors", tensors, metadata))
    assert code in {one.code for one in found.problems}
    assert all(one.message.isprintable() and one.fix for one in found.problems)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        (GOOD, None),
        (conv(), {"ss_network_dim": "4", "ss_network_alpha": "4.0", "ss_epoch": "None", "ss_tag_frequency": ""}),
        (GOOD | {f"{BASE}.dora_scale": random_tensor(1, (320, 1))}, {"modelspec.title": "Ünïcödé ✨ \n ‍"}),
        (GOOD | {f"{BASE}.dora_scale": random_tensor(1, (1, 768))}, {"modelspec.sai_model_spec": "1.0.1",
         "modelspec.architecture": "stable-diffusion-v1/lora", "modelspec.implementation": "diffusers",
         "modelspec.title": "x"}),
        (lora("sd1", "diffusers", K), {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.r": 4})}),
        (lora("sd1", "comfyui", K), {"ss_base_model_version": "sd_v1"}),
    ],
    ids=["plain", "core", "magnitude", "input magnitude", "recorded 1", "comfyui"],
)  # fmt: skip
def test_a_sound_file_is_left_in_peace(
    tmp_path: Path, tensors: dict[str, Raw], metadata: dict[str, str] | None
) -> None:
    found = {one.code for one in validate(write(tmp_path / "x.safetensors", tensors, metadata)).problems}
    assert found <= ({"W_MODELSPEC"} if metadata and len(metadata) == 1 else set())


def test_a_variant_named_by_its_family_is_no_contradiction(tmp_path: Path) -> None:
    """Trainers write "wan2.1" whatever the variant is."""
    tensors = lora("wan21-i2v-14b", "comfyui", modules_like("wan21-i2v-14b", "attn2.to_k", "attn2.add_k_proj"))
    found = validate(write(tmp_path / "x.safetensors", tensors, {"ss_base_model_version": "wan2.1"}))
    assert "W_BASE_MISMATCH" not in {one.code for one in found.problems}
