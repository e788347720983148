"""Fused modules and their parts: what is exact says so and is, what is not says how far off it is, the rest is refused."""

from pathlib import Path

import numpy as np
import pytest
from support.adapters import denoiser, pair, spelt
from support.conversions import Trip, round_trip
from support.effects import difference, effects
from support.files import Raw, floats, number, numbers, random_tensor, write
from support.lazy import contents

from hubtool.errors import HubtoolError, NotRepresentable
from hubtool.naming.address import Role
from hubtool.operations.convert import Conversion, ConvertOptions, convert

FLUX = ConvertOptions(architecture="flux1")
PARTS = [f"transformer_blocks.0.attn.to_{name}" for name in "qkv"]
QKV = "double_blocks.0.img_attn.qkv"
SINGLE = [f"single_transformer_blocks.0.{name}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
R = Role
Rows = dict[Role, Raw]


def flat(tensors: dict[str, Rows]) -> dict[str, Raw]:
    """Separate members with alphas: diffusers' names in kohya's spelling, as OneTrainer writes FLUX."""
    return {
        f"lora_transformer_{path.replace('.', '_')}{suffix}": rows[role]
        for path, rows in tensors.items()
        for role, suffix in _FLAT.items()
        if role in rows
    }


_FLAT = {R.DOWN: ".lora_down.weight", R.UP: ".lora_up.weight", R.ALPHA: ".alpha", R.MAGNITUDE: ".dora_scale"}


def members(
    *alphas: Raw | float | None, rank: int = 4, dtype: str = "F16", paths: list[str] = PARTS
) -> dict[str, Rows]:
    """q, k and v with these alphas."""
    tensors = {}
    for seed, (path, alpha) in enumerate(zip(paths, alphas, strict=False)):
        shape = (12288, 3072) if path.endswith("proj_mlp") else (3072, 3072)
        tensors[path] = pair(shape, rank, seed, dtype)
        tensors[path][R.UP] = normal(tensors[path][R.UP])
        if alpha is not None:
            tensors[path][R.ALPHA] = alpha if isinstance(alpha, Raw) else number(alpha)
    return tensors


def normal(raw: Raw) -> Raw:
    """Without values so small that halving them loses bits."""
    values = numbers(raw.data, raw.dtype)
    return raw._replace(data=floats(np.where(np.abs(values) < 0.01, 0.01, values), raw.dtype))


def converted(folder: Path, tensors: dict[str, Raw], target: str, **options: object) -> Conversion:
    write(folder / "in.safetensors", tensors)
    return convert(
        folder / "in.safetensors", target, folder / "out.safetensors", ConvertOptions(architecture="flux1", **options)
    )


# ---------------------------------------------------------------- joining members with alphas of their own


@pytest.mark.parametrize(
    ("alphas", "exact"),
    [
        ((4, 4, 4), True),
        ((2, 2, 2), True),
        ((3, 3, 3), True),
        ((1, 2, 4), True),
        ((4, None, 8), True),
        ((4, None, 4), True),
        ((3, 2, 4), False),
        ((0.3, 0.7, 5), False),
        ((-4, 4, 4), True),
    ],
)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_members_of_unequal_alphas_become_one_module_of_the_same_effect(
    tmp_path: Path, alphas: tuple[float | None, ...], exact: bool, dtype: str
) -> None:
    result = converted(tmp_path, flat(members(*alphas, dtype=dtype)), "comfyui")
    bound = max((loss.error for loss in result.lossy), default=0.0)
    assert (result.exact, result.fused) == (exact, 1)
    assert bound == (0.0 if exact else {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}[dtype])
    found = difference(effects(tmp_path / "in.safetensors"), effects(result.output))
    assert found <= 4 * bound + 1e-12


def test_a_fold_that_underflows_is_not_called_exact(tmp_path: Path) -> None:
    tensors = members(4, 4, 2**-16)
    tensors[PARTS[2]][R.UP] = random_tensor(1, (3072, 4), "F16", 1e-4)
    result = converted(tmp_path, flat(tensors), "comfyui")
    assert not result.exact


def test_a_fold_that_overflows_is_refused(tmp_path: Path) -> None:
    tensors = members(4, 4, 2**20)
    tensors[PARTS[2]][R.UP] = random_tensor(1, (3072, 4), "F16", 10)
    with pytest.raises(HubtoolError):
        converted(tmp_path, flat(tensors), "comfyui")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("alpha", "rank"),
    [
        (number(1, "I64"), 49),
        (number(5, "I64"), 7),
        (number(3, "I64"), 2),
        (number(101, "BF16"), 101),
        (number(300, "BF16"), 128),
        (number(1, "F16"), 3),
        (number(1000, "F16"), 64),
        (number(0.1, "F16"), 4),
        (number(7), 23),
    ],
)
def test_the_joined_alpha_gives_the_members_scale_in_every_dtype(tmp_path: Path, alpha: Raw, rank: int) -> None:
    result = converted(tmp_path, flat(members(alpha, alpha, alpha, rank=rank)), "comfyui")
    assert result.exact
    assert difference(effects(tmp_path / "in.safetensors"), effects(result.output)) < 1e-12


