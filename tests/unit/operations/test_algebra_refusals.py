"""What `merge`, `bake` and `resize` do not write: sums of nothing, values out of range, a wrong name, a wrong place."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from support.changes import CROSS, LINEAR, lora, sd1, write_adapter
from support.checkpoints import small_model, write_diffusers, write_ldm
from support.files import random_tensor

from hubtool.adapters.codec import read_adapter
from hubtool.errors import AdapterProblem, CheckpointProblem, DiskFull, NonFinite, UsageProblem
from hubtool.naming.address import Role
from hubtool.operations.bake import BakeOptions, bake
from hubtool.operations.bake_files import write_checkpoint
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.model_blocks import parse_block_weights
from hubtool.operations.resize import ResizeOptions, resize
from hubtool.operations.sources import Source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), CROSS: lora(CROSS, 8, 2)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_diffusers(tmp_path / "model", small_model())


METHODS = {
    "concat": MergeOptions(),
    "svd": MergeOptions(rank=4),
    "energy": MergeOptions(energy=0.9),
    "ties": MergeOptions(method="ties"),
}


@pytest.mark.parametrize("name", METHODS)
def test_files_that_cancel_leave_nothing_to_write(tmp_path: Path, adapter: Path, name: str) -> None:
    with pytest.raises(AdapterProblem, match="cancel"):
        merge([Source(adapter, 0.7), Source(adapter, -0.7)], tmp_path / "out.safetensors", METHODS[name])
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", ["concat", "svd"])
def test_modules_that_cancel_are_left_out_and_counted(tmp_path: Path, adapter: Path, name: str) -> None:
    other = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 1)})
    found = merge([Source(adapter), Source(other, -1.0)], tmp_path / "out.safetensors", METHODS[name])
    assert read_adapter(found.output).layers.keys() == set(sd1(CROSS))
    assert (found.modules, [row.module for row in found.layers]) == (1, [CROSS])
    assert found.notes == ("The files' changes cancel in 1 modules, which are left out.",)


def test_the_rounding_of_a_sum_is_no_change(tmp_path: Path, adapter: Path) -> None:
    """1 − 0.3 − 0.7 is not 0 in binary numbers."""
    parts = [Source(adapter), Source(adapter, -0.3), Source(adapter, -0.7)]
    with pytest.raises(AdapterProblem, match="cancel"):
        merge(parts, tmp_path / "out.safetensors", MergeOptions(rank=4))


@pytest.mark.parametrize("dry_run", [True, False])
def test_strengths_of_0_leave_nothing_to_merge_or_bake(tmp_path: Path, adapter: Path, dry_run: bool) -> None:
    base, out = write_ldm(tmp_path / "base.safetensors", small_model()), tmp_path / "out.safetensors"
    blocked = Source(adapter, blocks=parse_block_weights("IN01=0"))
    for sources in ([Source(adapter, 0.0)] * 2, [blocked]):
        with pytest.raises(AdapterProblem, match="nothing to merge"):
            merge(sources, out, MergeOptions(dry_run=dry_run))
        with pytest.raises(AdapterProblem, match="nothing to bake"):
            bake(base, sources, out, BakeOptions(dry_run=dry_run))
    assert not out.exists()


def test_a_file_at_strength_0_is_mentioned(tmp_path: Path, adapter: Path) -> None:
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    other = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 8, 3)})
    sources, note = [Source(adapter), Source(other, 0.0)], "b.safetensors is switched off: its strength is 0."
    assert note in merge(sources, tmp_path / "1.safetensors", MergeOptions()).notes
    assert note in bake(base, sources, tmp_path / "2.safetensors", BakeOptions()).notes


@pytest.mark.parametrize("options", [MergeOptions(dtype="F16"), MergeOptions(dtype="F16", rank=4)])
def test_a_value_too_large_for_the_dtype_is_told_with_its_module(tmp_path: Path, options: MergeOptions) -> None:
    rows = [lora(LINEAR, 8, seed) | {Role.UP: random_tensor(seed, (320, 8), "F32", 1e12)} for seed in (1, 2)]
    paths = [write_adapter(tmp_path / f"{i}.safetensors", {LINEAR: row}) for i, row in enumerate(rows)]
    with pytest.raises(NonFinite, match=r"A value of .* in \S*attn1.to_q does not fit F16"):
        merge([Source(path) for path in paths], tmp_path / "out.safetensors", options)


def test_a_copy_that_does_not_fit_the_dtype_is_told_with_its_module(tmp_path: Path) -> None:
    large = lora(LINEAR, 8, 1) | {Role.UP: random_tensor(1, (320, 8), "F32", 1e12)}
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: large})
    with pytest.raises(NonFinite, match=r"in \S*attn1_to_q does not fit F16"):
        merge([Source(path)], tmp_path / "out.safetensors", MergeOptions(dtype="F16"))


def test_an_alpha_too_large_is_told_with_its_module(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1, alpha=1e37)})
    with pytest.raises(NonFinite, match=r"alpha of 1e\+41 for \S*attn1_to_q"):
        merge([Source(path, 1e4)], tmp_path / "out.safetensors", MergeOptions())


@pytest.mark.parametrize("name", ["out.ckpt", "out.PT", "out.pth", "out.bin"])
def test_nothing_is_written_under_a_torch_files_name(tmp_path: Path, adapter: Path, name: str) -> None:
    base, out = write_ldm(tmp_path / "base.safetensors", small_model()), tmp_path / name
    for command in (
        lambda: merge([Source(adapter)], out, MergeOptions()),
        lambda: resize(adapter, out, ResizeOptions(rank=4)),
        lambda: bake(base, [Source(adapter)], out, BakeOptions()),
    ):
        with pytest.raises(UsageProblem, match="under a torch file's name") as caught:
            command()
        assert caught.value.hint == "Call it out.safetensors."
    assert not out.exists()


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_is_never_replaced_and_no_hint_says_so(
    tmp_path: Path, adapter: Path, folder: Path, force: bool
) -> None:
    (tmp_path / "there").mkdir()
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    for checkpoint in (folder, base):
        with pytest.raises(UsageProblem) as caught:
            bake(checkpoint, [Source(adapter)], tmp_path / "there", BakeOptions(force=force))
        assert "--force" not in caught.value.hint
    assert not any((tmp_path / "there").iterdir())


def test_a_folder_is_not_baked_into_itself(tmp_path: Path, adapter: Path, folder: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    before = sorted(folder.rglob("*"))
    for output in (folder / "new", folder / "unet" / "new", tmp_path / "link" / "new"):
        with pytest.raises(UsageProblem, match="is inside of"):
            bake(folder, [Source(adapter)], output, BakeOptions())
    assert sorted(folder.rglob("*")) == before


def test_a_lora_is_no_checkpoint_and_the_hint_says_what_comes_first(tmp_path: Path, adapter: Path) -> None:
    with pytest.raises(CheckpointProblem, match="a LoRA, not a checkpoint") as caught:
        bake(adapter, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    assert "first" in caught.value.hint


def test_a_full_disk_is_told_of_the_folder_that_was_asked_for(tmp_path: Path, folder: Path) -> None:
    from hubtool.formats.safetensors import read_safetensors
    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.bake_files import Written

    def full() -> memoryview:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = read_safetensors(next((folder / "unet").glob("*.safetensors")))
    tensors = {key: LazyTensor(t.dtype, t.shape, full) for key, t in source.tensors.items()}
    with pytest.raises(DiskFull) as caught:
        write_checkpoint(folder, [Written(source, tensors, {})], tmp_path / "out", force=False)
    assert str(caught.value).startswith(f"{tmp_path / 'out'}: ")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
