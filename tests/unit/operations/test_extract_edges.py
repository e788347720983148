"""What an extraction says and does where the change is not where a LoRA can carry it, or nothing would be left of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import INPUT, ldm_keys, small_model, tuned, unet, write_file, write_ldm
from support.in_process import Run  # noqa: TC002  # pytest reads the annotation

from hubtool.adapters.codec import read_adapter
from hubtool.errors import (
    AdapterProblem,
    CheckpointProblem,
    IncompatibleCheckpoints,
    NonFinite,
    NotRepresentable,
    UsageProblem,
)
from hubtool.operations.extract import ExtractOptions, extract

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.operations.extract import Extraction

PREFIX = "model.diffusion_model.input_blocks"
BIAS, NORM = f"{PREFIX}.1.0.in_layers.2.bias", f"{PREFIX}.1.1.norm.weight"
CONV_IN = f"{PREFIX}.0.0.weight"


@pytest.fixture
def keys() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Base and tuned by key, with a bias and a norm that are the same in both."""
    base = small_model()
    vectors = {BIAS: torch.zeros(320).half(), NORM: torch.ones(320).half()}
    return ldm_keys(base) | vectors, ldm_keys(tuned(base)) | vectors


def run(folder: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]], **options: object) -> Extraction:
    paths = [
        write_file(folder / f"{name}.safetensors", table) for name, table in zip(("base", "tuned"), keys, strict=True)
    ]
    return extract(paths[1], paths[0], folder / "out.safetensors", ExtractOptions(**options))  # type: ignore[arg-type]  # named by each test


@pytest.mark.parametrize("length", [0x10280, 0x10580])
def test_a_header_length_that_begins_like_a_pickle_is_none(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]], length: int
) -> None:
    base = write_file(tmp_path / "base.safetensors", keys[0])
    plain = write_file(tmp_path / "plain.safetensors", keys[1]).read_bytes()
    size = int.from_bytes(plain[:8], "little")
    changed = tmp_path / "tuned.safetensors"
    changed.write_bytes(length.to_bytes(8, "little") + plain[8 : 8 + size].ljust(length) + plain[8 + size :])
    assert extract(changed, base, tmp_path / "out.safetensors", ExtractOptions(rank=4)).modules == 6


@pytest.mark.parametrize("most", [26_000, 60_000, 150_000])
def test_a_size_counts_everything_in_the_file_and_is_used(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]], most: int
) -> None:
    keys[1][BIAS], keys[1][NORM] = keys[1][BIAS] + 1, keys[1][NORM] + 1
    found = run(tmp_path, keys, max_size=most, biases=True, norms=True, hash_inputs=True)
    assert found.size_bytes is not None
    smallest = 2 * (320 + 320)  # bytes of one more direction of the smallest module
    assert most - smallest - 1024 < found.size_bytes <= most


