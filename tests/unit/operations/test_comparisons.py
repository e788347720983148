"""`diff`, `conflicts` and `stats` against whole changes in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.adapters import spelt
from support.changes import CROSS, KERNEL, LINEAR, POINT, changes, loha, lokr, lora, sd1, shape, tucker, write_adapter
from support.checkpoints import small_model, write_ldm
from support.conversions import round_trip
from support.files import number, random_tensor, write

from hubtool.adapters.codec import read_adapter
from hubtool.errors import BrokenAdapter, IncompatibleAdapters, NonFinite, NotRegularFile, UsageProblem
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.conflicts import conflicts, suggested
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.diff import diff
from hubtool.operations.factors import factors_of
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.resize import ResizeOptions, resize
from hubtool.operations.sources import Source
from hubtool.operations.stats import stats

import torch  # isort: skip

if TYPE_CHECKING:
    from pathlib import Path

    from support.files import Raw

MAKERS = {
    "lora": (LINEAR, lambda seed: lora(LINEAR, 8, seed)),
    "kernel": (KERNEL, lambda seed: lora(KERNEL, 8, seed)),
    "tucker": (KERNEL, lambda seed: tucker(shape(KERNEL), 6, seed) | {Role.ALPHA: number(3.0)}),
    "loha": (CROSS, lambda seed: loha(shape(CROSS), 4, seed)),
    "wide loha": (LINEAR, lambda seed: loha(shape(LINEAR), 14, seed)),
    "lokr": (LINEAR, lambda seed: lokr(shape(LINEAR), 8, seed)),
    "lokr rank": (LINEAR, lambda seed: lokr(shape(LINEAR), 4, seed, rank=6)),
    "full": (LINEAR, lambda seed: {Role.DIFF: random_tensor(seed, shape(LINEAR), "F32")}),
}


@pytest.mark.parametrize("one", MAKERS)
@pytest.mark.parametrize("two", ["lora", "lokr", "loha"])
def test_errors_and_cosines_are_those_of_the_whole_changes(tmp_path: Path, one: str, two: str) -> None:
    path, make = MAKERS[one]
    other = {"lora": lora(path, 5, 70), "lokr": lokr(shape(path), 8, 80), "loha": loha(shape(path), 3, 90)}[two]
    first = write_adapter(tmp_path / "a.safetensors", {path: make(1)})
    second = write_adapter(tmp_path / "b.safetensors", {path: other})
    found = diff(first, second)
    a, b = changes(first)[sd1(path)[0]], changes(second)[sd1(path)[0]]
    row = found.modules[0]
    assert row.norm_a == pytest.approx(np.linalg.norm(a), rel=1e-5)
    assert row.norm_b == pytest.approx(np.linalg.norm(b), rel=1e-5)
    assert row.relative_error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-5)
    assert row.cosine == pytest.approx((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    assert found.relative_error == pytest.approx(row.relative_error)
    assert (found.verdict, row.status) == ("different", "differs")


def test_a_small_difference_is_measured_and_not_lost_in_rounding(tmp_path: Path) -> None:
    first = lora(LINEAR, 8, 1)
    values = np.frombuffer(first[Role.UP].data, "<f4").copy()
    values[0] *= 1 + 1e-3
    second = {**first, Role.UP: first[Role.UP]._replace(data=values.tobytes())}
    paths = [write_adapter(tmp_path / f"{n}.safetensors", {LINEAR: rows}) for n, rows in (("a", first), ("b", second))]
    a, b = (changes(path)[sd1(LINEAR)[0]] for path in paths)
    expected = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert 1e-6 < expected < 1e-4
    assert diff(*paths).relative_error == pytest.approx(expected, rel=1e-2)


def test_the_same_file_is_identical_and_other_metadata_are_told(tmp_path: Path) -> None:
    rows = {LINEAR: lora(LINEAR, 8, 1)}
    first = write_adapter(tmp_path / "a.safetensors", rows, {"x": "1", "y": "2"})
    second = write_adapter(tmp_path / "b.safetensors", rows, {"x": "1", "y": "3", "z": "4"})
    assert (diff(first, first).verdict, diff(first, first).equal) == ("identical", True)
    found = diff(first, second)
    assert (found.verdict, found.header.changed, found.header.only_b) == ("same tensors", ("y",), ("z",))
    assert found.tensors.same == 3


@pytest.mark.parametrize("target", ["diffusers", "comfyui", "peft"])
def test_a_converted_file_is_equal_whatever_its_keys(tmp_path: Path, target: str) -> None:
    rows = {LINEAR: lora(LINEAR, 8, 1), POINT: lora(POINT, 8, 2), KERNEL: lora(KERNEL, 8, 3)}
    source = write_adapter(tmp_path / "a.safetensors", rows)
    convert(source, target, tmp_path / "b.safetensors")
    found = diff(source, tmp_path / "b.safetensors")
    assert (found.verdict, found.tensors.same) == ("equal", 0)
    assert found.relative_error is not None
    assert found.relative_error < 1e-6


def test_fused_and_split_modules_are_compared_by_their_parts(tmp_path: Path) -> None:
    from support.adapters import lora as tensors_of
    from support.adapters import modules_like

    modules = modules_like("flux1", "double_blocks.0.img_attn.qkv", "single_blocks.0.linear1", "final_layer.linear")
    trip = round_trip(
        tmp_path,
        tensors_of("flux1", "kohya", modules, rank=2, alpha=2.0),
        "diffusers",
        options=ConvertOptions(architecture="flux1"),
    )
    found = diff(tmp_path / "before.safetensors", trip.there.output, "flux1")
    assert found.verdict == "equal"
    assert len(found.modules) > len(modules)


def test_half_precision_is_no_difference_and_another_rank_is(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    resize(source, tmp_path / "half.safetensors", ResizeOptions(rank=8, dtype="F16"))
    resize(source, tmp_path / "less.safetensors", ResizeOptions(rank=7))
    assert diff(source, tmp_path / "half.safetensors").verdict == "equal"
    assert diff(source, tmp_path / "less.safetensors").verdict == "different"


def test_modules_of_one_file_alone_and_untrained_ones_are_told_apart(tmp_path: Path) -> None:
    nothing = lora(CROSS, 4, 2) | {Role.UP: number(0.0, "F32", (320, 4))}
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), CROSS: nothing})
    second = write_adapter(tmp_path / "b.safetensors", {POINT: lora(POINT, 8, 1)})
    found = {row.module: row.status for row in diff(first, second).modules}
    assert found == {LINEAR: "only_a", CROSS: "nothing", POINT: "only_b"}


def test_zeros_are_no_absence(tmp_path: Path) -> None:
    rows = lora(LINEAR, 8, 1)
    trained = write_adapter(tmp_path / "a.safetensors", {LINEAR: rows})
    nothing = write_adapter(tmp_path / "b.safetensors", {LINEAR: rows | {Role.UP: number(0.0, "F32", (320, 8))}})
    found = [diff(*pair).modules[0] for pair in ((trained, nothing), (nothing, trained))]
    assert [(row.status, row.relative_error) for row in found] == [("differs", 1.0), ("differs", None)]


@pytest.mark.parametrize("command", [stats, lambda path: diff(path, path), lambda path: conflicts([Source(path)] * 2)])
def test_factors_that_do_not_meet_are_a_broken_adapter(tmp_path: Path, command: object) -> None:
    broken = write_adapter(tmp_path / "a.safetensors", {LINEAR: unmet()})
    with pytest.raises(BrokenAdapter, match="to_q"):
        command(broken)  # type: ignore[operator]


def unmet() -> dict[Role, Raw]:
    """An up of rank 5 and a down of rank 8."""
    return lora(LINEAR, 8, 1) | {Role.UP: random_tensor(3, (320, 5), "F32")}


@pytest.mark.parametrize(
    "rows", [unmet(), loha(shape(LINEAR), 4, 1) | {Role.HADA_W1_A: random_tensor(3, (300, 4), "F32")}]
)
def test_no_factors_come_of_tensors_that_do_not_meet(tmp_path: Path, rows: dict[Role, Raw]) -> None:
    broken = read_adapter(write_adapter(tmp_path / "a.safetensors", {LINEAR: rows}))
    with pytest.raises(BrokenAdapter, match="does not give a change"):
        factors_of(broken.layers[sd1(LINEAR)[0]], shape(LINEAR))


def test_a_folder_has_files_to_compare(tmp_path: Path) -> None:
    with pytest.raises(NotRegularFile, match="diff compares two safetensors files"):
        diff(tmp_path, tmp_path)


def test_a_bias_counts(tmp_path: Path) -> None:
    rows = [lora(LINEAR, 8, 1) | {Role.DIFF_BIAS: random_tensor(seed, (320,), "F32")} for seed in (1, 2)]
    paths = [write_adapter(tmp_path / f"{i}.safetensors", {LINEAR: row}) for i, row in enumerate(rows)]
    assert diff(*paths).verdict == "different"


def test_families_that_need_the_base_are_compared_by_their_tensors(tmp_path: Path) -> None:
    magnitude = {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    dora = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1) | magnitude})
    again = write_adapter(
        tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 1) | magnitude}, {"x": "y"}, ("sd1", "comfyui")
    )
    plain = write_adapter(tmp_path / "c.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    assert diff(dora, again).verdict == "equal"
    assert [row.status for row in diff(dora, plain).modules] == ["unknown"]
    assert not diff(dora, plain).equal


def test_checkpoints_are_compared_tensor_by_tensor(tmp_path: Path) -> None:
    model = small_model()
    first = write_ldm(tmp_path / "a.safetensors", model)
    changed = {**model, ModuleRef(Component.DENOISER, LINEAR): model[ModuleRef(Component.DENOISER, LINEAR)] * 1.5}
    second = write_ldm(tmp_path / "b.safetensors", changed)
    found = diff(first, second)
    assert (found.a.architecture, len(found.tensors.changed), found.tensors.same) == (None, 1, len(model) - 1)
    assert found.tensors.changed[0].relative_error == pytest.approx(0.5, rel=1e-3)


def test_adapters_of_different_models_are_different(tmp_path: Path) -> None:
    from support.adapters import lora as tensors_of
    from support.adapters import modules_like

    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    modules = modules_like("flux1", "double_blocks.0.img_attn.qkv")
    second = write(tmp_path / "b.safetensors", tensors_of("flux1", "kohya", modules))
    found = diff(first, second)
    assert (found.verdict, found.modules) == ("different", ())
    assert any("is for" in note for note in found.notes)


# ---------------------------------------------------------------- conflicts


@pytest.mark.parametrize("two", MAKERS)
def test_cosines_and_norms_of_blocks_are_those_of_the_whole_changes(tmp_path: Path, two: str) -> None:
    path, make = MAKERS[two]
    rows = lora(path, 8, 1)
    first = write_adapter(tmp_path / "a.safetensors", {path: rows})
    merge([Source(first)], tmp_path / "same.safetensors", MergeOptions())
    second = write_adapter(tmp_path / "b.safetensors", {path: make(40)})
    found = conflicts([Source(first, 0.7), Source(second, -0.4)])
    a, b = 0.7 * changes(first)[sd1(path)[0]], -0.4 * changes(second)[sd1(path)[0]]
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.pairs[0].cosine == pytest.approx(cosine, abs=1e-6)
    assert [f.norm for f in found.files] == pytest.approx([np.linalg.norm(a), np.linalg.norm(b)], rel=1e-5)
    assert found.blocks[0].block == "IN01"
    assert found.blocks[0].norms == pytest.approx([np.linalg.norm(a), np.linalg.norm(b)], rel=1e-5)
    assert found.together == pytest.approx(
        np.linalg.norm(a + b) / math.hypot(np.linalg.norm(a), np.linalg.norm(b)), rel=1e-5
    )


def test_a_file_and_its_opposite_work_against_each_other_and_a_loud_one_dominates(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    against = conflicts([Source(path, 1.0), Source(path, -0.3)])
    assert (against.pairs[0].verdict, against.pairs[0].cosine) == ("against", pytest.approx(-1.0))
    assert (against.blocks[0].dominant, against.files[0].dominates) == (1, 1)
    alike = conflicts([Source(path), Source(path)])
    assert (alike.pairs[0].verdict, alike.blocks[0].dominant) == ("alike", None)
    assert alike.together == pytest.approx(math.sqrt(2))


def test_suggested_strengths_give_equal_energies_no_louder_than_independent_ones() -> None:
    alone = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    assert suggested(alone) == pytest.approx([math.sqrt(2) / 2, math.sqrt(2)])
    alike = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert suggested(alike) == pytest.approx([math.sqrt(0.5)] * 2)
    against = torch.tensor([[1.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
    assert suggested(against) == pytest.approx([1.0, 1.0])
    nothing = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert suggested(nothing) == pytest.approx([1.0, 1.0])


def test_files_that_touch_different_modules_do_not_meet(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    encoder = ModuleRef(Component.CLIP_L, "text_model.encoder.layers.0.self_attn.q_proj")
    factors = {Role.DOWN: random_tensor(1, (4, 768), "F32"), Role.UP: random_tensor(2, (768, 4), "F32")}
    second = write(tmp_path / "b.safetensors", spelt("sd1", "kohya", {encoder: factors}))
    found = conflicts([Source(first), Source(second)], "sd1")
    assert (found.pairs[0].cosine, found.pairs[0].shared_modules) == (0.0, 0)
    assert [(b.block, b.cosines) for b in found.blocks] == [("clip_l", (None,)), ("IN01", (None,))]


def test_what_depends_on_the_base_is_left_out_and_counted(tmp_path: Path) -> None:
    dora = lora(LINEAR, 8, 1) | {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: dora, CROSS: lora(CROSS, 4, 1)})
    second = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 2)})
    assert conflicts([Source(first), Source(second)]).notes == (
        "1 modules of a.safetensors depend on the base model and are left out.",
    )


@pytest.fixture
def dora(tmp_path: Path) -> Path:
    """One module, whose change depends on the base model."""
    rows = lora(LINEAR, 8, 1) | {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    return write_adapter(tmp_path / "dora.safetensors", {LINEAR: rows})


def test_what_is_not_measured_is_not_called_independent(tmp_path: Path, dora: Path) -> None:
    plain = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 2), KERNEL: lora(KERNEL, 8, 3)})
    found = conflicts([Source(plain), Source(dora)])
    pair = found.pairs[0]
    assert (pair.cosine, pair.verdict, pair.shared_modules) == (None, "unknown", 1)
    assert (found.files[1].norm, found.files[1].suggested_strength, found.files[0].energy_share) == (None, None, None)
    assert (found.files[0].dominates, found.together) == (0, None)
    assert [(block.norms[1], block.dominant) for block in found.blocks] == [(None, None)]


def test_pairs_that_meet_where_nothing_is_known_alone_are_unknown(tmp_path: Path) -> None:
    rows = lora(LINEAR, 8, 1) | {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    mixed = write_adapter(tmp_path / "a.safetensors", {LINEAR: rows, CROSS: lora(CROSS, 4, 1)})
    plain = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 2)})
    both = write_adapter(tmp_path / "c.safetensors", {LINEAR: lora(LINEAR, 8, 2), CROSS: lora(CROSS, 4, 2)})
    assert conflicts([Source(mixed), Source(plain)]).pairs[0].verdict == "unknown"
    known = conflicts([Source(mixed), Source(both)]).pairs[0]
    assert (known.cosine is None, known.shared_modules) == (False, 2)


def test_a_file_that_is_switched_off_is_no_rival(tmp_path: Path, dora: Path) -> None:
    plain = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 2)})
    for off in (plain, dora):
        found = conflicts([Source(plain), Source(off, 0.0)])
        assert (found.pairs[0].cosine, found.pairs[0].verdict) == (None, "nothing")
        assert (found.files[0].dominates, found.files[1].suggested_strength, found.files[1].norm) == (0, None, 0.0)
        assert found.notes == (f"{off.name} is switched off: its strength is 0.",)


def test_nothing_is_suggested_for_files_that_cancel(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    found = conflicts([Source(path), Source(path, -0.5)])
    assert [row.suggested_strength for row in found.files] == [None, None]
    assert found.notes == ("1 and 2 all but cancel each other, so no strengths are suggested.",)


def test_one_file_has_no_conflict_and_two_models_have_nothing_in_common(tmp_path: Path) -> None:
    from support.adapters import lora as tensors_of
    from support.adapters import modules_like

    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    modules = modules_like("flux1", "double_blocks.0.img_attn.qkv")
    second = write(tmp_path / "b.safetensors", tensors_of("flux1", "kohya", modules))
    with pytest.raises(UsageProblem):
        conflicts([Source(first)])
    with pytest.raises(IncompatibleAdapters):
        conflicts([Source(first), Source(second)])


# ---------------------------------------------------------------- stats


@pytest.mark.parametrize("name", MAKERS)
def test_figures_are_those_of_the_singular_values_of_the_whole_change(tmp_path: Path, name: str) -> None:
    path, make = MAKERS[name]
    source = write_adapter(tmp_path / "a.safetensors", {path: make(1)})
    found = stats(source)
    values = np.linalg.svd(changes(source)[sd1(path)[0]], compute_uv=False)
    row = found.layers[0]
    energies, shares = (values**2).cumsum() / (values**2).sum(), values[values > 1e-6 * values[0]]
    shares = shares / shares.sum()
    assert row.norm == pytest.approx(np.linalg.norm(values), rel=1e-5)
    assert row.largest == pytest.approx(values[0], rel=1e-4)
    assert row.stable_rank == pytest.approx((values**2).sum() / values[0] ** 2, rel=1e-3)
    assert row.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-2)
    assert (row.rank_90, row.rank_99) == tuple(int((energies < share).sum()) + 1 for share in (0.9, 0.99))
    assert row.rms == pytest.approx(np.linalg.norm(values) / math.sqrt(math.prod(shape(path))), rel=1e-5)


def test_blocks_share_the_energy(tmp_path: Path) -> None:
    far = "up_blocks.3.attentions.0.transformer_blocks.0.attn1.to_q"
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), far: lora(far, 8, 2, alpha=8.0)})
    found = stats(source)
    assert [block.block for block in found.blocks] == ["IN01", "OUT09"]
    assert sum(block.energy_share for block in found.blocks) == pytest.approx(1)
    assert found.blocks[1].norm == pytest.approx(np.linalg.norm(changes(source)[sd1(far)[0]]), rel=1e-5)
    assert found.norm == pytest.approx(math.hypot(*(block.norm for block in found.blocks)))


def test_untrained_modules_are_counted_and_other_families_named(tmp_path: Path) -> None:
    scales = {Role.IA3_WEIGHT: random_tensor(1, (320,), "F32"), Role.IA3_ON_INPUT: number(0, "I64")}
    nothing = lora(LINEAR, 4, 2) | {Role.UP: number(0.0, "F32", (320, 4))}
    found = stats(write_adapter(tmp_path / "a.safetensors", {LINEAR: nothing, CROSS: scales, POINT: lora(POINT, 4, 1)}))
    assert (found.untrained, found.parametrizations) == (1, {"lora": 2, "ia3": 1})
    assert found.layers[1].norm is None


def test_a_change_that_depends_on_the_base_has_no_norm_rather_than_none_of_it(tmp_path: Path, dora: Path) -> None:
    found = stats(dora)
    assert (found.norm, found.untrained) == (None, 0)
    assert [(block.modules, block.norm, block.energy_share) for block in found.blocks] == [(1, None, None)]
    assert len(found.notes) == 1
    assert "1 modules (DoRA) depend on the base model" in found.notes[0]
    assert stats(write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 2)})).notes == ()


@pytest.mark.parametrize("command", [stats, lambda path: diff(path, path), lambda path: conflicts([Source(path)] * 2)])
def test_values_that_are_no_numbers_are_named(tmp_path: Path, command: object) -> None:
    factors = lora(LINEAR, 8, 1) | {Role.UP: number(float("nan"), "F32", (320, 8))}
    source = write_adapter(tmp_path / "a.safetensors", {LINEAR: factors})
    with pytest.raises((NonFinite, BrokenAdapter), match=r"NaN|infinity|finite"):
        command(source)  # type: ignore[operator]
