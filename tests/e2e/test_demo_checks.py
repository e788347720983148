"""The checks of the demonstration can fail: each notices when a command did not do what it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hubtool.cli._demo import DemoReport, run_demo
from hubtool.cli._demo_steps import Output, Plan, Step, Unmet, steps
from hubtool.formats.safetensors import read_safetensors, write_safetensors
from hubtool.hubs.sample.catalogue import offers
from hubtool.hubs.sample.made import made

SAID_NOTHING = Output(0, "", "")


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Step]:
    """Step by the first word of its command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    planned = steps(has_torch=False).steps
    return {
        next(word for word in step.arguments if word not in {"--hub", "sample"}): step for step in reversed(planned)
    }


def put(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def sample(file_id: int) -> bytes:
    return next(made(offer).body for offer in offers() if offer.file.id == file_id)


@pytest.mark.parametrize("verb", ["search", "info", "list", "validate", "prompt"])
def test_an_answer_that_says_nothing_is_noticed(plan: dict[str, Step], verb: str) -> None:
    with pytest.raises(Unmet):
        plan[verb].check(SAID_NOTHING)


def test_a_download_with_one_wrong_byte_is_noticed(plan: dict[str, Step], tmp_path: Path) -> None:
    path, body = tmp_path / "downloads" / "glass-orchard-v1.safetensors", sample(3008)
    put(path, body)
    assert "SHA-256" in plan["download"].check(SAID_NOTHING)
    put(path, body[:-1] + b"\0")
    with pytest.raises(Unmet):
        plan["download"].check(SAID_NOTHING)


def test_a_missing_sidecar_is_noticed(plan: dict[str, Step], tmp_path: Path) -> None:
    path = tmp_path / "models" / "Lora" / "paper-lantern-glow.safetensors"
    put(path, sample(3005))
    for extension in (".json", ".civitai.info"):
        put(path.with_suffix(extension), b"{}")
    with pytest.raises(Unmet, match="preview"):
        plan["install"].check(SAID_NOTHING)
    put(path.with_suffix(".preview.png"), b"")
    assert plan["install"].check(SAID_NOTHING)


def test_another_architecture_or_dialect_is_noticed(plan: dict[str, Step], tmp_path: Path) -> None:
    put(tmp_path / "models" / "Lora" / "paper-lantern-glow.safetensors", sample(3008))
    put(tmp_path / "paper-lantern-glow.diffusers.safetensors", sample(3005))
    for verb in ("inspect", "convert"):
        with pytest.raises(Unmet):
            plan[verb].check(SAID_NOTHING)


def test_one_changed_bit_after_the_way_back_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    back = next(step for step in steps(has_torch=False).steps if "kohya" in step.arguments)
    source = tmp_path / "models" / "Lora" / "paper-lantern-glow.safetensors"
    returned = tmp_path / "paper-lantern-glow.diffusers.kohya.safetensors"
    put(source, sample(3005))
    with returned.open("wb") as out:
        write_safetensors(out, read_safetensors(source).tensors, {})
    assert "byte-equal: 840 tensors" in back.check(SAID_NOTHING)
    body = bytearray(returned.read_bytes())
    body[-1] ^= 1
    returned.write_bytes(body)
    with pytest.raises(Unmet):
        back.check(SAID_NOTHING)


def demonstrate(*planned: Step) -> DemoReport:
    return run_demo(Plan(planned, ()), None, lambda _: None)


def refuse(_: Output) -> str:
    raise Unmet("It is not so.")


GOOD = Step("look", ("config", "path"), lambda _: "fine")


def test_a_command_that_fails_ends_the_demonstration() -> None:
    report = demonstrate(GOOD, Step("look", ("inspect", "nothing.safetensors"), lambda _: "fine"), GOOD)
    assert (report.ok, [step.ok for step in report.steps]) == (False, [True, False])
    assert report.steps[1].checked == "It ended with exit code 4."
    assert report.steps[1].output[0] == "There is no file nothing.safetensors."


def test_a_check_that_fails_ends_the_demonstration() -> None:
    report = demonstrate(GOOD, Step("look", ("config", "path"), refuse), GOOD)
    assert (report.ok, [step.ok for step in report.steps]) == (False, [True, False])
    assert report.steps[1].checked == "It is not so."


def test_a_demonstration_puts_back_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUBTOOL_HUB", "mine")
    before = dict(os.environ)
    demonstrate(GOOD)
    assert (Path.cwd(), dict(os.environ)) == (tmp_path, before)