def test_members_of_different_dtypes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    tensors = members(4, 4, 4)
    tensors[PARTS[1]] = members(None, 4, dtype="F32")[PARTS[1]]
    with pytest.raises(NotRepresentable) as caught:
        converted(tmp_path, flat(tensors), "comfyui")
    assert "--dtype" in caught.value.hint
    assert converted(tmp_path, flat(tensors), "comfyui", dtype="F32").fused == 1


# ---------------------------------------------------------------- absent, zero and shared members


@pytest.mark.parametrize("present", [[0], [1], [2], [0, 2], [1, 2], [0, 1]])
@pytest.mark.parametrize("target", ["kohya", "comfyui"])
def test_absent_members_count_no_rank_and_stay_absent(tmp_path: Path, present: list[int], target: str) -> None:
    tensors = {ref: pair((3072, 3072), 3 + i, i) for i, ref in enumerate(denoiser(*PARTS)) if i in present}
    trip = round_trip(tmp_path, spelt("flux1", "diffusers", tensors), target, options=FLUX)
    ranks = [raw.shape[0] for key, raw in trip.between.items() if "lora_down" in key]
    assert ranks == [sum(3 + i for i in present)]
    assert trip.after == trip.before
    assert trip.change < 1e-12


def zero(raw: Raw) -> Raw:
    return Raw(raw.dtype, raw.shape, bytes(len(raw.data)))


@pytest.mark.parametrize("zeros", [[0], [1], [2], [0, 1], [0, 1, 2]])
def test_members_of_zeros_stay_present(tmp_path: Path, zeros: list[int]) -> None:
    tensors = {ref: pair((3072, 3072), 4, i) for i, ref in enumerate(denoiser(*PARTS))}
    for index in zeros:
        rows = tensors[denoiser(PARTS[index])[0]]
        rows[R.UP] = zero(rows[R.UP])
    trip = round_trip(tmp_path, spelt("flux1", "diffusers", tensors), "kohya", options=FLUX)
    assert trip.after == trip.before


def test_members_that_share_their_down_are_joined_at_their_own_rank(tmp_path: Path) -> None:
    down = random_tensor(9, (8, 3072))
    tensors = {ref: {R.DOWN: down, R.UP: random_tensor(i, (3072, 8))} for i, ref in enumerate(denoiser(*PARTS))}
    trip = round_trip(tmp_path, spelt("flux1", "diffusers", tensors), "kohya", options=FLUX)
    assert [raw.shape for raw in trip.between.values()] == [(8, 3072), (9216, 8)]
    assert trip.after == trip.before


def test_the_single_blocks_stack_four_members_of_unequal_height(tmp_path: Path) -> None:
    trip = round_trip(tmp_path, _diffusers(members(None, None, None, None, paths=SINGLE)), "kohya", options=FLUX)
    assert {raw.shape for raw in trip.between.values()} == {(16, 3072), (21504, 16)}
    assert trip.after == trip.before
    assert trip.change < 1e-12


def _diffusers(tensors: dict[str, Rows]) -> dict[str, Raw]:
    return spelt("flux1", "diffusers", {denoiser(path)[0]: rows for path, rows in tensors.items()})


# ---------------------------------------------------------------- taking apart


