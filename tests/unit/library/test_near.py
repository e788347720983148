"""Files that do the same are found whatever their rank, dtype and dialect; files that do not are not."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.files import number, random_tensor, write
from unit.library.small_lora import MODULES

from hubtool.operations.likeness import NUMBERS, candidates, likeness, sketch


def write_lora(path, seed):
    tensors = {}
    for place, (module, (rows, columns)) in enumerate(MODULES.items()):
        tensors[f"{module}.alpha"] = number(2)
        tensors[f"{module}.lora_down.weight"] = random_tensor(1000 * seed + 2 * place, (2, columns))
        tensors[f"{module}.lora_up.weight"] = random_tensor(1000 * seed + 2 * place + 1, (rows, 2))
    return write(path, tensors)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "models" / "Lora"
    for seed in range(6):
        write_lora(path / f"other {seed}.safetensors", 100 + seed)
    write_lora(path / "ink.safetensors", 1)
    return path


def near(run, *options):
    document = run("dupes", "--near", "--json", *options).document
    return [(group["kind"], {path.rpartition("/")[2] for path in group["paths"]}) for group in document["groups"]]


def test_another_rank_dtype_and_dialect_are_the_same_and_other_files_are_not(run, folder):
    ink = folder / "ink.safetensors"
    for arguments in (
        ["merge", f"{ink}:0.5", f"{ink}:0.5", "--method", "concat", "-o", folder / "twice the rank.safetensors"],
        ["convert", ink, "--to", "diffusers", "-o", folder / "dialect.safetensors"],
        ["convert", ink, "--to", "kohya", "--dtype", "bf16", "-o", folder / "rounded.safetensors"],
    ):
        assert run(*arguments).code == 0
    names = {"ink.safetensors", "twice the rank.safetensors", "dialect.safetensors", "rounded.safetensors"}
    assert near(run) == [("near", names)]
    assert near(run) == [("near", names)]  # from the sketches that were remembered


def test_equal_files_are_no_near_ones_and_the_opposite_is_not_the_same(run, folder):
    ink = folder / "ink.safetensors"
    (folder / "copy.safetensors").write_bytes(ink.read_bytes())
    assert run("merge", f"{ink}:-1", "-o", folder / "opposite.safetensors").code == 0
    assert run("merge", f"{ink}:0.5", "-o", folder / "weaker.safetensors").code == 0
    assert near(run) == [("bytes", {"ink.safetensors", "copy.safetensors"})]


def test_a_changed_file_is_sketched_again(run, folder):
    assert near(run) == []
    (folder / "other 1.safetensors").write_bytes((folder / "other 0.safetensors").read_bytes())
    assert run("convert", folder / "other 0.safetensors", "--to", "peft", "-o", folder / "new.safetensors").code == 0
    kinds = {kind for kind, _ in near(run)}
    assert kinds == {"bytes", "near"}


def test_sketches_of_unrelated_files_do_not_agree(folder):
    files = sorted(folder.glob("*.safetensors"))
    sketches = [sketch(path, "sd1") for path in files]
    assert candidates(sketches) == []
    assert candidates([*sketches, sketches[0]]) == [(0, len(files))]
    assert likeness(files[0], files[0], "sd1").cosine == pytest.approx(1)


def test_of_hundreds_of_unrelated_sketches_no_two_agree():
    numbers = np.random.default_rng(1).standard_normal((400, 4, NUMBERS))
    rows = [{f"denoiser:{module}": list(row[module]) for module in range(4)} for row in numbers]
    assert candidates(rows) == []
    assert candidates([*rows, rows[7]]) == [(7, 400)]


def test_a_damaged_file_is_in_no_group(run, folder):
    broken = folder / "cut.safetensors"
    broken.write_bytes((folder / "ink.safetensors").read_bytes()[:-2])
    assert near(run) == []


def test_without_torch_it_says_so(folder, tmp_path):
    code = """
import sys
sys.modules["torch"] = None
from hubtool.cli import main
sys.argv = ["hubtool", "dupes", "--near", "--json"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["error"]["code"] == "missing_extra"
    assert "torch" in done.stdout


@pytest.mark.parametrize(("cosine", "expected"), [(0.8, []), (0.97, [(0, 1)])])
def test_only_pairs_that_are_alike_in_the_mean_are_compared_in_full(cosine, expected):
    generator = torch.Generator().manual_seed(0)
    first, second = {}, {}
    for module in "abcdef":
        one, other = torch.linalg.qr(torch.randn(48, 2, generator=generator)).Q.T
        first[module] = one.tolist()
        second[module] = (cosine * one + (1 - cosine**2) ** 0.5 * other).tolist()
    assert candidates([first, second]) == expected
