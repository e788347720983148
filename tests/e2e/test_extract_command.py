"""`hubtool extract` as people run it: answers, exit codes, interruption, a full disk, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.checkpoints import (
    CROSS,
    KERNEL,
    full_shapes,
    small_model,
    tuned,
    unet,
    write_ldm,
    write_sparse,
)
from support.command import HUBTOOL, hubtool

from hubtool.adapters.codec import read_adapter
from hubtool.cli import root
from hubtool.cli._errors import run_guarded
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Base and tuned checkpoint of a few modules."""
    base = small_model()
    changed = {**tuned(base), unet(CROSS)[0]: base[unet(CROSS)[0]]}
    return write_ldm(tmp_path / "base.safetensors", base), write_ldm(tmp_path / "tuned.safetensors", changed)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_answer_has_the_fields_of_the_contract(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base, changed = pair
    out, report = tmp_path / "out.safetensors", tmp_path / "figures.json"
    ran = hubtool("extract", changed, "--base", base, "-o", out, "--rank", 12, "--report", report, "--json")
    assert ran.code == 0, ran.err
    answer = ran.document
    assert (answer["schema"], answer["command"]) == (1, "extract")
    assert (answer["output"], answer["architecture"], answer["modules"]) == (str(out), "sd1", 5)
    assert answer["rank"] == {"min": 12, "max": 12}
    assert answer["skipped_unchanged"] == 1
    assert answer["energy"] == pytest.approx(1 - answer["relative_error"] ** 2)
    assert 0 < answer["seconds"] < 60
    assert answer["peak_memory_bytes"] > 10_000_000
    assert {"module", "rank", "energy", "relative_error"} <= answer["layers"][0].keys()
    assert len(answer["layers"]) == len(read_adapter(out).layers) == 5
    assert json.loads(report.read_text()) == answer


def test_people_get_a_summary_and_programs_nothing_on_stderr(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base, changed = pair
    ran = hubtool("extract", changed, "--base", base)
    assert ran.code == 0
    assert str(tmp_path / "tuned.lora.safetensors") in ran.out
    assert "rank 32" in ran.out
    assert "1 modules were unchanged" in ran.out
    assert ran.err == ""


def test_a_dry_run_writes_nothing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base, changed = pair
    before = left(tmp_path)
    ran = hubtool("extract", changed, "--base", base, "-o", tmp_path / "out.safetensors", "--dry-run", "--json")
    assert (ran.code, ran.document["modules"]) == (0, 6)
    assert left(tmp_path) == before


def test_each_failure_has_its_code_and_leaves_nothing(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, changed = pair
    broken = {**small_model(), unet(KERNEL)[0]: torch.full((320, 320, 3, 3), float("nan")).half()}
    other = write_sparse(tmp_path / "sdxl.safetensors", full_shapes("sdxl", []))
    pickle = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": os.path.join}}, pickle)  # a function, not a tensor
    nan = write_ldm(tmp_path / "nan.safetensors", broken)
    before = left(tmp_path)
    cases = [
        (12, "incompatible_checkpoints", [other, "--base", base]),
        (12, "incompatible_checkpoints", [base, "--base", base]),
        (10, "non_finite", [nan, "--base", base]),
        (4, "file_not_found", [tmp_path / "none.safetensors", "--base", base]),
        (15, "unsafe_file", [pickle, "--base", base]),
        (2, "usage", [changed, "--base", base, "--energy", "2"]),
        (2, "unknown_dialect", [changed, "--base", base, "--to", "klingon"]),
        (1, "exists", [changed, "--base", base, "--report", base]),
    ]
    for code, name, arguments in cases:  # in this process: each of its own would import torch again
        given = ["extract", *arguments, "-o", tmp_path / "out.safetensors", "--json"]
        assert run_guarded(root, [str(argument) for argument in given]) == code
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == name
        assert error["hint"]
        assert left(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="no file-size limits")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base, changed = pair
    before = left(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    limited = [sys.executable, "-c", f"import resource, os, sys; {limit}; os.execv(sys.argv[1], sys.argv[1:])"]
    command = [HUBTOOL, "extract", changed, "--base", base, "-o", tmp_path / "out.safetensors"]
    ran = subprocess.run([*limited, *map(str, command)], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "out.safetensors" in ran.stderr.splitlines()[0]
    assert "Traceback" not in ran.stderr
    assert left(tmp_path) == before


def whole_pair(folder: Path) -> tuple[Path, Path]:
    """Two checkpoints of Stable Diffusion 1.x's full size, zeros but for the largest layers of the tuned one."""
    shapes = full_shapes("sd1", [(Component.CLIP_L, "cond_stage_model.transformer.")])
    base, changed = (write_sparse(folder / f"{name}.safetensors", shapes) for name in ("base", "tuned"))
    tensors = read_safetensors(changed).tensors
    with changed.open("r+b") as file:
        for key in sorted(tensors, key=lambda key: -tensors[key].nbytes)[:8]:
            file.seek(tensors[key].data.start)
            file.write(torch.randn(50_000).half().numpy().tobytes())
    return base, changed


def test_memory_stays_flat_whatever_the_checkpoints_weigh(tmp_path: Path) -> None:
    base, changed = whole_pair(tmp_path)
    assert base.stat().st_size + changed.stat().st_size > 3_700_000_000
    ran = hubtool("extract", changed, "--base", base, "-o", tmp_path / "out.safetensors", "--jobs", 2, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["modules"] == 8
    assert ran.peak_mb < 1200
    assert ran.document["peak_memory_bytes"] < 1200 << 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc to find the moment")
def test_an_interruption_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    block = "mid_block.attentions.0.transformer_blocks.0.attn1."
    base = {
        module: torch.randn(1280, 1280).half() for module in unet(*(block + name for name in ("to_q", "to_k", "to_v")))
    }
    paths = [
        write_ldm(tmp_path / f"{i}.safetensors", weights) for i, weights in enumerate((base, tuned(base, noise=0.1)))
    ]
    before = left(tmp_path)
    arguments = ["extract", paths[1], "--base", paths[0], "-o", tmp_path / "out.safetensors", "--method", "exact"]
    process = subprocess.Popen([HUBTOOL, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline and not _has_open(process.pid, paths[0]):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert left(tmp_path) == before


def _has_open(pid: int, path: Path) -> bool:
    """Whether the process reads this file, which it does once torch is loaded."""
    try:
        return any(entry.resolve() == path for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