def fused(up: np.ndarray, alpha: float | None = None, dtype: str = "F32") -> dict[str, Raw]:
    rows = {R.UP: Raw(dtype, up.shape, floats(up.ravel(), dtype)), R.DOWN: random_tensor(5, (up.shape[1], 3072), dtype)}
    if alpha is not None:
        rows[R.ALPHA] = number(alpha)
    return spelt("flux1", "kohya", {denoiser(QKV)[0]: rows})


def dense(rank: int) -> np.ndarray:
    return np.random.default_rng(rank).standard_normal((9216, rank))


def blocks(*ranks: int) -> np.ndarray:
    up, start = np.zeros((9216, sum(ranks))), 0
    for part, rank in enumerate(ranks):
        up[3072 * part : 3072 * (part + 1), start : start + rank] = dense(rank)[:3072]
        start += rank
    return up


def split(folder: Path, tensors: dict[str, Raw]) -> tuple[dict[str, tuple[int, ...]], Trip]:
    """Ranks of the members, and the whole trip."""
    trip = round_trip(folder, tensors, "diffusers", options=FLUX)
    ranks = {key.split(".to_")[1][0]: raw.shape[0] for key, raw in trip.between.items() if "lora_A" in key}
    assert trip.after == trip.before
    assert trip.change < 1e-12
    assert trip.there.exact
    return ranks, trip


def test_a_dense_module_shares_its_down_with_every_member(tmp_path: Path) -> None:
    ranks, trip = split(tmp_path, fused(dense(5)))
    assert ranks == {"q": 5, "k": 5, "v": 5}
    assert len({raw.data for key, raw in trip.between.items() if "lora_A" in key}) == 1


@pytest.mark.parametrize("ranks", [(4, 4, 4), (1, 1, 1), (2, 3, 4), (1, 7, 2)])
@pytest.mark.parametrize("alpha", [None, 12.0, 6.0, 5.0])
def test_a_block_diagonal_module_is_cut_into_members_of_their_own_rank(
    tmp_path: Path, ranks: tuple[int, ...], alpha: float | None
) -> None:
    found, _ = split(tmp_path, fused(blocks(*ranks), alpha))
    whole = sum(ranks)
    if alpha is None or all((alpha * rank / whole).is_integer() for rank in ranks):
        assert found == dict(zip("qkv", ranks, strict=True))
    else:
        assert set(found.values()) <= {whole, *ranks}


