"""DoRA magnitudes, Tucker cores and dtypes on the way to another dialect."""

from pathlib import Path

import numpy as np
import pytest
from support.adapters import denoiser, lora, modules_like, pair, spelt
from support.conversions import round_trip
from support.effects import difference, effects
from support.files import Raw, floats, number, numbers, random_tensor, write
from support.lazy import contents

from hubtool.errors import HubtoolError, NonFinite, NotRepresentable, UsageProblem
from hubtool.naming.address import Role
from hubtool.naming.architecture import architecture
from hubtool.operations.convert import Conversion, ConvertOptions, convert

R = Role
SQUARE = "mid_block.resnets.0.conv1"  # 1280 → 1280, 3×3
WIDE = "down_blocks.1.resnets.0.conv1"  # 320 → 640, 3×3
LINEAR = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"  # 768 → 320
EQUAL = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # 320 → 320


def converted(folder: Path, tensors: dict[str, Raw], target: str, **options: object) -> Conversion:
    write(folder / "in.safetensors", tensors)
    (folder / "out.safetensors").unlink(missing_ok=True)
    return convert(
        folder / "in.safetensors", target, folder / "out.safetensors", ConvertOptions(architecture="sd1", **options)
    )


def dora(dialect: str, path: str, shape: tuple[int, ...]) -> dict[str, Raw]:
    (module,) = denoiser(path)
    rows = pair(architecture("sd1").shape(module), 4, 1) | {R.MAGNITUDE: random_tensor(9, shape)}
    return spelt("sd1", dialect, {module: rows})


def magnitude(path: Path) -> Raw:
    return next(raw for key, raw in contents(path).items() if "magnitude" in key or "dora_scale" in key)


