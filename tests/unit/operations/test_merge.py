"""Merging against plain sums of whole changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.adapters import lora as lora_tensors
from support.adapters import modules_like, spelt
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
from support.effects import difference, effects
from support.files import number, random_tensor, write

from hubtool.adapters.codec import read_adapter
from hubtool.errors import IncompatibleAdapters, NotRepresentable, OutputExists, UsageProblem
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.merge_rules import Magnitudes, dare, ties
from hubtool.operations.model_blocks import parse_block_weights
from hubtool.operations.sources import Source

import torch  # isort: skip

if TYPE_CHECKING:
    from pathlib import Path

ENCODER = ModuleRef(Component.CLIP_L, "text_model.encoder.layers.0.self_attn.q_proj")


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def summed(sources: list[Source], module: ModuleRef) -> np.ndarray:
    return sum(source.strength * changes(source.path)[module] for source in sources)


@pytest.fixture
def three(tmp_path: Path) -> list[Source]:
    """Ranks 4, 8 and 6, alphas, dtypes and dialects of their own; the kernel is in two of them only."""
    first = {LINEAR: lora(LINEAR, 4, 1), KERNEL: lora(KERNEL, 4, 2)}
    second = {LINEAR: lora(LINEAR, 8, 3, alpha=1.0, dtype="F16"), KERNEL: tucker(shape(KERNEL), 5, 4)}
    third = {LINEAR: {role: raw for role, raw in lora(LINEAR, 6, 5).items() if role is not Role.ALPHA}}
    return [
        Source(write_adapter(tmp_path / "a.safetensors", first), 0.7),
        Source(write_adapter(tmp_path / "b.safetensors", second), 0.4),
        Source(write_adapter(tmp_path / "c.safetensors", third, names=("sd1", "diffusers")), -1.3),
    ]


def test_concatenation_is_the_weighted_sum_to_float_rounding(tmp_path: Path, three: list[Source]) -> None:
    found = merge(three, tmp_path / "out.safetensors", MergeOptions())
    after = changes(tmp_path / "out.safetensors")
    assert error(after[sd1(LINEAR)[0]], summed(three, sd1(LINEAR)[0])) < 5e-7
    assert error(after[sd1(KERNEL)[0]], summed(three[:2], sd1(KERNEL)[0])) < 5e-7
    assert {row.module: (row.rank, row.files) for row in found.layers} == {LINEAR: (18, 3), KERNEL: (9, 2)}
    assert (found.method, found.exact, found.dtype) == ("concat", True, "F32")


@pytest.mark.parametrize("rank", [1, 5, 18])
def test_a_merge_to_a_rank_is_the_nearest_of_that_rank(tmp_path: Path, three: list[Source], rank: int) -> None:
    found = merge(three, tmp_path / "out.safetensors", MergeOptions(rank=rank))
    expected = summed(three, sd1(LINEAR)[0])
    left = np.linalg.norm(changes(tmp_path / "out.safetensors")[sd1(LINEAR)[0]] - expected)
    assert left <= (1 + 1e-5) * best(expected, rank) + 1e-6 * np.linalg.norm(expected)
    assert found.method == "svd"
    assert next(row for row in found.layers if row.module == LINEAR).rank == rank


def test_in_half_precision_concatenation_rounds_once(tmp_path: Path) -> None:
    pairs = [{LINEAR: lora(LINEAR, 8, seed, alpha=0.05, dtype="F16")} for seed in (1, 2)]
    sources = [Source(write_adapter(tmp_path / f"{i}.safetensors", pair), 0.3 + i) for i, pair in enumerate(pairs)]
    merge(sources, tmp_path / "out.safetensors", MergeOptions())
    module = sd1(LINEAR)[0]
    assert read_adapter(tmp_path / "out.safetensors").layers[module].tensors[Role.UP].dtype == "F16"
    assert error(changes(tmp_path / "out.safetensors")[module], summed(sources, module)) < 3e-4


FAMILIES = {
    "loha": lambda: loha(shape(LINEAR), 3, 20) | {Role.ALPHA: number(2.0)},
    "lokr rank": lambda: lokr(shape(LINEAR), 4, 30, rank=6) | {Role.ALPHA: number(3.0)},
    "lokr": lambda: lokr(shape(LINEAR), 8, 40),
    "full": lambda: {Role.DIFF: random_tensor(50, shape(LINEAR), "F32")},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_mix(tmp_path: Path, name: str) -> None:
    other = write_adapter(tmp_path / "b.safetensors", {LINEAR: FAMILIES[name]()})
    sources = [Source(write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)}), 0.7), Source(other, 0.4)]
    merge(sources, tmp_path / "out.safetensors", MergeOptions(rank=16))
    expected = summed(sources, sd1(LINEAR)[0])
    left = np.linalg.norm(changes(tmp_path / "out.safetensors")[sd1(LINEAR)[0]] - expected)
    assert left <= (1 + 3e-3 if name in {"lokr", "full"} else 1 + 1e-5) * best(expected, 16)


@pytest.mark.parametrize("name", ["loha", "lokr rank"])
def test_families_with_thin_factors_stand_side_by_side_exactly(tmp_path: Path, name: str) -> None:
    other = write_adapter(tmp_path / "b.safetensors", {LINEAR: FAMILIES[name]()})
    sources = [Source(write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)}), 0.7), Source(other, 0.4)]
    merge(sources, tmp_path / "out.safetensors", MergeOptions())
    assert error(changes(tmp_path / "out.safetensors")[sd1(LINEAR)[0]], summed(sources, sd1(LINEAR)[0])) < 1e-6


@pytest.mark.parametrize("name", ["lokr", "full"])
def test_a_change_without_thin_factors_cannot_stand_side_by_side(tmp_path: Path, name: str) -> None:
    paths = [write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1)})]
    paths.append(write_adapter(tmp_path / "b.safetensors", {LINEAR: FAMILIES[name]()}))
    with pytest.raises(NotRepresentable, match="thin factors"):
        merge([Source(path) for path in paths], tmp_path / "out.safetensors", MergeOptions())
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("strength", [0.4, -0.4, 1.0])
def test_a_module_that_one_file_has_keeps_its_form(tmp_path: Path, name: str, strength: float) -> None:
    kept = Source(write_adapter(tmp_path / "b.safetensors", {LINEAR: FAMILIES[name]()}), strength)
    other = Source(write_adapter(tmp_path / "a.safetensors", {CROSS: lora(CROSS, 8, 1)}))
    merge([other, kept], tmp_path / "out.safetensors", MergeOptions())
    module = sd1(LINEAR)[0]
    before, after = (read_adapter(p).layers[module] for p in (kept.path, tmp_path / "out.safetensors"))
    assert before.parametrization is after.parametrization
    assert error(changes(tmp_path / "out.safetensors")[module], summed([kept], module)) < 1e-6


def test_a_merge_equals_what_a_ui_makes_of_both_at_once(tmp_path: Path) -> None:
    """`<lora:a:0.7><lora:b:0.4>` adds up and @ down of both to the output of the layer."""
    paths = [write_adapter(tmp_path / f"{n}.safetensors", {LINEAR: lora(LINEAR, 8, s)}) for s, n in enumerate("ab", 1)]
    merge([Source(paths[0], 0.7), Source(paths[1], 0.4)], tmp_path / "out.safetensors", MergeOptions())
    layers = [read_adapter(path).layers[sd1(LINEAR)[0]] for path in (*paths, tmp_path / "out.safetensors")]
    x = torch.randn(3, 320, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = [x @ f.float(Role.DOWN).double().T @ f.float(Role.UP).double().T * (f.alpha / f.rank) for f in layers]
    assert error(out[2].numpy(), (0.7 * out[0] + 0.4 * out[1]).numpy()) < 1e-6


def flux(path: Path, dialect: str, seed: int, rank: int) -> Path:
    """A FLUX LoRA of two blocks: fused q·k·v in kohya's names, single modules in diffusers'."""
    if dialect == "kohya":
        modules = modules_like("flux1", "double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")
    else:
        names = (
            "transformer_blocks.0.attn.to_q",
            "transformer_blocks.0.attn.to_v",
            "single_transformer_blocks.0.proj_mlp",
        )
        modules = [m for m in modules_like("flux1", *names) if m.path in names]
    tensors = lora_tensors("flux1", dialect, modules, rank=rank, alpha=2.0 if dialect == "kohya" else None)
    return write(
        path,
        {
            key: random_tensor(seed + i, raw.shape, "F32") if raw.shape else raw
            for i, (key, raw) in enumerate(tensors.items())
        },
    )


@pytest.mark.parametrize("target", ["kohya", "diffusers", "comfyui"])
@pytest.mark.parametrize("rank", [None, 64])
def test_fused_and_split_modules_add_up_in_any_dialect(tmp_path: Path, target: str, rank: int | None) -> None:
    first, second = (
        flux(tmp_path / "a.safetensors", "kohya", 1, 2),
        flux(tmp_path / "b.safetensors", "diffusers", 90, 3),
    )
    out = tmp_path / "out.safetensors"
    options = MergeOptions(dialect=target, rank=rank, architecture="flux1")
    merge([Source(first, 0.7), Source(second, 0.4)], out, options)
    one, two = effects(first), effects(second)
    expected = {m: 0.7 * one.get(m, 0) + 0.4 * two.get(m, 0) for m in one | two}
    found = effects(out)
    assert difference(expected, found) < 3e-5
    assert read_adapter(out, architecture_id="flux1").dialect == target


def test_text_encoders_and_blocks_have_strengths_of_their_own(tmp_path: Path) -> None:
    encoder = {ENCODER: {Role.DOWN: random_tensor(1, (4, 768), "F32"), Role.UP: random_tensor(2, (768, 4), "F32")}}
    unet = {sd1(path)[0]: lora(path, 4, seed) for seed, path in enumerate((LINEAR, CROSS, KERNEL), 5)}
    path = write(tmp_path / "a.safetensors", spelt("sd1", "kohya", {**encoder, **unet}))
    blocks = parse_block_weights("down_blocks.0.attentions.0.transformer_blocks.0.attn2=0,IN02=0.5")
    merge([Source(path, 0.8, 0.25, blocks)], tmp_path / "out.safetensors", MergeOptions())
    before, after = changes(path), changes(tmp_path / "out.safetensors")
    # resnet 0 and attention 0 are both the authors' input_blocks.1
    assert after.keys() == {ENCODER, sd1(LINEAR)[0], sd1(KERNEL)[0]}
    for module, strength in ((ENCODER, 0.25), (sd1(LINEAR)[0], 0.8), (sd1(KERNEL)[0], 0.8)):
        assert error(after[module], strength * before[module]) < 1e-6
    merge(
        [Source(path, 0.8, 0.25, parse_block_weights("IN01=0.5,BASE=2"))], tmp_path / "two.safetensors", MergeOptions()
    )
    after = changes(tmp_path / "two.safetensors")
    for module, strength in ((ENCODER, 0.5), (sd1(LINEAR)[0], 0.4), (sd1(KERNEL)[0], 0.4)):
        assert error(after[module], strength * before[module]) < 1e-6


def test_biases_and_norms_add_up(tmp_path: Path) -> None:
    vectors = [random_tensor(seed, (320,), "F32") for seed in range(4)]
    first = {LINEAR: lora(LINEAR, 4, 1) | {Role.DIFF_BIAS: vectors[0]}}
    second = {LINEAR: lora(LINEAR, 4, 2) | {Role.DIFF_BIAS: vectors[1]}}
    paths = [write_adapter(tmp_path / f"{i}.safetensors", rows) for i, rows in enumerate((first, second))]
    for options in (MergeOptions(), MergeOptions(rank=4, force=True)):
        merge([Source(paths[0], 0.7), Source(paths[1], 0.4)], tmp_path / "out.safetensors", options)
        layer = read_adapter(tmp_path / "out.safetensors").layers[sd1(LINEAR)[0]]
        parts = [np.frombuffer(raw.data, "<f4") for raw in vectors[:2]]
        assert np.allclose(layer.float(Role.DIFF_BIAS).numpy(), 0.7 * parts[0] + 0.4 * parts[1], atol=1e-7)


def test_a_dora_goes_with_others_only_where_it_is_alone_and_at_full_strength(tmp_path: Path) -> None:
    magnitude = {Role.MAGNITUDE: random_tensor(9, (320, 1), "F32")}
    dora = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1) | magnitude})
    other = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 4, 2)})
    elsewhere = write_adapter(tmp_path / "c.safetensors", {CROSS: lora(CROSS, 4, 2)})
    for sources in ([Source(dora), Source(other)], [Source(dora, 0.5), Source(elsewhere)]):
        with pytest.raises(NotRepresentable, match="DoRA"):
            merge(sources, tmp_path / "out.safetensors", MergeOptions())
    merge([Source(dora), Source(elsewhere, 0.5)], tmp_path / "out.safetensors", MergeOptions())
    assert read_adapter(tmp_path / "out.safetensors").layers[sd1(LINEAR)[0]].modifiers == ("dora",)


def test_files_for_different_models_are_refused_by_name(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    flux_file = flux(tmp_path / "b.safetensors", "kohya", 1, 2)
    with pytest.raises(IncompatibleAdapters, match=r"a\.safetensors is for Stable Diffusion 1"):
        merge([Source(first), Source(flux_file)], tmp_path / "out.safetensors", MergeOptions())


def test_more_directions_than_the_weight_has_become_as_many_as_it_has(tmp_path: Path) -> None:
    paths = [write_adapter(tmp_path / f"{i}.safetensors", {LINEAR: lora(LINEAR, 200, i)}) for i in range(2)]
    merge([Source(path) for path in paths], tmp_path / "out.safetensors", MergeOptions())
    module = sd1(LINEAR)[0]
    assert read_adapter(tmp_path / "out.safetensors").layers[module].rank == 320
    assert error(changes(tmp_path / "out.safetensors")[module], summed([Source(p) for p in paths], module)) < 3e-6


def test_nearly_equal_files_lose_no_small_direction(tmp_path: Path) -> None:
    """a − b of two epochs: the difference lies 1e-4 below what they share, where Gram matrices in float32 see nothing."""
    first = lora(LINEAR, 8, 1)
    values = np.frombuffer(first[Role.UP].data, "<f4")
    noise = np.random.default_rng(1).standard_normal(len(values)).astype("f4") * np.abs(values).mean() * 1e-4
    second = {**first, Role.UP: first[Role.UP]._replace(data=(values + noise).astype("<f4").tobytes())}
    paths = [write_adapter(tmp_path / f"{n}.safetensors", {LINEAR: rows}) for n, rows in (("a", first), ("b", second))]
    sources = [Source(paths[0], 1.0), Source(paths[1], -1.0)]
    merge(sources, tmp_path / "out.safetensors", MergeOptions(rank=8))
    module = sd1(LINEAR)[0]
    assert error(changes(tmp_path / "out.safetensors")[module], summed(sources, module)) < 1e-2


def test_strength_nothing_leaves_a_file_out(tmp_path: Path, three: list[Source]) -> None:
    sources = [three[0], Source(three[1].path, 0.0)]
    merge(sources, tmp_path / "out.safetensors", MergeOptions())
    assert error(changes(tmp_path / "out.safetensors")[sd1(KERNEL)[0]], summed(three[:1], sd1(KERNEL)[0])) < 1e-6


def test_what_all_metadata_agree_on_stays_and_words_and_tags_are_joined(tmp_path: Path) -> None:
    common = {"ss_base_model_version": "sd_v1-5", "ss_network_dim": "4"}
    tables = [
        common | {"modelspec.trigger_phrase": "red fox", "ss_tag_frequency": '{"10_fox": {"fox": 3}}', "ss_seed": "1"},
        common | {"modelspec.trigger_phrase": "ink", "ss_tag_frequency": '{"5_ink": {"ink": 2}}', "ss_seed": "2"},
    ]
    paths = [
        write_adapter(tmp_path / f"{i}.safetensors", {LINEAR: lora(LINEAR, 4, i)}, table)
        for i, table in enumerate(tables)
    ]
    merge([Source(paths[0], 0.7), Source(paths[1])], tmp_path / "out.safetensors", MergeOptions())
    found = read_safetensors(tmp_path / "out.safetensors").metadata
    assert (found["ss_base_model_version"], found["ss_network_dim"], found["ss_network_alpha"]) == ("sd_v1-5", "8", "8")
    assert found["modelspec.trigger_phrase"] == "red fox, ink"
    assert json.loads(found["ss_tag_frequency"]) == {"5_ink": {"ink": 2}, "10_fox": {"fox": 3}}
    assert "ss_seed" not in found
    files = json.loads(found["hubtool.merge"])["files"]
    assert files == [{"name": "0.safetensors", "strength": 0.7}, {"name": "1.safetensors", "strength": 1.0}]


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_the_papers_rules_are_repeatable_and_keep_the_rank(tmp_path: Path, three: list[Source], method: str) -> None:
    files = []
    for workers in (1, 2):
        options = MergeOptions(method=method, rank=6, workers=workers)
        found = merge(three, tmp_path / f"{workers}.safetensors", options)
        assert found.rank is not None
        assert found.rank.max == 6
        files.append((tmp_path / f"{workers}.safetensors").read_bytes())
    assert files[0] == files[1]


def test_another_seed_drops_other_elements(tmp_path: Path, three: list[Source]) -> None:
    files = []
    for seed in (1, 2):
        merge(three, tmp_path / f"{seed}.safetensors", MergeOptions(method="dare", rank=6, seed=seed))
        files.append(changes(tmp_path / f"{seed}.safetensors")[sd1(LINEAR)[0]])
    assert error(files[0], files[1]) > 0.1


def test_ties_with_one_direction_each_follows_the_paper_by_hand() -> None:
    """Trim to half, elect signs by the sum, average what agrees."""
    one = torch.tensor([[3.0, -2.0, 0.5, 0.1]])
    two = torch.tensor([[1.0, 4.0, -0.2, -5.0]])
    # trimmed: [3, -2, 0, 0] and [0, 4, 0, -5]; elected: +, +, 0, -; means of those that agree
    assert ties([one, two], [1.0, 1.0], [1.0, 4.0]).tolist() == [[3.0, 4.0, 0.0, -5.0]]
    # at strengths 1 and 0.25 the second element is elected by −2 against 1
    assert ties([one, two], [1.0, 0.25], [1.0, 4.0]).tolist() == [[3.0, -2.0, 0.0, -1.25]]


@pytest.mark.parametrize(("density", "kept"), [(0.4, 2), (1.0, 5), (0.001, 1)])
def test_the_threshold_of_a_share_is_that_of_all_modules_together(density: float, kept: int) -> None:
    counts = Magnitudes()
    counts.add(torch.tensor([[5.0, -4.0]]))
    counts.add(torch.tensor([[-2.0], [3.0], [1.0]]))
    assert counts.threshold(density) == [5.0, 4.0, 3.0, 2.0, 1.0][kept - 1]


def test_the_threshold_of_many_values_is_theirs_to_a_step() -> None:
    values, counts = torch.randn(300, 400, generator=torch.Generator().manual_seed(1)), Magnitudes()
    counts.add(values)
    exact = float(values.abs().flatten().sort(descending=True).values[round(0.2 * values.numel()) - 1])
    assert exact * (1 - 2**-11) <= counts.threshold(0.2) <= exact


def test_ties_trims_a_files_change_as_a_whole(tmp_path: Path) -> None:
    """A module that hardly changed loses everything, one that changed much next to nothing."""
    path = write_adapter(
        tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1), POINT: lora(POINT, 4, 2, alpha=0.004)}
    )
    options = MergeOptions(method="ties", density=0.4, rank=320)
    merge([Source(path)], tmp_path / "out.safetensors", options)
    before, after = changes(path), changes(tmp_path / "out.safetensors")
    linear, point = sd1(LINEAR, POINT)
    trimmed = np.sort(np.abs(before[linear]), axis=None)[-round(0.8 * before[linear].size)]  # 0.4 of two equal weights
    assert error(after[linear], np.where(np.abs(before[linear]) >= trimmed, before[linear], 0)) < 1e-2
    assert not after[point].any()


def test_dare_keeps_the_expectation() -> None:
    change = torch.ones(200, 200)
    found = dare([change], [0.5], 0.25, "seed")
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert float(found.mean()) == pytest.approx(0.5, rel=0.05)


def test_options_that_contradict_each_other_are_refused(tmp_path: Path, three: list[Source]) -> None:
    out = tmp_path / "out.safetensors"
    for options in (
        MergeOptions(method="concat", rank=4),
        MergeOptions(energy=2.0),
        MergeOptions(density=0.5),
        MergeOptions(method="ties", density=0.0),
    ):
        with pytest.raises(UsageProblem):
            merge(three, out, options)
    out.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        merge(three, out, MergeOptions(dry_run=True))


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path, three: list[Source]) -> None:
    found = merge(three, tmp_path / "out.safetensors", MergeOptions(dry_run=True))
    assert (found.modules, found.size_bytes, found.architecture) == (2, None, "sd1")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_module_without_a_name_in_the_dialect_is_named(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", {POINT: lora(POINT, 4, 1)})
    with pytest.raises(NotRepresentable):
        merge([Source(path)], tmp_path / "out.safetensors", MergeOptions(dialect="xlabs"))
