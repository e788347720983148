"""Alphas on their way to dialects that have none: folded where that is exact, else recorded, and always to be had back."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.adapters import denoiser, lora, modules_like, spelt
from support.conversions import round_trip
from support.effects import difference, effects
from support.files import Raw, floats, number, numbers, random_tensor, write
from support.lazy import contents

from hubtool.errors import HubtoolError, NotRepresentable
from hubtool.naming.address import Role
from hubtool.operations.convert import Conversion, ConvertOptions, convert

R = Role
SD1 = ConvertOptions(architecture="sd1")
MODULES = modules_like("sd1", "0.transformer_blocks.0.attn2.to_k")[:4]
BASE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def ones(rank: int = 4, value: float = 1.0, dtype: str = "F16") -> dict[str, Raw]:
    """One module whose `up` is one number throughout."""
    up = Raw(dtype, (320, rank), floats([value] * 320 * rank, dtype))
    return {f"{BASE}.lora_down.weight": random_tensor(1, (rank, 768), dtype), f"{BASE}.lora_up.weight": up}


def converted(folder: Path, tensors: dict[str, Raw], target: str = "diffusers", **options: object) -> Conversion:
    write(folder / "in.safetensors", tensors)
    (folder / "out.safetensors").unlink(missing_ok=True)
    return convert(
        folder / "in.safetensors", target, folder / "out.safetensors", ConvertOptions(architecture="sd1", **options)
    )


def header(path: Path) -> dict[str, str]:
    from hubtool.formats.safetensors import read_safetensors

    return dict(read_safetensors(path).metadata)


@pytest.mark.parametrize("alpha", [2.0, 1.0, 8.0, 16.0, 0.5, -2.0])
def test_a_power_of_two_is_folded_into_up(tmp_path: Path, alpha: float) -> None:
    result = converted(tmp_path, ones() | {f"{BASE}.alpha": number(alpha)})
    found = contents(result.output)
    assert (result.alpha, result.exact) == ("folded", True)
    up = next(raw for key, raw in found.items() if "lora_B" in key)
    assert set(numbers(up.data, "F16")) == {alpha / 4}
    assert "lora_adapter_metadata" not in header(result.output)


@pytest.mark.parametrize("alpha", [3.0, 0.7, 1e-3, 5e4, -3.0])
def test_any_other_scale_is_recorded_and_no_byte_is_touched(tmp_path: Path, alpha: float) -> None:
    tensors = ones() | {f"{BASE}.alpha": number(alpha)}
    result = converted(tmp_path, tensors)
    assert (result.alpha, result.exact) == ("recorded", True)
    assert set(contents(result.output).values()) == {raw for key, raw in tensors.items() if "alpha" not in key}
    record = json.loads(header(result.output)["lora_adapter_metadata"])
    assert record["unet.lora_alpha"] / record["unet.r"] == pytest.approx(alpha / 4, rel=1e-7)


@pytest.mark.parametrize(
    ("value", "alpha", "dtype"),
    [(1e-7, 0.25, "F16"), (6e4, 16.0, "F16"), (1e-40, 0.25, "BF16"), (3e38, 8.0, "F32"), (1e-45, 2.0, "F32")],
)
def test_a_fold_that_would_lose_bits_or_overflow_is_recorded_instead(
    tmp_path: Path, value: float, alpha: float, dtype: str
) -> None:
    tensors = ones(value=value, dtype=dtype) | {f"{BASE}.alpha": number(alpha)}
    result = converted(tmp_path, tensors)
    assert (result.alpha, result.exact) == ("recorded", True)
    assert round_trip(tmp_path, tensors, "diffusers", options=SD1).after == tensors


def test_one_module_that_does_not_fold_makes_all_be_recorded(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", MODULES, alpha=4)
    keys = [key for key in tensors if key.endswith(".alpha")]
    tensors[keys[0]] = number(8)
    assert converted(tmp_path, tensors).alpha == "folded"
    tensors[keys[1]] = number(3)
    assert converted(tmp_path, tensors).alpha == "recorded"


def test_no_alpha_and_alpha_equal_to_rank_need_nothing_said(tmp_path: Path) -> None:
    for tensors in (lora("sd1", "kohya", MODULES), lora("sd1", "kohya", MODULES, alpha=4)):
        result = converted(tmp_path, tensors)
        assert "lora_adapter_metadata" not in header(result.output)
        assert set(contents(result.output).values()) == {raw for raw in tensors.values() if raw.shape}
        assert round_trip(tmp_path, tensors, "diffusers", options=SD1).after == tensors


@pytest.mark.parametrize("target", ["comfyui", "kohya"])
def test_a_dialect_with_alphas_keeps_them_as_they_are(tmp_path: Path, target: str) -> None:
    tensors = lora("sd1", "diffusers" if target == "kohya" else "kohya", MODULES)
    if target == "comfyui":
        tensors |= {f"{BASE}.alpha": number(3, "I64", (1,))}
    result = converted(tmp_path, tensors, target)
    assert (result.alpha, result.exact) == ("kept", True)
    assert sorted(raw.data for raw in contents(result.output).values()) == sorted(raw.data for raw in tensors.values())


def test_asking_to_keep_alpha_where_there_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotRepresentable) as caught:
        converted(tmp_path, ones() | {f"{BASE}.alpha": number(3)}, alpha="keep")
    assert "--alpha" in caught.value.hint
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("alpha", [2.0, 3.0, 4.0])
def test_asking_to_record_records(tmp_path: Path, alpha: float) -> None:
    tensors = ones() | {f"{BASE}.alpha": number(alpha)}
    result = converted(tmp_path, tensors, alpha="record")
    assert (result.alpha, result.exact) == ("recorded", True)
    assert json.loads(header(result.output)["lora_adapter_metadata"])["unet.lora_alpha"] == alpha


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_asking_to_fold_what_rounds_names_the_modules_and_the_error(tmp_path: Path, dtype: str) -> None:
    tensors = lora("sd1", "kohya", MODULES, alpha=3, dtype=dtype)
    result = converted(tmp_path, tensors, alpha="fold")
    assert (result.alpha, result.exact, len(result.lossy)) == ("folded", False, 4)
    bound = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}[dtype]
    assert {loss.error for loss in result.lossy} == {bound}
    assert 0 < difference(effects(tmp_path / "in.safetensors"), effects(result.output)) < 4 * bound


def test_asking_to_fold_what_overflows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubtoolError, match="F16"):
        converted(tmp_path, ones(value=6e4) | {f"{BASE}.alpha": number(16)}, alpha="fold")
    assert not (tmp_path / "out.safetensors").exists()


# ---------------------------------------------------------------- and back


def test_alphas_of_several_kinds_are_kept_apart(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", MODULES, alpha=2)
    kinds = [number(1, "F16"), number(8, "I64", (1,)), number(4, "BF16")]
    for key, alpha in zip([key for key in tensors if key.endswith(".alpha")], kinds, strict=False):
        tensors[key] = alpha
    for target in ("diffusers", "peft", "diffusers-old"):
        assert round_trip(tmp_path, tensors, target, options=SD1).after == tensors


def test_alphas_survive_a_chain_of_dialects_without_any(tmp_path: Path) -> None:
    for alpha in (number(2, "I64"), number(3, "F16", (1,))):
        tensors = ones(dtype="F32") | {f"{BASE}.alpha": alpha}
        paths = [write(tmp_path / "0.safetensors", tensors)]
        for step, target in enumerate(("diffusers", "peft", "diffusers-old", "diffusers", "kohya"), 1):
            path = tmp_path / f"{step}.safetensors"
            convert(paths[-1], target, path, ConvertOptions(architecture="sd1", force=True))
            paths.append(path)
        assert all(difference(effects(paths[0]), effects(path)) < 1e-7 for path in paths)
        assert contents(paths[-1]) == tensors


def test_a_record_that_no_longer_fits_the_file_is_not_believed(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", MODULES, alpha=2)
    there = converted(tmp_path, tensors)
    resized = lora("sd1", "diffusers", MODULES, rank=7)
    changed = write(tmp_path / "changed.safetensors", resized, header(there.output))
    back = convert(changed, "kohya", tmp_path / "back.safetensors", SD1)
    assert difference(effects(changed), effects(back.output)) < 1e-12


HOSTILE = [
    "[]", "{", "null", "[{}]", '[{"alpha":null}]', "[" * 5000, '[{"alpha":1e400,"dtype":"F32","shape":[],"folded":1}]',
    '[{"alpha":2,"dtype":"F32","shape":[null],"folded":1}]', '[{"alpha":2,"dtype":"F32","shape":["x"],"folded":1}]',
    '[{"alpha":2,"dtype":"F999","shape":[],"folded":1}]', '[{"alpha":2,"dtype":"F32","shape":[1000000000],"folded":1}]',
    '[{"alpha":-2,"dtype":"U8","shape":[],"folded":1}]', '[{"alpha":1e6,"dtype":"F16","shape":[],"folded":1}]',
    '[{"alpha":2,"dtype":"F32","shape":[],"folded":0}]', '[{"alpha":2,"dtype":"F32","shape":[],"folded":NaN}]',
    '[{"alpha":1' + "0" * 400 + ',"dtype":"F32","shape":[],"folded":1}]', '[{"alpha":true,"dtype":"I64","shape":[],"folded":1}]',
    '[{"alpha":4,"dtype":"F32","shape":[],"folded":4}]', '[{"alpha":4,"dtype":"F32","shape":[],"folded":0.3}]',
    '[{"alpha":4,"dtype":"F32","shape":[],"folded":1,"modules":5}]', '[1,2,"x"]',
    '[{"alpha":"2","dtype":"F32","shape":[],"folded":1}]',
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_record_that_nobody_can_have_written_never_changes_the_effect(tmp_path: Path, text: str) -> None:
    before = write(tmp_path / "in.safetensors", lora("sd1", "diffusers", MODULES), {"hubtool.alpha": text})
    result = convert(before, "kohya", tmp_path / "out.safetensors", SD1)
    assert difference(effects(before), effects(result.output)) < 1e-12


# ---------------------------------------------------------------- other families


def test_a_hadamard_scale_is_folded_into_its_first_factor(tmp_path: Path) -> None:
    shapes = {R.HADA_W1_A: (320, 4), R.HADA_W1_B: (4, 768), R.HADA_W2_A: (320, 4), R.HADA_W2_B: (4, 768)}
    rows = {role: random_tensor(i, shape, "F32", 1) for i, (role, shape) in enumerate(shapes.items())}
    tensors = spelt("sd1", "kohya", {MODULES[0]: rows | {R.ALPHA: number(1)}})
    result = converted(tmp_path, tensors)
    assert (result.alpha, result.exact) == ("folded", True)
    first = numbers(rows[R.HADA_W1_A].data, "F32")
    found = next(raw for key, raw in contents(result.output).items() if "w1_a" in key)
    np.testing.assert_array_equal(numbers(found.data, "F32"), first / 4)
    back = convert(result.output, "kohya", tmp_path / "back.safetensors", SD1)
    assert contents(back.output) == tensors


def test_a_scale_that_has_no_place_in_peft_is_refused_with_a_way_out(tmp_path: Path) -> None:
    shapes = {R.HADA_W1_A: (320, 4), R.HADA_W1_B: (4, 768), R.HADA_W2_A: (320, 4), R.HADA_W2_B: (4, 768)}
    rows = {role: random_tensor(i, shape) for i, (role, shape) in enumerate(shapes.items())} | {R.ALPHA: number(3)}
    with pytest.raises(NotRepresentable) as caught:
        converted(tmp_path, spelt("sd1", "kohya", {MODULES[0]: rows}))
    assert "fold" in caught.value.hint
    assert not converted(tmp_path, spelt("sd1", "kohya", {MODULES[0]: rows}), alpha="fold").exact


def test_a_scale_tensor_is_part_of_the_effect_in_every_dialect(tmp_path: Path) -> None:
    tensors = ones(value=0.5) | {f"{BASE}.alpha": number(2), f"{BASE}.scale": number(0.25)}
    for target in ("diffusers", "comfyui", "peft"):
        result = converted(tmp_path, tensors, target)
        assert difference(effects(tmp_path / "in.safetensors"), effects(result.output)) < 1e-12


def test_alpha_of_whole_kronecker_factors_is_dropped_from_the_sum_but_not_from_the_file(tmp_path: Path) -> None:
    rows = {R.LOKR_W1: random_tensor(1, (4, 8)), R.LOKR_W2: random_tensor(2, (80, 96)), R.ALPHA: number(1e10)}
    tensors = spelt("sd1", "kohya", {denoiser(MODULES[0].path)[0]: rows})
    result = converted(tmp_path, tensors)
    assert (result.alpha, result.exact) == ("folded", True)
    back = convert(result.output, "kohya", tmp_path / "back.safetensors", SD1)
    assert contents(back.output) == tensors