@pytest.mark.parametrize(
    ("path", "peft", "lycoris"),
    [
        (LINEAR, (320,), (320, 1)),
        (EQUAL, (320,), (320, 1)),
        (SQUARE, (1, 1280, 1, 1), (1280, 1, 1, 1)),
        (WIDE, (1, 640, 1, 1), (640, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("target", ["diffusers", "peft"])
def test_a_magnitude_per_output_is_reshaped_and_nothing_else(
    tmp_path: Path, path: str, peft: tuple[int, ...], lycoris: tuple[int, ...], target: str
) -> None:
    tensors = dora("kohya", path, lycoris)
    trip = round_trip(tmp_path, tensors, target, options=ConvertOptions(architecture="sd1"))
    found = magnitude(trip.there.output)
    assert found == Raw("F16", peft, random_tensor(9, lycoris).data)
    assert trip.after == tensors
    back = round_trip(tmp_path, dora(target, path, peft), "kohya", options=ConvertOptions(architecture="sd1"))
    assert back.after == back.before


@pytest.mark.parametrize(
    ("path", "shape"), [(LINEAR, (1, 768)), (EQUAL, (1, 320)), (SQUARE, (1, 1280, 1, 1)), (WIDE, (1, 320, 1, 1))]
)
def test_a_magnitude_per_input_stays_per_input_where_it_can_be_said_and_is_refused_elsewhere(
    tmp_path: Path, path: str, shape: tuple[int, ...]
) -> None:
    tensors = dora("kohya", path, shape)
    assert magnitude(converted(tmp_path, tensors, "comfyui").output) == random_tensor(9, shape)
    assert round_trip(tmp_path, tensors, "comfyui", options=ConvertOptions(architecture="sd1")).after == tensors
    with pytest.raises(NotRepresentable, match="input column"):
        converted(tmp_path, tensors, "diffusers")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("shape", [(1280, 1, 1, 1), (1, 1280, 1, 1)])
def test_a_magnitude_on_another_family_is_copied_as_it_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    shapes = {R.HADA_W1_A: (1280, 4), R.HADA_W1_B: (4, 11520), R.HADA_W2_A: (1280, 4), R.HADA_W2_B: (4, 11520)}
    rows = {role: random_tensor(i, sides) for i, (role, sides) in enumerate(shapes.items())}
    tensors = spelt("sd1", "kohya", {denoiser(SQUARE)[0]: rows | {R.MAGNITUDE: random_tensor(9, shape)}})
    assert magnitude(converted(tmp_path, tensors, "comfyui").output) == random_tensor(9, shape)


# ---------------------------------------------------------------- Tucker


def tucker(dtype: str = "F32") -> dict[str, Raw]:
    rows = {
        R.DOWN: random_tensor(1, (4, 320, 1, 1), dtype),
        R.UP: random_tensor(2, (640, 4, 1, 1), dtype),
        R.MID: random_tensor(3, (4, 4, 3, 3), dtype),
        R.ALPHA: number(4),
    }
    return spelt("sd1", "kohya", {denoiser(WIDE)[0]: rows})


def test_a_tucker_core_is_kept_where_it_can_be_said(tmp_path: Path) -> None:
    trip = round_trip(tmp_path, tucker(), "comfyui", options=ConvertOptions(architecture="sd1"))
    assert trip.there.exact
    assert trip.after == tucker()


def test_a_tucker_core_is_refused_elsewhere_unless_folding_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(NotRepresentable, match="mid"):
        converted(tmp_path, tucker(), "diffusers")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("dtype", "bound"), [("F32", 2.0**-24), ("F16", 2.0**-11), ("BF16", 2.0**-8)])
def test_a_folded_core_says_its_rounding_and_keeps_to_it(tmp_path: Path, dtype: str, bound: float) -> None:
    result = converted(tmp_path, tucker(dtype), "diffusers", parametrization="lora")
    assert (result.exact, [loss.error for loss in result.lossy]) == (False, [bound])
    assert {raw.shape for raw in contents(result.output).values()} == {(4, 320, 3, 3), (640, 4, 1, 1)}
    assert difference(effects(tmp_path / "in.safetensors"), effects(result.output)) < 8 * bound


# ---------------------------------------------------------------- dtypes

K = modules_like("sd1", "attn2.to_k")[:3]


@pytest.mark.parametrize(
    ("old", "new", "exact"),
    [
        ("F16", "F32", True),
        ("BF16", "F32", True),
        ("F16", "F64", True),
        ("F32", "F64", True),
        ("F16", "F16", True),
        ("F32", "F16", False),
        ("F32", "BF16", False),
        ("F16", "BF16", False),
        ("BF16", "F16", False),
        ("F64", "F32", False),
        ("F8_E4M3", "F16", True),
        ("F8_E4M3", "BF16", True),
        ("F8_E5M2", "F32", True),
    ],
)
def test_a_dtype_that_holds_every_value_is_exact_and_another_says_its_rounding(
    tmp_path: Path, old: str, new: str, exact: bool
) -> None:
    tensors = lora("sd1", "kohya", K, dtype=old, alpha=2)
    result = converted(tmp_path, tensors, "kohya", dtype=new)
    assert result.exact is exact
    found = contents(result.output)
    assert {raw.dtype for key, raw in found.items() if not key.endswith("alpha")} == {new}
    assert {raw for key, raw in found.items() if key.endswith("alpha")} == {number(2)}


@pytest.mark.parametrize(("old", "new"), [("F32", "F16"), ("F32", "BF16"), ("F16", "F32"), ("F64", "F32")])
def test_values_are_rounded_as_numpy_rounds_them(tmp_path: Path, old: str, new: str) -> None:
    import torch

    tensors = lora("sd1", "kohya", K, dtype=old)
    found = contents(converted(tmp_path, tensors, "kohya", dtype=new).output)
    kinds = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    for key, raw in tensors.items():
        expected = torch.from_numpy(numbers(raw.data, old)).to(kinds[new]).double().numpy()
        np.testing.assert_array_equal(numbers(found[key].data, new), expected)


def test_a_value_that_a_dtype_cannot_hold_is_refused_not_made_infinite(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", K, dtype="F32")
    key = next(iter(tensors))
    tensors[key] = Raw("F32", tensors[key].shape, floats(np.full(tensors[key].shape, 1e6).ravel(), "F32"))
    with pytest.raises(NonFinite, match="F16"):
        converted(tmp_path, tensors, "kohya", dtype="F16")
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


@pytest.mark.parametrize("dtype", ["I8", "BOOL", "F4", "float16", ""])
def test_weights_are_not_stored_as_what_holds_no_fractions(tmp_path: Path, dtype: str) -> None:
    if dtype:
        with pytest.raises(UsageProblem):
            converted(tmp_path, lora("sd1", "kohya", K), "kohya", dtype=dtype)


def test_an_integers_dtype_is_left_alone(tmp_path: Path) -> None:
    (module,) = denoiser(LINEAR)
    rows = {R.IA3_WEIGHT: random_tensor(1, (320,), "F32"), R.IA3_ON_INPUT: number(0, "I64")}
    result = converted(tmp_path, spelt("sd1", "kohya", {module: rows}), "comfyui", dtype="F16")
    assert sorted(raw.dtype for raw in contents(result.output).values()) == ["F16", "I64"]


def test_an_unknown_rewriting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HubtoolError):
        converted(tmp_path, lora("sd1", "kohya", K), "kohya", parametrization="loha")


# ---------------------------------------------------------------- biases


def with_bias(dialect: str, role: Role, alpha: float | None) -> dict[str, Raw]:
    (module,) = denoiser(LINEAR)
    rows = pair(architecture("sd1").shape(module), 4, 1, "F32") | {role: random_tensor(9, (320,), "F32")}
    return spelt("sd1", dialect, {module: rows | ({R.ALPHA: number(alpha)} if alpha else {})})


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1.0), (4.0, 1.0), (2.0, 1.0), (8.0, 1.0), (3.0, 4 / 3)])
@pytest.mark.parametrize("target", ["diffusers", "peft"])
def test_a_change_of_the_bias_is_what_pefts_bias_times_its_scale_is(
    tmp_path: Path, target: str, alpha: float | None, factor: float
) -> None:
    """Folded: the scale is 1 and the bias as it was; recorded: PEFT multiplies with alpha / rank = 3 / 4 again."""
    tensors = with_bias("comfyui", R.DIFF_BIAS, alpha)
    trip = round_trip(tmp_path, tensors, target, options=ConvertOptions(architecture="sd1"))
    before = next(raw for key, raw in tensors.items() if key.endswith(".diff_b"))
    found = next(raw for key, raw in trip.between.items() if key.endswith(".lora_B.bias"))
    np.testing.assert_allclose(numbers(found.data, "F32"), factor * numbers(before.data, "F32"), rtol=1e-6)
    assert trip.there.exact == (alpha != 3)
    if trip.there.exact:
        assert trip.after == trip.before


def test_pefts_bias_becomes_a_change_of_the_bias_where_nobody_scales_it(tmp_path: Path) -> None:
    tensors = with_bias("diffusers", R.UP_BIAS, None)
    trip = round_trip(tmp_path, tensors, "kohya", options=ConvertOptions(architecture="sd1"))
    assert [key.rpartition(".")[2] for key in trip.between if "diff" in key] == ["diff_b"]
    assert (trip.there.exact, trip.after) == (True, trip.before)


def test_a_bias_is_folded_with_its_update(tmp_path: Path) -> None:
    """`lora_B.bias` beside an alpha is scaled like the update; in a dialect without alpha both have been."""
    tensors = with_bias("comfyui", R.UP_BIAS, 2)
    converted(tmp_path, tensors, "diffusers")
    before = next(raw for key, raw in tensors.items() if key.endswith(".lora_B.bias"))
    found = next(raw for key, raw in contents(tmp_path / "out.safetensors").items() if key.endswith(".lora_B.bias"))
    np.testing.assert_array_equal(numbers(found.data, "F32"), 0.5 * numbers(before.data, "F32"))