@pytest.mark.parametrize("ranks", [(0, 4, 4), (4, 0, 4), (4, 4, 0), (0, 0, 3)])
def test_a_member_without_columns_is_absent(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    found, _ = split(tmp_path, fused(blocks(*ranks)))
    assert found == {name: rank for name, rank in zip("qkv", ranks, strict=True) if rank}


@pytest.mark.parametrize("rank", [3, 4, 9])
def test_an_untrained_module_keeps_all_its_members(tmp_path: Path, rank: int) -> None:
    found, _ = split(tmp_path, fused(np.zeros((9216, rank))))
    assert set(found) == {"q", "k", "v"}


def test_one_value_outside_its_block_makes_a_module_dense(tmp_path: Path) -> None:
    up = blocks(2, 2, 2)
    up[0, 5] = 1e-30
    found, _ = split(tmp_path, fused(up))
    assert found == {"q": 6, "k": 6, "v": 6}


def test_minus_zero_outside_its_block_is_kept(tmp_path: Path) -> None:
    up = blocks(2, 2, 2)
    up[0, 5] = -0.0
    split(tmp_path, fused(up))


# ---------------------------------------------------------------- halves that change places


@pytest.mark.parametrize("target", ["kohya", "comfyui"])
def test_the_halves_of_the_last_modulation_change_places_in_up_and_never_in_down(tmp_path: Path, target: str) -> None:
    rows = pair((6144, 3072), 4, 1)
    trip = round_trip(
        tmp_path, spelt("flux1", "diffusers", {denoiser("norm_out.linear")[0]: rows}), target, options=FLUX
    )
    half = len(rows[R.UP].data) // 2
    assert {raw.data for raw in trip.between.values()} == {
        rows[R.DOWN].data,
        rows[R.UP].data[half:] + rows[R.UP].data[:half],
    }
    assert (trip.there.fused, trip.there.split) == (0, 0)
    assert trip.after == trip.before
    assert trip.change < 1e-12


def test_a_bias_and_a_difference_change_places_too(tmp_path: Path) -> None:
    base = "lora_unet_final_layer_adaLN_modulation_1"
    tensors = {f"{base}.diff": random_tensor(1, (6144, 3072), "F16"), f"{base}.diff_b": random_tensor(2, (6144,))}
    write(tmp_path / "in.safetensors", tensors)
    convert(tmp_path / "in.safetensors", "comfyui", tmp_path / "same.safetensors", FLUX)
    assert sorted(raw.data for raw in contents(tmp_path / "same.safetensors").values()) == sorted(
        raw.data for raw in tensors.values()
    )
    write(tmp_path / "bias.safetensors", {
        "transformer.norm_out.linear.lora_A.weight": random_tensor(1, (4, 3072)),
        "transformer.norm_out.linear.lora_B.weight": random_tensor(2, (6144, 4)),
        "transformer.norm_out.linear.lora_B.bias": random_tensor(3, (6144,)),
    })  # fmt: skip
    result = convert(tmp_path / "bias.safetensors", "comfyui", tmp_path / "out.safetensors", FLUX)
    found = contents(result.output)["diffusion_model.final_layer.adaLN_modulation.1.diff_b"]
    before = numbers(random_tensor(3, (6144,)).data, "F16")
    np.testing.assert_array_equal(numbers(found.data, "F16"), np.roll(before, 3072))


# ---------------------------------------------------------------- DoRA, and what cannot be


def dora(*shapes: tuple[int, ...]) -> dict[str, Raw]:
    tensors = members(4, 4, 4)
    for seed, (rows, shape) in enumerate(zip(tensors.values(), shapes, strict=True)):
        rows[R.MAGNITUDE] = random_tensor(seed, shape)
    return flat(tensors)


def test_magnitudes_of_the_output_axis_are_stacked(tmp_path: Path) -> None:
    tensors = dora((3072, 1), (3072, 1), (3072, 1))
    result = converted(tmp_path, tensors, "comfyui")
    found = contents(result.output)["diffusion_model.double_blocks.0.img_attn.qkv.dora_scale"]
    parts = [tensors[f"lora_transformer_{path.replace('.', '_')}.dora_scale"].data for path in PARTS]
    assert found == Raw("F16", (9216, 1), b"".join(parts))


@pytest.mark.parametrize("shapes", [((1, 3072),) * 3, ((3072, 1), (3072, 1), (1, 3072))])
def test_magnitudes_of_the_input_axis_cannot_be_joined(tmp_path: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(NotRepresentable, match="magnitude"):
        converted(tmp_path, dora(*shapes), "comfyui")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_magnitude_of_the_input_axis_cannot_be_taken_apart(tmp_path: Path) -> None:
    tensors = fused(dense(4)) | {"lora_unet_double_blocks_0_img_attn_qkv.dora_scale": random_tensor(1, (1, 3072))}
    with pytest.raises(NotRepresentable, match="input column"):
        converted(tmp_path, tensors, "diffusers")


def test_kronecker_factors_are_not_cut_at_any_row(tmp_path: Path) -> None:
    base = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{base}.lokr_w1": random_tensor(1, (8, 8)), f"{base}.lokr_w2": random_tensor(2, (1152, 384))}
    with pytest.raises(NotRepresentable):
        converted(tmp_path, tensors, "diffusers")


NOTES = [
    *('{"X":"shared"}', '{"X":[4,4,4]}', '{"X":[-4,12,4]}', '{"X":["a"]}', '{"X":[1.5,10.5,0]}', '{"X":{}}'),
    *("[]", "{", '{"X":[0,0,12]}', '{"X":[4,4,4,0]}', '{"X":[true,5,6]}', "null"),
]


@pytest.mark.parametrize("note", NOTES)
def test_a_record_that_was_tampered_with_never_changes_the_effect(tmp_path: Path, note: str) -> None:
    metadata = {"hubtool.fused": note.replace("X", QKV)}
    for up in (blocks(4, 4, 4), blocks(4, 8, 0), dense(12), np.zeros((9216, 12))):
        trip = round_trip(tmp_path, fused(up), "diffusers", metadata=metadata, options=FLUX)
        assert trip.change < 1e-12
