"""`resize`, `merge`, `bake` and the comparisons as people run them: answers, exit codes, interruption, a full disk, memory."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from math import prod
from typing import TYPE_CHECKING

import pytest
from support.adapters import denoiser, spelt
from support.adapters import lora as lora_tensors
from support.changes import CROSS, KERNEL, LINEAR, lora, write_adapter
from support.checkpoints import full_shapes, small_model, write_ldm, write_sparse
from support.command import HUBTOOL, hubtool
from support.files import number, write

from hubtool.naming.address import Role
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from pathlib import Path

    from support.in_process import Run


@pytest.fixture
def loras(tmp_path: Path) -> tuple[Path, Path]:
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 8, 1), KERNEL: lora(KERNEL, 8, 2)})
    return first, write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 4, 3), CROSS: lora(CROSS, 4, 4)})


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_resize_answers_with_the_fields_of_the_contract(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    ran = run("resize", loras[0], "--rank", 4, "--json")
    answer = ran.document
    assert (ran.code, answer["schema"], answer["command"]) == (0, 1, "resize")
    assert answer["output"] == str(tmp_path / "a.rank4.safetensors")
    assert (answer["architecture"], answer["modules"], answer["rank"]) == ("sd1", 2, {"min": 4, "max": 4})
    assert answer["energy"] == pytest.approx(1 - answer["relative_error"] ** 2)
    assert {"module", "rank", "energy", "relative_error"} <= answer["layers"][0].keys()
    assert left(tmp_path) == {"a.safetensors", "b.safetensors", "a.rank4.safetensors"}


@pytest.mark.parametrize(
    "flag", ["--sv-ratio", "--sv_ratio", "--sv-fro", "--sv_fro", "--sv-cumulative", "--sv_cumulative"]
)
def test_the_names_that_sd_scripts_has_are_accepted(
    tmp_path: Path, loras: tuple[Path, Path], run: Run, flag: str
) -> None:
    ran = run(
        "resize", loras[0], flag, "1.5" if "ratio" in flag else "0.5", "-o", tmp_path / "out.safetensors", "--json"
    )
    assert (ran.code, ran.document["method"]) == (0, flag.strip("-").replace("-", "_"))


def test_merge_answers_and_a_second_time_refuses(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    arguments = ("merge", f"{loras[0]}:0.7", f"{loras[1]}:0.4:te=0.1", "-o", tmp_path / "out.safetensors", "--json")
    answer = run(*arguments).document
    assert (answer["command"], answer["method"], answer["exact"], answer["modules"]) == ("merge", "concat", True, 3)
    assert [row["strength"] for row in answer["inputs"]] == [0.7, 0.4]
    again = run(*arguments)
    assert (again.code, again.document["error"]["code"]) == (1, "exists")
    assert run(*arguments, "--force").code == 0


def test_people_get_a_summary(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    out = tmp_path / "out.safetensors"
    for arguments, words in (
        (("resize", loras[0], "--rank", 4, "-o", out), ("rank 4, was rank 8", "relative error")),
        (("merge", *loras, "-o", out), ("concat", "exact")),
        (("merge", *loras, "-o", out, "--rank", 4), ("svd", "rank 4", "relative error")),
        (("bake", base, f"{loras[0]}:0.5", "-o", out), ("a.safetensors:0.5 baked into base.safetensors", "2 modules")),
        (("bake", base, loras[0], "-o", out, "--reverse"), ("taken out of",)),
        (("diff", *loras), ("different", "only a", "cosine")),
        (("diff", loras[0], loras[0]), ("identical",)),
        (("conflicts", *loras), ("cosine", "IN01", "Suggested")),
        (("stats", loras[0]), ("effective rank", "IN01", "100.0%")),
    ):
        extra = ("--force",) if out in arguments else ()
        ran = run(*arguments, *extra)
        assert (ran.code, ran.err) == (0, ""), arguments
        for word in words:
            assert word in ran.out, arguments


def test_dry_runs_write_nothing(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    before = left(tmp_path)
    out = tmp_path / "new" / "out.safetensors"
    for arguments in (("resize", loras[0], "--rank", 4), ("merge", *loras), ("bake", base, loras[0])):
        assert run(*arguments, "-o", out, "--dry-run", "--json").code == 0
    assert left(tmp_path) == before


def test_wrong_arguments_exit_with_2_and_missing_files_with_4(
    tmp_path: Path, loras: tuple[Path, Path], run: Run
) -> None:
    out, missing = tmp_path / "out.safetensors", tmp_path / "missing.safetensors"
    for arguments, code in (
        (("resize", loras[0]), 2),
        (("resize", loras[0], "--rank", 0), 2),
        (("resize", loras[0], "--energy", 2), 2),
        (("resize", loras[0], "--energy", 0.5, "--sv-ratio", 2), 2),
        (("resize", loras[0], "--rank", 4, "--alpha", "zero"), 2),
        (("resize", missing, "--rank", 4), 4),
        (("resize", loras[0], "--rank", 4, "--to", "nothing"), 2),
        (("merge", "-o", out), 2),
        (("merge", *loras), 2),
        (("merge", *loras, "-o", out, "--method", "concat", "--rank", 4), 2),
        (("merge", f"{loras[0]}:nan", "-o", out), 2),
        (("merge", f"{loras[0]}:1e300", "-o", out), 2),
        (("merge", *loras, "-o", out.with_suffix(".ckpt")), 2),
        (("merge", *(f"{path}:0" for path in loras), "-o", out), 12),
        (("merge", loras[0], f"{loras[0]}:-1", "-o", out, "--rank", 4), 12),
        (("merge", *loras, "-o", out, "--block-weights", "3:MID=0"), 2),
        (("merge", *loras, "-o", out, "--block-weights", "MIDDLE=0"), 2),
        (("merge", missing, "-o", out), 4),
        (("bake", missing, loras[0], "-o", out), 4),
        (("bake", loras[0], loras[1], "-o", out), 12),
        (("diff", loras[0], missing), 4),
        (("conflicts", loras[0]), 2),
        (("stats", missing), 4),
    ):
        ran = run(*arguments)
        assert ran.code == code, (arguments, ran.err)
        assert ran.err.count("\n") <= 3
        assert not out.exists()


def test_broken_and_unsafe_files_are_refused_by_all(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    cut, pickle, out = tmp_path / "cut.safetensors", tmp_path / "evil.safetensors", tmp_path / "out.safetensors"
    cut.write_bytes(loras[0].read_bytes()[:-100])
    pickle.write_bytes(b"\x80\x04\x95")
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    for path, code in ((cut, 10), (pickle, 15)):
        for arguments in (
            ("resize", path, "--rank", 4, "-o", out),
            ("merge", loras[0], path, "-o", out),
            ("bake", base, path, "-o", out),
            ("diff", loras[0], path),
            ("conflicts", loras[0], path),
            ("stats", path),
        ):
            ran = run(*arguments, "--json")
            assert (ran.code, ran.document["error"]["exit"]) == (code, code), arguments
    assert not out.exists()


def test_factors_that_do_not_meet_exit_with_10_everywhere(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    rows = lora(LINEAR, 8, 1) | {Role.UP: number(0.1, "F32", (320, 5))}
    broken, out = write_adapter(tmp_path / "broken.safetensors", {LINEAR: rows}), tmp_path / "out.safetensors"
    for arguments in (
        ("diff", broken, loras[0]),
        ("diff", loras[0], broken),
        ("conflicts", loras[0], broken),
        ("stats", broken),
        ("merge", loras[0], broken, "-o", out),
        ("resize", broken, "--rank", 4, "-o", out),
    ):
        ran = run(*arguments, "--json")
        assert (ran.code, ran.document["error"]["code"]) == (10, "broken_adapter"), arguments


def test_people_read_of_what_is_not_known_or_nothing(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    magnitude = {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    dora = write_adapter(tmp_path / "dora.safetensors", {LINEAR: lora(LINEAR, 8, 1) | magnitude})
    zeros = write_adapter(
        tmp_path / "zeros.safetensors", {LINEAR: lora(LINEAR, 8, 1) | {Role.UP: number(0.0, "F32", (320, 8))}}
    )
    for arguments, words in (
        (("stats", dora), ("norm of the change   –", "1 modules (DoRA) depend on the base model")),
        (("conflicts", loras[0], dora), ("not known without the base model; 1 modules of both",)),
        (("conflicts", loras[0], f"{loras[1]}:0"), ("nothing to compare", "b.safetensors is switched off")),
        (("conflicts", loras[0], f"{loras[0]}:-0.5"), ("all but cancel each other",)),
        (("resize", zeros, "--rank", 4, "-o", tmp_path / "out.safetensors"), ("no module changes anything",)),
    ):
        ran = run(*arguments)
        assert (ran.code, ran.err) == (0, ""), arguments
        for word in words:
            assert word in ran.out, arguments
    assert run("stats", dora, "--json").document["norm"] is None
    assert run("conflicts", loras[0], dora, "--json").document["pairs"][0]["cosine"] is None


def test_adapters_of_different_models_exit_with_12(tmp_path: Path, loras: tuple[Path, Path], run: Run) -> None:
    modules = denoiser(
        "down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.9.ff.net.2",
    )
    other = write(tmp_path / "xl.safetensors", lora_tensors("sdxl", "kohya", modules))
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    for arguments in (
        ("merge", loras[0], other, "-o", tmp_path / "out.safetensors"),
        ("bake", base, other, "-o", tmp_path / "out.safetensors"),
        ("conflicts", loras[0], other),
    ):
        ran = run(*arguments, "--json")
        assert (ran.code, ran.document["error"]["code"]) == (12, "incompatible_adapters")
        assert "xl.safetensors is for Stable Diffusion XL" in ran.err + ran.document["error"]["message"]


def test_values_that_are_no_numbers_exit_with_10(tmp_path: Path, run: Run) -> None:
    factors = lora(LINEAR, 8, 1) | {Role.UP: number(float("nan"), "F32", (320, 8))}
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: factors})
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    for arguments in (("resize", path, "--rank", 4), ("merge", path, path), ("bake", base, path)):
        ran = run(*arguments, "-o", tmp_path / "out.safetensors", "--json")
        assert ran.code == 10, arguments
    assert left(tmp_path) == {"a.safetensors", "base.safetensors"}


def test_tensors_without_elements_and_one_module_files_are_fine(tmp_path: Path, run: Run) -> None:
    empty = {Role.DOWN: number(0.0, "F32", (0, 320)), Role.UP: number(0.0, "F32", (320, 0))}
    path = write_adapter(tmp_path / "a.safetensors", {LINEAR: empty, CROSS: lora(CROSS, 4, 1)})
    alone = write_adapter(tmp_path / "b.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    out = tmp_path / "out.safetensors"
    for arguments in (
        ("merge", path, alone, "-o", out),
        ("stats", alone),
        ("diff", alone, path),
        ("conflicts", path, alone),
    ):
        ran = run(*arguments, "--json")
        assert ran.code in {0, 10}, (arguments, ran.out)  # validation may refuse a rank of 0; nothing else may happen
        assert "should not" not in ran.out


# ---------------------------------------------------------------- a checkpoint that takes no room


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The middle of Stable Diffusion 1.x's UNet in zeros (600 MB of holes), and a LoRA of some of its largest layers."""
    folder = tmp_path_factory.mktemp("large")
    target = architecture("sd1")
    inner = {
        key: shape for key, shape in full_shapes("sd1", []).items() if ".middle_block." in key or "_blocks.3" in key
    }
    inner |= {
        key: shape for key, shape in full_shapes("sd1", []).items() if "output_blocks.4" in key or "blocks.8" in key
    }
    base = write_sparse(folder / "base.safetensors", inner)
    there = {path for path, name in target.original.items() if f"model.diffusion_model.{name}.weight" in inner}
    largest = sorted(
        (path for path in there if len(target.modules[path]) > 1), key=lambda path: -prod(target.modules[path])
    )[:12]
    tensors = {module: lora(module.path, 4, seed) for seed, module in enumerate(denoiser(*largest))}
    return base, write(folder / "a.safetensors", spelt("sd1", "kohya", tensors))


