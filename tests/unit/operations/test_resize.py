"""Resizing against a plain SVD of the whole change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.changes import (
    CROSS,
    KERNEL,
    LINEAR,
    POINT,
    best,
    changes,
    loha,
    lokr,
    lora,
    sd1,
    shape,
    tucker,
    write_adapter,
)
from support.files import number, random_tensor

from hubtool.adapters.codec import read_adapter
from hubtool.errors import BrokenAdapter, NonFinite, NotRepresentable, OutputExists, UsageProblem
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Role
from hubtool.operations.resize import ResizeOptions, resize

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = {
    "linear": (LINEAR, lambda: lora(LINEAR, 24, 1)),
    "wide": (CROSS, lambda: lora(CROSS, 24, 2, alpha=1.0)),
    "point": (POINT, lambda: lora(POINT, 24, 3)),
    "kernel": (KERNEL, lambda: lora(KERNEL, 24, 4)),
    "tucker": (KERNEL, lambda: tucker(shape(KERNEL), 12, 5) | {Role.ALPHA: number(3.0)}),
    "loha": (LINEAR, lambda: loha(shape(LINEAR), 5, 6) | {Role.ALPHA: number(2.0)}),
    "loha kernel": (KERNEL, lambda: loha(shape(KERNEL), 4, 7)),
    "lokr": (LINEAR, lambda: lokr(shape(LINEAR), 8, 8)),
    "lokr rank": (CROSS, lambda: lokr(shape(CROSS), 4, 9, rank=6) | {Role.ALPHA: number(3.0)}),
    "lokr kernel": (KERNEL, lambda: lokr(shape(KERNEL), 8, 10)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rank", [1, 8])
def test_a_resized_module_is_the_nearest_of_its_rank(tmp_path: Path, name: str, rank: int) -> None:
    path, make = LAYERS[name]
    source = write_adapter(tmp_path / "a.safetensors", {path: make()})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=rank))
    module = sd1(path)[0]
    before, after = changes(source)[module], changes(tmp_path / "out.safetensors")[module]
    optimum = best(before, rank)
    assert np.linalg.matrix_rank(after, tol=1e-4 * np.linalg.norm(after, 2)) <= rank
    assert np.linalg.norm(before - after) <= (1 + 1e-5) * optimum
    assert found.layers[0].relative_error == pytest.approx(optimum / np.linalg.norm(before), rel=1e-4)
    assert read_adapter(tmp_path / "out.safetensors").layers[module].rank == rank


RULES = {
    "energy": (0.9, lambda s: (s**2).cumsum() >= 0.9 * (s**2).sum()),
    "sv_fro": (0.95, lambda s: np.sqrt((s**2).cumsum()) >= 0.95 * np.sqrt((s**2).sum())),
    "sv_cumulative": (0.8, lambda s: s.cumsum() >= 0.8 * s.sum()),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["linear", "kernel", "tucker", "loha", "lokr"])
def test_a_share_keeps_the_fewest_that_reach_it(tmp_path: Path, rule: str, name: str) -> None:
    path, make = LAYERS[name]
    share, reached = RULES[rule]
    source = write_adapter(tmp_path / "a.safetensors", {path: make()})
    values = np.linalg.svd(changes(source)[sd1(path)[0]], compute_uv=False)
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(**{rule: share}))
    assert found.layers[0].rank == 1 + int(np.argmax(reached(values)))


@pytest.mark.parametrize("ratio", [1.5, 2.0, 1e9])
def test_a_ratio_keeps_what_exceeds_the_largest_value_divided_by_it(tmp_path: Path, ratio: float) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 24, 1)})
    values = np.linalg.svd(changes(source)[sd1(LINEAR)[0]], compute_uv=False)
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(sv_ratio=ratio))
    assert found.layers[0].rank == min(24, int((values > values[0] / ratio).sum()))


def test_a_rank_beside_a_rule_is_its_limit(tmp_path: Path) -> None:
    layers = {LINEAR: lora(LINEAR, 24, 1), KERNEL: lora(KERNEL, 24, 2)}
    source = write_adapter(tmp_path / "a.safetensors", layers)
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(energy=0.99, rank=6, conv_rank=3))
    assert {row.module: row.rank for row in found.layers} == {LINEAR: 6, KERNEL: 3}


@pytest.mark.parametrize("alpha", ["rank", "keep", 4.0])
def test_a_module_whose_rank_does_not_fall_keeps_its_tensors(tmp_path: Path, alpha: float) -> None:
    layers = {LINEAR: lora(LINEAR, 8, 1, dtype="F16"), CROSS: lora(CROSS, 24, 2, dtype="F16")}
    source = write_adapter(tmp_path / "a.safetensors", layers)
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=8, alpha=alpha))
    assert [(row.rank, row.relative_error == 0) for row in found.layers] == [(8, True), (8, False)]
    assert found.notes == ("1 modules have no more than that rank and are kept as they are, alpha included.",)
    before, after = (read_adapter(p).layers[sd1(LINEAR)[0]].tensors for p in (source, found.output))
    assert {role: bytes(t.view()) for role, t in before.items()} == {r: bytes(t.view()) for r, t in after.items()}


def test_another_dtype_or_alpha_is_computed_though_the_rank_stays(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    for options in (ResizeOptions(rank=64, dtype="F16"), ResizeOptions(rank=64, alpha=1.0, force=True)):
        found = resize(source, tmp_path / "out.safetensors", options)
        assert found.notes == ()
        layer = read_adapter(found.output).layers[sd1(LINEAR)[0]]
        assert (layer.rank, layer.tensors[Role.UP].dtype) == (8, found.dtype)
        assert layer.alpha == (1.0 if options.alpha == 1.0 else 8.0)
        before, after = changes(source)[sd1(LINEAR)[0]], changes(found.output)[sd1(LINEAR)[0]]
        assert np.linalg.norm(before - after) < 1e-3 * np.linalg.norm(before)


def test_a_layer_without_alpha_may_stay_too(tmp_path: Path) -> None:
    factors = {role: raw for role, raw in lora(LINEAR, 8, 1).items() if role is not Role.ALPHA}
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: factors})
    resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=8))
    assert read_safetensors(tmp_path / "out.safetensors").metadata["ss_network_alpha"] == "8"


def test_a_rank_above_the_side_of_the_weight_becomes_that_side(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 400, 1)})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=399))
    assert found.layers[0].rank == 320
    assert found.relative_error is not None
    assert found.relative_error < 1e-5


@pytest.mark.parametrize(("alpha", "expected"), [("rank", 8.0), ("keep", 8 * 4 / 24), (1.0, 1.0)])
def test_alpha_is_the_rank_or_keeps_the_scale_or_is_what_was_asked_for(
    tmp_path: Path, alpha: float, expected: float
) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 24, 1)})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=8, alpha=alpha))
    module = sd1(LINEAR)[0]
    assert read_adapter(tmp_path / "out.safetensors").layers[module].alpha == pytest.approx(expected)
    before, after = changes(source)[module], changes(tmp_path / "out.safetensors")[module]
    assert np.linalg.norm(before - after) == pytest.approx(best(before, 8), rel=1e-5)
    assert found.relative_error == pytest.approx(best(before, 8) / np.linalg.norm(before), rel=1e-4)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_error_that_is_told_includes_the_rounding_of_what_is_stored(tmp_path: Path, dtype: str) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=8, dtype=dtype))
    module = sd1(LINEAR)[0]
    before, after = changes(source)[module], changes(tmp_path / "out.safetensors")[module]
    measured = np.linalg.norm(before - after) / np.linalg.norm(before)
    assert found.relative_error == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("stored", "result"), [("F16", "F16"), ("BF16", "BF16"), ("F32", "F32"), ("F8_E4M3", "F16")])
def test_the_dtype_stays_unless_it_is_too_coarse_to_compute_with(tmp_path: Path, stored: str, result: str) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1, dtype=stored)})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4))
    layer = read_adapter(tmp_path / "out.safetensors").layers[sd1(LINEAR)[0]]
    assert (found.dtype, layer.tensors[Role.UP].dtype) == (result, result)


def test_a_change_of_nothing_stays_one(tmp_path: Path) -> None:
    factors = lora(LINEAR, 8, 1) | {Role.UP: number(0.0, "F32", (320, 8))}
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: factors, CROSS: lora(CROSS, 8, 2)})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(energy=0.5))
    assert not changes(tmp_path / "out.safetensors")[sd1(LINEAR)[0]].any()
    assert found.layers[0].relative_error == 0


def test_a_dora_keeps_its_magnitude_and_a_bias_its_size(tmp_path: Path) -> None:
    more = {Role.MAGNITUDE: random_tensor(9, (320, 1), "F32"), Role.DIFF_BIAS: random_tensor(8, (320,), "F32")}
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1) | more})
    found = resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4))
    layer = read_adapter(tmp_path / "out.safetensors").layers[sd1(LINEAR)[0]]
    for role, raw in more.items():
        assert bytes(layer.tensors[role].view()) == raw.data
    assert any("DoRA" in note for note in found.notes)


def test_the_trainers_metadata_tell_the_truth_and_keep_the_comment(tmp_path: Path) -> None:
    metadata = {
        "ss_network_dim": "24", "ss_network_alpha": "4", "ss_training_comment": "with love", "ss_tag_frequency": "{}",
        "ss_network_module": "lycoris.kohya", "ss_network_args": '{"algo": "loha", "conv_dim": "4"}',
        "sshs_model_hash": "x", "modelspec.title": "Style",
    }  # fmt: skip
    layers = {LINEAR: loha(shape(LINEAR), 4, 1), KERNEL: lora(KERNEL, 8, 2)}
    source = write_adapter(tmp_path / "a.safetensors", layers, metadata)
    resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=6, conv_rank=2))
    found = read_safetensors(tmp_path / "out.safetensors").metadata
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == ("6", "6")
    assert found["ss_training_comment"] == "resized from rank 24 by rank 6; with love"
    assert found["ss_network_module"] == "networks.lora"
    assert json.loads(found["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2"}
    assert found["modelspec.title"] == "Style"
    assert "sshs_model_hash" not in found


def test_ranks_that_differ_are_called_dynamic(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), CROSS: lora(CROSS, 24, 2)})
    resize(source, tmp_path / "out.safetensors", ResizeOptions(energy=0.9))
    assert read_safetensors(tmp_path / "out.safetensors").metadata["ss_network_dim"] == "Dynamic"


@pytest.mark.parametrize("dialect", ["diffusers", "comfyui", "peft"])
def test_the_result_can_be_in_another_dialect(tmp_path: Path, dialect: str) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 24, 1)})
    resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=8, dialect=dialect))
    assert read_adapter(tmp_path / "out.safetensors").dialect == dialect
    module = sd1(LINEAR)[0]
    before, after = changes(source)[module], changes(tmp_path / "out.safetensors")[module]
    assert np.linalg.norm(before - after) == pytest.approx(best(before, 8), rel=1e-5)


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    layers = {LINEAR: lora(LINEAR, 24, 1), CROSS: lora(CROSS, 24, 2), KERNEL: lora(KERNEL, 24, 3)}
    source = write_adapter(tmp_path / "a.safetensors", layers)
    files = []
    for workers in (1, 3):
        resize(source, tmp_path / f"{workers}.safetensors", ResizeOptions(rank=8, workers=workers))
        files.append((tmp_path / f"{workers}.safetensors").read_bytes())
    assert files[0] == files[1]


def test_values_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    factors = lora(LINEAR, 8, 1) | {Role.UP: number(float("nan"), "F32", (320, 8))}
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: factors})
    with pytest.raises((NonFinite, BrokenAdapter), match=r"NaN|infinity|finite"):
        resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_dtype_that_cannot_hold_the_result_is_refused(tmp_path: Path) -> None:
    big = {role: raw for role, raw in lora(LINEAR, 8, 1).items() if role is not Role.UP}
    big[Role.UP] = random_tensor(3, (320, 8), "F32", 1e12)
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: big})
    with pytest.raises(NonFinite, match="does not fit F16"):
        resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4, dtype="F16"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_options_that_make_no_sense_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    missing, out = tmp_path / "missing.safetensors", tmp_path / "out.safetensors"
    for options in (
        ResizeOptions(),
        ResizeOptions(energy=0.5, sv_ratio=3),
        ResizeOptions(energy=1.5),
        ResizeOptions(sv_ratio=1.0),
        ResizeOptions(rank=0),
    ):
        with pytest.raises(UsageProblem):
            resize(missing, out, options)


def test_what_has_no_rank_is_kept_and_a_file_without_any_rank_is_refused(tmp_path: Path) -> None:
    scales = {Role.IA3_WEIGHT: random_tensor(1, (320,), "F32"), Role.IA3_ON_INPUT: number(0, "I64")}
    both = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), CROSS: scales})
    found = resize(both, tmp_path / "out.safetensors", ResizeOptions(rank=4))
    assert found.notes == ("1 modules (ia3) have no rank and are kept as they are.",)
    kept = read_adapter(tmp_path / "out.safetensors").layers[sd1(CROSS)[0]].tensors[Role.IA3_WEIGHT]
    assert bytes(kept.view()) == scales[Role.IA3_WEIGHT].data
    alone = write_adapter(tmp_path / "b.safetensors", {CROSS: scales})
    with pytest.raises(NotRepresentable):
        resize(alone, tmp_path / "b-out.safetensors", ResizeOptions(rank=4))


def test_an_output_that_exists_is_refused_and_the_input_is_never_one(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    with pytest.raises(OutputExists):
        resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4))
    with pytest.raises(UsageProblem):
        resize(source, source, ResizeOptions(rank=4, force=True))
    resize(source, tmp_path / "out.safetensors", ResizeOptions(rank=4, force=True))
    assert read_adapter(tmp_path / "out.safetensors").layers
