"""An extracted LoRA is the change between two checkpoints, and what is said about it is true."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import (
    ATTENTION,
    CROSS,
    ENCODER,
    INPUT,
    KERNEL,
    PROJECTION,
    TIME,
    full_shapes,
    ldm_keys,
    small_model,
    tuned,
    unet,
    write_diffusers,
    write_file,
    write_ldm,
    write_sparse,
)
from support.keylists import key_list

from hubtool.adapters.codec import read_adapter
from hubtool.errors import (
    AdapterProblem,
    IncompatibleCheckpoints,
    NonFinite,
    NotRepresentable,
    OutputExists,
    UsageProblem,
)
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect
from hubtool.operations.extract import Extraction, ExtractOptions, extract
from hubtool.operations.extract_pairs import compare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Weights = dict[ModuleRef, torch.Tensor]
TARGETS = {*unet(ATTENTION, CROSS, PROJECTION, TIME, KERNEL), ModuleRef(Component.CLIP_L, ENCODER)}


@pytest.fixture
def models() -> tuple[Weights, Weights]:
    """A base and a model tuned by rank 8 with a little noise."""
    base = small_model()
    return base, tuned(base, noise=1e-4)


def run(tmp_path: Path, base: Weights, changed: Weights, **options: object) -> Extraction:
    """Write both as one-file checkpoints and extract to `out.safetensors`."""
    paths = [write_ldm(tmp_path / f"{name}.safetensors", w) for name, w in (("base", base), ("tuned", changed))]
    return extract(paths[1], paths[0], tmp_path / "out.safetensors", ExtractOptions(**options))  # type: ignore[arg-type]  # named by each test


def changes(base: Weights, changed: Weights) -> dict[ModuleRef, torch.Tensor]:
    """ΔW of every target, float64, flattened to a matrix."""
    return {module: (changed[module].double() - base[module].double()).flatten(1) for module in TARGETS & base.keys()}


def written(path: Path, base: Mapping[ModuleRef, torch.Tensor]) -> dict[ModuleRef, torch.Tensor]:
    """What the file adds to each weight, float64."""
    layers = read_adapter(path).layers
    return {module: layer.delta(tuple(base[module].shape)).double().flatten(1) for module, layer in layers.items()}


def relative(error: torch.Tensor, whole: torch.Tensor) -> float:
    return float(error.norm() / whole.norm())


def test_each_layer_is_within_one_percent_of_the_best_of_its_rank(tmp_path: Path) -> None:
    base = small_model()
    changed = tuned(base, rank=60, size=1e-3, noise=3e-4)
    run(tmp_path, base, changed, rank=16)
    for module, delta in written(tmp_path / "out.safetensors", base).items():
        change = changes(base, changed)[module]
        best = float(torch.linalg.eigvalsh(change @ change.T)[:-16].sum()) ** 0.5
        assert float((change - delta).norm()) <= 1.01 * best, module


def test_a_change_of_low_rank_comes_back_whole(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    found = run(tmp_path, base, changed, rank=16)
    deltas, wanted = written(tmp_path / "out.safetensors", base), changes(base, changed)
    assert deltas.keys() == wanted.keys() == TARGETS
    for module, delta in deltas.items():
        assert relative(wanted[module] - delta, wanted[module]) < 0.02, module
    assert found.energy is not None
    assert found.energy > 0.999


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_the_report_states_the_error_of_the_file_that_was_written(tmp_path: Path, dtype: str, noise: float) -> None:
    base = {module: weight.float() for module, weight in small_model().items()}
    changed = tuned(base, noise=noise)
    found = run(tmp_path, base, changed, rank=8, dtype=dtype)
    deltas, wanted = written(tmp_path / "out.safetensors", base), changes(base, changed)
    for layer in found.layers:
        module = ModuleRef(Component(layer.component), layer.module)
        actual = relative(wanted[module] - deltas[module], wanted[module])
        assert layer.relative_error == pytest.approx(actual, rel=0.02, abs=1e-6), layer
        assert layer.energy == pytest.approx(1 - layer.relative_error**2, abs=1e-12)
    norm = sum(float(change.square().sum()) for change in wanted.values())
    error = sum(float((wanted[module] - deltas[module]).square().sum()) for module in wanted)
    assert found.relative_error == pytest.approx(math.sqrt(error / norm), rel=0.02, abs=1e-6)


def test_alpha_equals_rank_and_the_metadata_say_what_trainers_say(
    tmp_path: Path, models: tuple[Weights, Weights]
) -> None:
    run(tmp_path, *models, rank=16, conv_rank=4)
    adapter = read_adapter(tmp_path / "out.safetensors")
    assert {layer.alpha for layer in adapter.layers.values()} == {16.0, 4.0}
    assert all(layer.alpha == layer.rank for layer in adapter.layers.values())
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "16",
        "ss_network_alpha": "16",
        "ss_network_args": '{"conv_dim": "4", "conv_alpha": "4"}',
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_output_name": "out",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "out",
    }
    assert expected.items() <= adapter.metadata.items()


def test_the_metadata_identify_both_inputs(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    import hashlib

    run(tmp_path, *models, hash_inputs=True)
    metadata = read_safetensors(tmp_path / "out.safetensors").metadata
    origin = json.loads(metadata["hubtool.extract"])
    for name in ("base", "tuned"):
        path = tmp_path / f"{name}.safetensors"
        raw = path.read_bytes()
        header = raw[: 8 + int.from_bytes(raw[:8], "little")]
        assert origin[name]["name"] == path.name
        assert origin[name]["size_bytes"] == len(raw)
        assert origin[name]["header_sha256"] == hashlib.sha256(header).hexdigest()
        assert origin[name]["sha256"] == hashlib.sha256(raw).hexdigest()
    assert metadata["ss_new_sd_model_hash"] == origin["base"]["sha256"]


# ---------------------------------------------------------------- which modules


@pytest.mark.parametrize(
    ("architecture_id", "encoders", "fixture", "conv_rank"),
    [
        ("sd1", {"clip_l": "cond_stage_model.transformer."}, "gen_sdscripts_sd15_locon", 16),
        ("sd1", {"clip_l": "cond_stage_model.transformer."}, "gen_sdscripts_sd15_lora", 0),
        ("sdxl", {"clip_l": "conditioner.embedders.0.transformer.", "clip_g": "text_encoders.clip_g.transformer."},
         "gen_sdscripts_sdxl_locon", 16),
        ("sdxl", {"clip_l": "conditioner.embedders.0.transformer.", "clip_g": "text_encoders.clip_g.transformer."},
         "gen_sdscripts_sdxl_lora", 0),
    ],
)  # fmt: skip
def test_keys_are_exactly_those_that_kohyas_trainer_writes(
    tmp_path: Path, architecture_id: str, encoders: dict[str, str], fixture: str, conv_rank: int
) -> None:
    shapes = full_shapes(architecture_id, [(Component(name), prefix) for name, prefix in encoders.items()])
    paths = [write_sparse(tmp_path / name, shapes) for name in ("base.safetensors", "tuned.safetensors")]
    pairs = [pair for pair in compare(*paths).targets if conv_rank or not pair.is_convolutional]
    keys: dict[str, tuple[int, ...]] = {}
    for pair in pairs:
        base = dialect("kohya").base(architecture(architecture_id), pair.module)
        rank = 8 if pair.is_kernel else 16  # as the fixtures were made
        keys[f"{base}.alpha"] = ()
        keys[f"{base}.lora_up.weight"] = (pair.shape[0], rank, *(1,) * len(pair.shape[2:]))
        keys[f"{base}.lora_down.weight"] = (rank, *pair.shape[1:])
    assert keys == dict(key_list(fixture).shapes)


def test_unchanged_modules_are_left_out_and_counted(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    same = {module: base[module] if module.path in {CROSS, KERNEL} else weight for module, weight in changed.items()}
    found = run(tmp_path, base, same)
    assert found.skipped_unchanged == 2
    assert found.modules == 4
    assert {module.path for module in read_adapter(tmp_path / "out.safetensors").layers}.isdisjoint({CROSS, KERNEL})


def test_a_weight_stored_in_another_dtype_with_the_same_values_is_unchanged(
    tmp_path: Path, models: tuple[Weights, Weights]
) -> None:
    base, changed = models
    module = unet(CROSS)[0]
    found = run(tmp_path, base, {**changed, module: base[module].float()})
    assert found.skipped_unchanged == 1


def test_two_equal_checkpoints_are_refused_and_nothing_is_written(
    tmp_path: Path, models: tuple[Weights, Weights]
) -> None:
    with pytest.raises(IncompatibleCheckpoints, match="the same in all 6 modules"):
        run(tmp_path, models[0], models[0])
    assert not (tmp_path / "out.safetensors").exists()


def test_conv_rank_zero_leaves_resnets_out(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    run(tmp_path, *models, rank=8, conv_rank=0)
    modules = read_adapter(tmp_path / "out.safetensors").layers
    assert modules.keys() == TARGETS - {*unet(KERNEL, TIME)}


def test_components_choose_the_parts(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    for names, component in ((["unet"], Component.DENOISER), (["text_encoders"], Component.CLIP_L)):
        run(tmp_path, *models, components=names, force=True)
        modules = read_adapter(tmp_path / "out.safetensors").layers
        assert {module.component for module in modules} == {component}
    with pytest.raises(UsageProblem, match="'clip_g'"):
        run(tmp_path, *models, components=["clip_g"], force=True)


def test_what_a_lora_cannot_carry_is_reported(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    found = run(tmp_path, base, changed)
    assert found.left_out is not None
    assert 0 < found.left_out < 0.1
    assert any("1 tensor changed that a LoRA does not carry" in note and INPUT in note for note in found.notes)


# ---------------------------------------------------------------- ranks


def test_the_rank_is_clamped_to_the_smaller_side(tmp_path: Path) -> None:
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    weight = torch.randn(320, 320).half()
    paths = [write_file(tmp_path / f"{i}.safetensors", {key: weight * (1 + i)}) for i in range(2)]
    found = extract(paths[1], paths[0], tmp_path / "out.safetensors", ExtractOptions(rank=5000))
    assert found.rank is not None
    assert found.rank.max == 320
    assert found.relative_error is not None
    assert found.relative_error < 1e-3


@pytest.mark.parametrize("energy", [0.5, 0.95])
def test_energy_gives_each_module_the_rank_that_a_full_svd_gives(tmp_path: Path, energy: float) -> None:
    base = small_model()
    changed = tuned(base, rank=40, size=1e-3, noise=1e-4)
    run(tmp_path, base, changed, energy=energy)
    for module, layer in read_adapter(tmp_path / "out.safetensors").layers.items():
        change = changes(base, changed)[module]
        values = torch.linalg.eigvalsh(change @ change.T).flip(0)
        wanted = int((torch.cumsum(values, 0) < energy * values.sum()).sum()) + 1
        assert layer.rank == wanted, module


def test_rank_limits_what_energy_asks_for(tmp_path: Path) -> None:
    base = small_model()
    run(tmp_path, base, tuned(base, rank=40, noise=1e-3), energy=0.99, rank=6, conv_rank=3)
    ranks = {module: layer.rank for module, layer in read_adapter(tmp_path / "out.safetensors").layers.items()}
    assert max(rank for module, rank in ranks.items() if module.path != KERNEL and rank) == 6
    assert ranks[unet(KERNEL)[0]] == 3


def test_a_threshold_above_every_singular_value_of_a_module_leaves_it_out(tmp_path: Path) -> None:
    base = {module: weight.float() for module, weight in small_model().items()}
    changed = tuned(base, rank=1)
    weak = unet(ATTENTION)[0]
    changed[weak] = base[weak] + 1e-3 * (changed[weak] - base[weak])
    found = run(tmp_path, base, changed, threshold=0.1)
    assert {layer.rank for layer in found.layers} == {1}
    assert found.modules == len(TARGETS) - 1
    assert found.skipped_unchanged == 0


@pytest.mark.parametrize("max_size", [200_000, 400_000])
def test_a_size_limit_is_kept_and_beats_equal_ranks_of_that_size(tmp_path: Path, max_size: int) -> None:
    base = {module: weight.float() for module, weight in small_model().items()}
    changed = tuned(base, rank=60, noise=1e-4)
    for module in unet(ATTENTION, KERNEL):  # most of the change is in one place
        changed[module] = base[module] + 5 * (changed[module] - base[module])
    found = run(tmp_path, base, changed, max_size=max_size)
    size = (tmp_path / "out.safetensors").stat().st_size
    assert 0.8 * max_size < size <= max_size
    deltas, wanted = written(tmp_path / "out.safetensors", base), changes(base, changed)
    errors = [
        float((wanted[m] - deltas[m]).square().sum() if m in deltas else wanted[m].square().sum()) for m in wanted
    ]
    assert found.relative_error is not None
    share = sum(errors) / sum(float(w.square().sum()) for w in wanted.values())
    assert found.relative_error**2 == pytest.approx(share, rel=1e-3)
    even = max(1, round((found.rank.min + found.rank.max) / 2)) if found.rank else 1
    while True:  # the largest equal rank that fits
        equal = run(tmp_path, base, changed, rank=even, force=True)
        if (tmp_path / "out.safetensors").stat().st_size <= max_size:
            break
        even -= 1
    assert found.relative_error < (equal.relative_error or 1)


def test_a_size_that_cannot_hold_one_direction_is_refused(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    with pytest.raises(UsageProblem, match="6 modules do not fit into 2000 bytes"):
        run(tmp_path, *models, max_size=2000)
    assert not (tmp_path / "out.safetensors").exists()


# ---------------------------------------------------------------- layouts and dtypes


def test_base_and_tuned_may_have_different_layouts(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    run(tmp_path, base, changed)
    expected = (tmp_path / "out.safetensors").read_bytes()[-1000:]
    folder = write_diffusers(tmp_path / "folder", changed)
    extract(folder, tmp_path / "base.safetensors", tmp_path / "mixed.safetensors")
    assert (tmp_path / "mixed.safetensors").read_bytes()[-1000:] == expected


def test_a_linear_projection_is_compared_with_its_convolution(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    module = unet(PROJECTION)[0]
    run(tmp_path, base, {**changed, module: changed[module][:, :, 0, 0]})
    assert read_adapter(tmp_path / "out.safetensors").layers[module].rank == 32


def test_q_k_and_v_become_one_module_where_the_dialect_knows_them_stacked(tmp_path: Path) -> None:
    base = write_sparse(tmp_path / "flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)})
    folder = tmp_path / "tuned" / "transformer"
    folder.mkdir(parents=True)
    parts = [f"transformer_blocks.0.attn.to_{part}.weight" for part in "qkv"]
    changed = write_sparse(folder / "diffusion_pytorch_model.safetensors", dict.fromkeys(parts, (3072, 3072)))
    rows = torch.randn(2, 3072).half()
    with changed.open("r+b") as file:
        for part, row, values in ((0, 5, rows[0]), (2, 7, rows[1])):
            start = read_safetensors(changed).tensors[parts[part]].data.start  # type: ignore[union-attr]  # it lies in a file
            file.seek(start + row * 3072 * 2)
            file.write(values.numpy().tobytes())
    extract(tmp_path / "tuned", base, tmp_path / "out.safetensors", ExtractOptions(rank=2))
    adapter = read_adapter(tmp_path / "out.safetensors")
    assert [layer.base for layer in adapter.layers.values()] == ["lora_unet_double_blocks_0_img_attn_qkv"]
    delta = next(iter(adapter.layers.values())).delta((9216, 3072))
    assert torch.allclose(delta[[5, 2 * 3072 + 7]], rows.float(), atol=5e-3)
    assert int((delta.abs().amax(1) > 1e-3).sum()) == 2


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.float16)])
def test_dtypes_may_differ_between_the_two(tmp_path: Path, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    base = {module: weight.to(dtypes[0]) for module, weight in small_model().items()}
    changed = {module: weight.to(dtypes[1]) for module, weight in tuned(small_model(), size=0.1).items()}
    run(tmp_path, base, changed, rank=8)
    deltas, wanted = written(tmp_path / "out.safetensors", base), changes(base, changed)
    assert all(relative(wanted[module] - deltas[module], wanted[module]) < 0.02 for module in wanted)


def test_scaled_float8_weights_are_differenced_by_their_values(tmp_path: Path) -> None:
    base = {module: torch.ones_like(weight) for module, weight in small_model().items()}
    changed = tuned(base, size=0.5)
    keys = {key: weight.to(torch.float8_e4m3fn) for key, weight in ldm_keys(base).items()}
    keys |= {key.replace("weight", "scale_weight"): torch.tensor(0.5) for key in keys}
    scaled = {module: 0.5 * weight for module, weight in changed.items()}
    paths = [write_file(tmp_path / "base.safetensors", keys), write_ldm(tmp_path / "tuned.safetensors", scaled)]
    extract(paths[1], paths[0], tmp_path / "out.safetensors", ExtractOptions(rank=8))
    wanted = changes({module: 0.5 * weight for module, weight in base.items()}, scaled)
    for module, delta in written(tmp_path / "out.safetensors", base).items():
        assert relative(wanted[module] - delta, wanted[module]) < 0.02, module


def test_a_difference_that_is_mostly_rounding_is_called_so(tmp_path: Path) -> None:
    base = {module: weight.float() for module, weight in small_model().items()}
    found = run(tmp_path, base, {module: weight.bfloat16() for module, weight in tuned(base, size=1e-6).items()})
    assert found.rounding is not None
    assert 0.5 < found.rounding <= 1
    assert any("rounding to BF16 and F32" in note for note in found.notes)


def test_the_file_is_the_same_whatever_the_number_of_workers(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    files = []
    for workers in (1, 2, 3):
        run(tmp_path, *models, workers=workers, force=True)
        files.append((tmp_path / "out.safetensors").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_seed_gives_the_same_file_every_time_and_another_seed_another_as_good(
    tmp_path: Path, models: tuple[Weights, Weights]
) -> None:
    files, errors = [], []
    for seed in (5, 5, 6):
        errors.append(run(tmp_path, *models, seed=seed, rank=8, dtype="F32", force=True).relative_error)
        header = read_safetensors(tmp_path / "out.safetensors")
        files.append({key: bytes(tensor.view()) for key, tensor in header.tensors.items()})
    assert files[0] == files[1] != files[2]
    assert errors[0] == pytest.approx(errors[2], rel=2e-3)


def test_the_exact_method_is_as_good_or_better(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    errors = [run(tmp_path, *models, method=m, force=True).relative_error or 1 for m in ("exact", "randomized")]
    assert errors[0] <= 1.0001 * errors[1]


# ---------------------------------------------------------------- output


def test_a_dialect_without_alphas_gives_the_same_change(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    run(tmp_path, *models)
    kohya = written(tmp_path / "out.safetensors", models[0])
    run(tmp_path, *models, dialect="diffusers", force=True)
    file = read_safetensors(tmp_path / "out.safetensors")
    assert not any(key.endswith("alpha") for key in file.tensors)
    assert f"unet.{ATTENTION}.lora_A.weight" in file.tensors
    for module, delta in written(tmp_path / "out.safetensors", models[0]).items():
        assert torch.equal(delta, kohya[module])


def test_a_dry_run_names_the_modules_and_writes_nothing(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    found = run(tmp_path, *models, dry_run=True)
    assert (found.modules, found.components) == (6, {"denoiser": 5, "clip_l": 1})
    assert found.relative_error is None
    assert not (tmp_path / "out.safetensors").exists()


def test_an_existing_output_is_kept_unless_forced(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(OutputExists):
        run(tmp_path, *models)
    assert (tmp_path / "out.safetensors").read_text() == "mine"
    run(tmp_path, *models, force=True)
    assert len(read_adapter(tmp_path / "out.safetensors").layers) == 6


def test_an_input_is_never_overwritten(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    paths = [write_ldm(tmp_path / f"{i}.safetensors", weights) for i, weights in enumerate(models)]
    with pytest.raises(UsageProblem, match="is an input"):
        extract(paths[1], paths[0], paths[0], ExtractOptions(force=True))


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *models, progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {"base.safetensors", "tuned.safetensors"}


# ---------------------------------------------------------------- wrong pairs and broken values


@pytest.mark.parametrize(("first", "second"), [("sd1", "sd2"), ("sd1", "sdxl"), ("sdxl", "sd2")])
def test_two_architectures_are_named(tmp_path: Path, first: str, second: str) -> None:
    paths = [write_sparse(tmp_path / f"{id}.safetensors", full_shapes(id, [])) for id in (first, second)]
    with pytest.raises(IncompatibleCheckpoints) as caught:
        extract(paths[1], paths[0], tmp_path / "out.safetensors")
    for id in (first, second):
        assert architecture(id).title in str(caught.value)


def test_an_inpainting_model_against_a_plain_one_is_named(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    module = unet(INPUT)[0]
    with pytest.raises(IncompatibleCheckpoints, match=r"conv_in is \[320, 4, 3, 3\].*\[320, 9, 3, 3\].*inpainting"):
        run(tmp_path, base, {**changed, module: torch.zeros(320, 9, 3, 3).half()})


def test_two_inpainting_models_are_fine(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    module = unet(INPUT)[0]
    wide = torch.zeros(320, 9, 3, 3).half()
    assert run(tmp_path, *({**weights, module: wide} for weights in models)).modules == 6


def test_a_missing_part_is_named(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    del changed[unet(CROSS)[0]]
    with pytest.raises(IncompatibleCheckpoints, match=rf"tuned\.safetensors lacks .*{CROSS}"):
        run(tmp_path, base, changed)


def test_a_tuned_denoiser_alone_goes_with_a_whole_base(tmp_path: Path, models: tuple[Weights, Weights]) -> None:
    base, changed = models
    alone = {module: weight for module, weight in changed.items() if module.component is Component.DENOISER}
    found = run(tmp_path, base, alone)
    assert found.components == {"denoiser": 5}
    assert any("clip_l is in base.safetensors but not in tuned.safetensors" in note for note in found.notes)
    with pytest.raises(IncompatibleCheckpoints, match="clip_l"):
        run(tmp_path, base, alone, components=["clip_l"], force=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", [0, 1])
def test_a_value_that_is_no_number_names_file_and_module(
    tmp_path: Path, models: tuple[Weights, Weights], value: float, which: int
) -> None:
    models[which][unet(CROSS)[0]][3, 4] = value
    with pytest.raises(NonFinite, match=f"{'tuned' if which else 'base'} model holds NaN or infinity in {CROSS}"):
        run(tmp_path, *models)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_change_beyond_the_dtype_is_refused_with_a_way_out(tmp_path: Path) -> None:
    base = {module: weight.float() for module, weight in small_model().items()}
    changed = {module: weight * 1e12 for module, weight in base.items()}
    with pytest.raises(AdapterProblem, match="too large to be stored as F16"):
        run(tmp_path, base, changed)
    assert run(tmp_path, base, changed, dtype="F32").modules == 6


def test_a_dialect_without_a_name_for_a_module_is_refused_before_the_work(
    tmp_path: Path, models: tuple[Weights, Weights]
) -> None:
    with pytest.raises((NotRepresentable, UsageProblem)):
        run(tmp_path, *models, dialect="original", components=["text_encoders"])


@pytest.mark.parametrize(
    "options",
    [
        {"energy": 0.0},
        {"energy": 1.5},
        {"rank": 0},
        {"threshold": -1.0},
        {"energy": 0.5, "threshold": 1.0},
        {"energy": 0.5, "max_size": 10**6},
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    tmp_path: Path, models: tuple[Weights, Weights], options: dict[str, float]
) -> None:
    with pytest.raises(UsageProblem):
        run(tmp_path, *models, **options)
