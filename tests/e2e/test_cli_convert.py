"""`hubtool convert` as people run it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.adapters import lora, modules_like
from support.command import HUBTOOL, hubtool
from support.files import random_tensor, write, write_sparse
from support.lazy import contents

K = modules_like("sd1", "attn2.to_k")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "style.safetensors", lora("sd1", "kohya", K, alpha=3))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_an_output_the_result_lies_beside_the_input(source: Path) -> None:
    ran = hubtool("convert", source, "--to", "comfyui")
    assert (ran.code, ran.out.splitlines()[0]) == (0, str(source.with_name("style.comfyui.safetensors")))
    assert names(source.parent) == ["style.comfyui.safetensors", "style.safetensors"]


@pytest.mark.parametrize("folder", ["out", "out/", "new/", "new/deeper/"])
def test_several_inputs_go_into_a_folder(tmp_path: Path, source: Path, folder: str) -> None:
    (tmp_path / "out").mkdir()
    other = write(tmp_path / "b.safetensors", lora("sd1", "kohya", K[:2]))
    ran = hubtool("convert", source, other, "--to", "comfyui", "-o", f"{tmp_path}/{folder}")
    assert ran.code == 0
    assert names(tmp_path / folder) == ["b.comfyui.safetensors", "style.comfyui.safetensors"]


def test_several_inputs_into_one_file_are_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").touch()
    ran = hubtool("convert", source, source, "--to", "diffusers", "-o", tmp_path / "out")
    assert ran.code == 2
    assert (tmp_path / "out").stat().st_size == 0


def test_there_and_back_gives_the_same_tensors(tmp_path: Path, source: Path) -> None:
    hubtool("convert", source, "--to", "diffusers", "-o", tmp_path / "a.safetensors")
    hubtool("convert", tmp_path / "a.safetensors", "--to", "kohya", "-o", tmp_path / "b.safetensors")
    assert contents(tmp_path / "b.safetensors") == contents(source)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_an_output_that_exists_is_refused_and_kept(tmp_path: Path, source: Path, options: list[str]) -> None:
    (tmp_path / "out.safetensors").write_text("precious")
    ran = hubtool("--json", "convert", source, "--to", "comfyui", "-o", tmp_path / "out.safetensors", *options)
    error = ran.document["results"][0]["error"]
    assert (ran.code, error["code"], error["exit"]) == (1, "exists", 1)
    assert "--force" in error["hint"]
    assert (tmp_path / "out.safetensors").read_text() == "precious"


def test_force_replaces_even_the_input_itself(source: Path) -> None:
    before = contents(source)
    assert hubtool("convert", source, "--to", "comfyui", "-o", source, "--force").code == 0
    assert set(contents(source).values()) == set(before.values())
    assert names(source.parent) == ["style.safetensors"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(tmp_path: Path, source: Path) -> None:
    ran = hubtool(
        "convert", source, "--to", "diffusers", "-o", tmp_path / "new" / "out.safetensors", "--dry-run", "--json"
    )
    assert (ran.code, ran.document["results"][0]["alpha"]) == (0, "recorded")
    assert names(tmp_path) == ["style.safetensors"]


def test_what_cannot_be_said_is_exit_12_and_leaves_nothing(tmp_path: Path) -> None:
    base = "lora_unet_down_blocks_0_resnets_0_norm1"
    path = write(tmp_path / "norm.safetensors", {f"{base}.w_norm": random_tensor(1, (320,))})
    ran = hubtool("--json", "convert", path, "--to", "diffusers", "-o", tmp_path / "new" / "out.safetensors")
    assert (ran.code, ran.document["results"][0]["error"]["code"]) == (12, "not_convertible")
    assert names(tmp_path) == ["norm.safetensors"]


def test_what_could_be_two_models_with_different_names_is_exit_13(tmp_path: Path) -> None:
    refs = modules_like("sdxl", "mid_block.attentions.0.proj_in")
    path = write(tmp_path / "x.safetensors", lora("sdxl", "diffusers", refs))
    ran = hubtool("--json", "convert", path, "--to", "kohya")
    error = ran.document["results"][0]["error"]
    assert (ran.code, error["code"]) == (13, "ambiguous")
    assert "--architecture" in error["hint"]
    assert hubtool("convert", path, "--to", "kohya", "--architecture", "sdxl").code == 0


def test_a_broken_adapter_is_exit_10_and_leaves_nothing(tmp_path: Path, source: Path) -> None:
    tensors = contents(source)
    broken = write(tmp_path / "broken.safetensors", {key: raw for key, raw in tensors.items() if "down" not in key})
    ran = hubtool("convert", broken, source, "--to", "comfyui", "-o", tmp_path / "out/", "--json")
    assert (ran.code, ran.document["results"][0]["error"]["exit"]) == (17, 10)
    assert names(tmp_path / "out") == ["style.comfyui.safetensors"]
    assert hubtool("convert", broken, "--to", "comfyui").code == 10


def test_strict_refuses_what_was_not_understood(tmp_path: Path, source: Path) -> None:
    path = write(tmp_path / "odd.safetensors", {**contents(source), "bundle_emb.x.clip_l": random_tensor(1, (2, 768))})
    assert hubtool("convert", path, "--to", "comfyui", "--strict").code == 12
    assert "1 tensors were not understood" in hubtool("convert", path, "--to", "comfyui").out


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    source = write_sparse(tmp_path / "in.safetensors", _big(20_000_000))
    limited = (
        "import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        f"os.execv({str(HUBTOOL)!r}, sys.argv)"
    )
    arguments = ["hubtool", "convert", str(source), "--to", "comfyui", "-o", str(tmp_path / "out.safetensors")]
    done = subprocess.run([sys.executable, "-c", limited, *arguments[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2
    assert names(tmp_path) == ["in.safetensors"]


def _big(size: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    rank = size // 2 // (320 + 768)
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {f"{base}.lora_down.weight": ("F16", (rank, 768)), f"{base}.lora_up.weight": ("F16", (320, rank))}


def test_ctrl_c_is_exit_130_and_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", lora("sdxl", "kohya", modules_like("sdxl", "to_q", "to_k"), alpha=3))
    arguments = [HUBTOOL, "convert", source, "--to", "diffusers", "--dtype", "fp32", "-o", tmp_path / "out.safetensors"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as run:
        while run.poll() is None and len(names(tmp_path)) == 1:
            time.sleep(0.005)  # until something is being written
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=30)
    if run.returncode == 0:
        pytest.skip("it was quicker than the signal")
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert names(tmp_path) == ["in.safetensors"]


def test_a_big_file_is_renamed_in_little_memory(tmp_path: Path) -> None:
    source = write_sparse(tmp_path / "in.safetensors", _big(300 << 20))  # too big for its values to be looked at
    ran = hubtool("convert", source, "--to", "comfyui", "-o", tmp_path / "out.safetensors")
    assert ran.code == 0
    assert ran.peak_mb < 100


def test_a_rename_needs_no_torch(tmp_path: Path, source: Path) -> None:
    for target in ("comfyui", "diffusers"):  # whose scale is recorded
        code = (
            f"import sys; from hubtool.cli import main\n"
            f"try: main(['convert', {str(source)!r}, '--to', {target!r}])\n"
            f"finally: assert 'torch' not in sys.modules"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