def test_safetensors_are_not_written_under_torchs_names(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    paths = [write_file(tmp_path / f"{i}.safetensors", table) for i, table in enumerate(keys)]
    with pytest.raises(UsageProblem, match=r"\.ckpt"):
        extract(paths[1], paths[0], tmp_path / "out.ckpt", ExtractOptions(rank=4))


def test_integers_are_no_weights(tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> None:
    key = f"{PREFIX}.1.0.in_layers.2.weight"
    keys[1][key] = (keys[1][key].float() * 1000).to(torch.int8)
    with pytest.raises(CheckpointProblem, match="as I8"):
        run(tmp_path, keys)


def test_scaled_float8_outer_layers_are_compared_too(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    for table in keys:
        table[CONV_IN] = table[CONV_IN].to(torch.float8_e4m3fn)
    for table, scale in zip(keys, (1.0, 1.5), strict=True):
        table[CONV_IN.replace("weight", "scale_weight")] = torch.tensor(scale)
    keys[1][CONV_IN] = keys[0][CONV_IN]
    found = run(tmp_path, keys, rank=4)
    assert any("1 tensor changed that a LoRA does not carry" in note and INPUT in note for note in found.notes)
    values = keys[0][CONV_IN].float()
    changes = [keys[1][key].double() - keys[0][key].double() for key in keys[0] if keys[0][key].dtype is torch.float16]
    outer, inner = float((0.5 * values).square().sum()), sum(float(change.square().sum()) for change in changes)
    assert found.left_out == pytest.approx(outer / (outer + inner), rel=1e-3)


def test_nan_where_no_lora_reaches_is_told(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    keys[1][CONV_IN] = torch.full_like(keys[1][CONV_IN], float("nan"))
    keys[1][BIAS] = keys[1][BIAS] + 1
    found = run(tmp_path, keys, rank=4)
    assert any("2 tensors changed" in note and f"most of all {INPUT}" in note for note in found.notes)
    assert any(f"NaN or infinity in {INPUT}" in note for note in found.notes)


def test_nan_in_a_vector_that_is_extracted_names_model_and_vector(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    keys[1][BIAS] = torch.full_like(keys[1][BIAS], float("nan"))
    with pytest.raises(NonFinite, match=r"The tuned model holds NaN or infinity in .*conv1\.bias"):
        run(tmp_path, keys, biases=True)


def test_a_vector_that_the_dtype_cannot_hold_is_named(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    keys[1][NORM] = torch.full((320,), 1e5)
    with pytest.raises(AdapterProblem, match=r"change of .*norm is too large to be stored as F16"):
        run(tmp_path, keys, norms=True)


def test_a_change_of_vectors_alone_is_told_and_its_share_is_right(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    same = {**keys[0], BIAS: keys[0][BIAS] + 1, NORM: keys[0][NORM] + 2}
    with pytest.raises(IncompatibleCheckpoints) as caught:
        run(tmp_path, (keys[0], same))
    assert "2 tensors beside them changed" in (caught.value.hint or "")
    assert "--biases --norms" in (caught.value.hint or "")
    found = run(tmp_path, (keys[0], same), biases=True)
    assert found.left_out == pytest.approx(0.8)  # 320 · 2² of 320 · (2² + 1²)
    assert any("1 tensor changed" in note for note in found.notes)


def test_a_rule_that_keeps_nothing_writes_nothing(
    tmp_path: Path, keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(UsageProblem, match="keeps nothing of the 6 modules that changed"):
        run(tmp_path, keys, threshold=1000.0)
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(UsageProblem, match="--ratio 1"):
        run(tmp_path, keys, ratio=1.0)


def test_modules_that_a_rule_leaves_out_are_counted(tmp_path: Path) -> None:
    base = small_model()
    changed = tuned(base)
    quiet = unet("conv_in")[0]
    strong = {module: weight for module, weight in changed.items() if module != quiet}
    weak = next(iter(strong))
    changed[weak] = (base[weak].float() + 0.01 * (changed[weak].float() - base[weak].float())).float()
    paths = [write_ldm(tmp_path / f"{name}.safetensors", w) for name, w in (("base", base), ("tuned", changed))]
    found = extract(paths[1], paths[0], tmp_path / "out.safetensors", ExtractOptions(threshold=0.3))
    assert weak not in read_adapter(tmp_path / "out.safetensors").layers
    assert any("1 module that changed is not in the LoRA" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"conv": "tucker"}, "`--conv tucker`"),
        ({"parametrization": "full"}, "`--parametrization full`"),
        ({"biases": True}, "`--biases`"),
    ],
)
def test_what_a_dialect_has_no_place_for_is_refused_before_the_work(
    tmp_path: Path,
    keys: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]],
    options: dict[str, object],
    option: str,
) -> None:
    with pytest.raises(NotRepresentable, match=option):
        run(tmp_path, keys, dialect="diffusers", dry_run=True, **options)


@pytest.mark.parametrize("side", ["--report", "--plot"])
def test_a_report_or_plot_never_replaces_an_input_or_the_lora(tmp_path: Path, run: Run, side: str) -> None:
    base = small_model()
    names = ("base.svg", "tuned.svg")
    paths = [write_ldm(tmp_path / name, w) for name, w in zip(names, (base, tuned(base)), strict=True)]
    before = [path.read_bytes() for path in paths]
    out = tmp_path / "out.svg"
    for taken in (*paths, out):
        ran = run("extract", paths[1], "--base", paths[0], "-o", out, side, taken, "--force", "--json")
        assert (ran.code, ran.document["error"]["code"]) == (2, "usage")
    assert [path.read_bytes() for path in paths] == before
    assert not out.exists()