def test_ctrl_c_during_a_bake_leaves_nothing(large: tuple[Path, Path]) -> None:
    base, adapter = large
    out = base.parent / "out.safetensors"
    before = left(base.parent)
    process = subprocess.Popen([HUBTOOL, "bake", base, adapter, "-o", out], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while left(base.parent) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert left(base.parent) == before


_LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits here")
@pytest.mark.parametrize("command", ["resize", "merge", "bake"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, loras: tuple[Path, Path], command: str) -> None:
    base = write_ldm(tmp_path / "base.safetensors", small_model())
    before = left(tmp_path)
    arguments = {"resize": [loras[0], "--rank", "4"], "merge": [*loras], "bake": [base, loras[0]]}[command]
    line = [
        sys.executable,
        "-c",
        _LIMITED,
        "20000",
        HUBTOOL,
        command,
        *arguments,
        "-o",
        tmp_path / "out.safetensors",
        "--json",
    ]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (ran.returncode, json.loads(ran.stdout)["error"]["code"]) == (1, "disk_full"), ran.stderr
    assert left(tmp_path) == before


def test_memory_holds_a_tensor_and_not_the_checkpoint(large: tuple[Path, Path]) -> None:
    base, adapter = large
    out = base.parent / "out.safetensors"
    idle = hubtool("stats", adapter)
    ran = hubtool("bake", base, adapter, "-o", out, "--json")
    out.unlink()
    assert (ran.code, ran.document["tensors_changed"]) == (0, 12), ran.err
    assert base.stat().st_size > 400e6
    assert ran.peak_mb < idle.peak_mb + 300  # the largest tensor has 29 MB, 59 MB in float32
