"""`hubtool inspect` and `hubtool validate` as people run them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.adapters import lora, modules_like
from support.command import HUBTOOL, hubtool
from support.files import write, write_sparse
from support.keylists import key_list

K = modules_like("sd1", "attn2.to_k")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = lora("sd1", "kohya", K, alpha=2)
    return write(tmp_path_factory.mktemp("source") / "style.safetensors", tensors, {"ss_output_name": "My style"})


def test_inspect_shows_a_dozen_lines_for_people(source: Path) -> None:
    ran = hubtool("inspect", source)
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) <= 14
    for word in ("sd1", "kohya", "lora", "My style", "4 / 2"):
        assert word in ran.out


def test_the_answer_has_no_colour_where_it_is_not_wanted(source: Path) -> None:
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {}):
        for command in ("inspect", "validate", "list"):
            assert "\x1b" not in hubtool(command, *([source] if command != "list" else []), **environment).out


def test_errors_are_a_sentence_and_a_hint_and_a_traceback_only_with_debug(tmp_path: Path) -> None:
    ran = hubtool("inspect", tmp_path / "gone.safetensors")
    assert (ran.code, ran.out, len(ran.err.strip().splitlines())) == (4, "", 2)
    assert "Traceback" in hubtool("--debug", "inspect", tmp_path / "gone.safetensors").err


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_a_reader_that_goes_away_is_no_error(source: Path, command: str) -> None:
    arguments = [HUBTOOL, command, "--json", *[source] * 300]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.read(10)
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(30) in {0, 141}


def test_quiet_says_nothing_but_the_answer(source: Path, tmp_path: Path) -> None:
    loud, quiet = hubtool("validate", source), hubtool("-q", "validate", source)
    assert (quiet.out, quiet.err) == (loud.out, "")


@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_128_and_its_number_without_a_traceback(tmp_path: Path, signal_number: int, code: int) -> None:
    big = write_sparse(
        tmp_path / "big.safetensors", {f"x{i}.lora_up.weight": ("F32", (1 << 14, 1 << 14)) for i in range(40)}
    )
    with subprocess.Popen([HUBTOOL, "inspect", "--hashes", big], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        time.sleep(1.5)
        run.send_signal(signal_number)
        try:
            _, err = run.communicate(timeout=30)
        finally:
            run.kill()  # or a command that hangs would hang the tests
    assert run.returncode == code
    assert b"Traceback" not in err


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["validate"]])
def test_a_gigabyte_is_looked_at_quickly_and_in_little_memory(tmp_path: Path, command: list[str]) -> None:
    shapes = {key: ("F32", shape) for key, shape in key_list("gen_sdscripts_sdxl_lora").shapes.items()}
    shapes["extra"] = ("F32", (1 << 14, 1 << 14))
    ran = hubtool(*command, write_sparse(tmp_path / "big.safetensors", shapes))
    assert ran.code == 0
    assert ran.peak_mb < 100
    assert ran.seconds < 2


def test_looking_at_every_value_of_a_big_file_takes_little_memory(tmp_path: Path) -> None:
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{base}.lora_down.weight": ("F16", (200_000, 768)), f"{base}.lora_up.weight": ("F16", (320, 200_000))}
    ran = hubtool("validate", "--values", "--json", write_sparse(tmp_path / "big.safetensors", shapes))
    assert "W_ALL_ZERO" in {found["code"] for found in ran.document["results"][0]["problems"]}
    assert ran.peak_mb < 100


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_looking_at_a_file_needs_neither_torch_nor_the_network(source: Path, command: str) -> None:
    code = (
        f"import sys; from hubtool.cli import main\n"
        f"try: main([{command!r}, {str(source)!r}])\n"
        f"finally: assert not {{'torch', 'numpy', 'httpx', 'pydantic'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_is_an_error_of_ours(source: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([HUBTOOL, "inspect", source], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_a_closed_stdout_is_no_traceback(source: Path) -> None:
    script = f"exec {HUBTOOL} inspect '{source}' >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, check=False, env=os.environ)
    assert b"Traceback" not in done.stderr
