"""`hubtool demo` as people run it: it walks the whole job, checks it, and leaves nothing of anybody's changed."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import site
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Demo = Callable[..., subprocess.CompletedProcess[str]]

PROJECT = Path(__file__).parents[2]
RUN = "from hubtool.cli import main; main()"
COMMANDS = ["search", "info", "download", "install", "list", "inspect", "validate", "convert", "convert", "prompt"]
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="extraction needs torch")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user with settings of his own, all of which would lead the demonstration astray."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUBTOOL", "CIVITAI"))}
    (tmp_path / "tmp").mkdir()
    return kept | {
        "HUBTOOL_HOME": str(tmp_path / "home"),
        "HUBTOOL_OFFLINE": "1",
        "HUBTOOL_HUB": "http://127.0.0.1:1",
        "HUBTOOL_LIBRARY": str(tmp_path / "library"),
        "HUBTOOL_TOKEN": "a-secret-of-the-user",
        "TMPDIR": str(tmp_path / "tmp"),
        "COLUMNS": "40",
    }


@pytest.fixture
def demo(tmp_path: Path, environment: dict[str, str]) -> Demo:
    def demo(*arguments: str, python: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *python, "-c", RUN, "demo", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return demo


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """What makes a Python started with -S find everything that is installed here but torch and numpy."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in site.getsitepackages():
        for entry in Path(folder).iterdir():
            if not entry.name.startswith(("torch", "numpy", "functorch")) and entry.suffix != ".pth":
                (packages / entry.name).symlink_to(entry)
    return {"PYTHONPATH": os.pathsep.join([str(PROJECT), str(packages)])}


def verbs(document: dict[str, Any]) -> list[str]:
    """The command of each step, global options aside."""
    words = [shlex.split(step["command"]) for step in document["steps"]]
    return [next(word for word in line[1:] if not word.startswith("-") and word != "sample") for line in words]


@needs_torch
def test_every_step_succeeds_and_nothing_is_left_behind(demo: Demo, tmp_path: Path) -> None:
    run = demo("--json")
    document = json.loads(run.stdout)
    assert (run.returncode, run.stderr) == (0, "")
    assert (document["ok"], document["left_out"], document["folder"]) == (True, [], None)
    assert verbs(document) == [*COMMANDS[:-1], "extract", COMMANDS[-1]]
    assert all(step["ok"] and step["seconds"] >= 0 and step["checked"] for step in document["steps"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "a-secret-of-the-user" not in run.stdout


def test_without_torch_it_leaves_out_what_needs_it_and_says_so(demo: Demo, without_torch: dict[str, str]) -> None:
    run = demo("--json", python=("-S",), **without_torch)
    document = json.loads(run.stdout)
    assert (run.returncode, document["ok"], verbs(document)) == (0, True, COMMANDS)
    assert len(document["left_out"]) == 2


def test_people_see_each_command_and_what_was_checked(demo: Demo, without_torch: dict[str, str]) -> None:
    run = demo(python=("-S",), **without_torch)
    assert run.returncode == 0
    assert run.stdout.count("\n$ hubtool ") == run.stdout.count("\n  ok (") == len(COMMANDS)
    assert "byte-equal: 840 tensors" in run.stdout
    assert "\nLeft out, because torch is not installed: " in run.stdout


def test_a_kept_folder_holds_what_was_made_and_the_commands_work_there(
    demo: Demo, tmp_path: Path, environment: dict[str, str], without_torch: dict[str, str]
) -> None:
    folder = tmp_path / "kept"
    document = json.loads(demo("--json", "--keep", "kept", python=("-S",), **without_torch).stdout)
    assert document["folder"] == str(folder)
    assert (folder / "models" / "Lora" / "paper-lantern-glow.safetensors").is_file()
    shown = next(step for step in document["steps"] if "prompt" in step["command"])
    there = {key: value for key, value in environment.items() if not key.startswith("HUBTOOL_")}
    again = subprocess.run(
        [sys.executable, "-c", RUN, *shlex.split(shown["command"])[1:]],
        cwd=folder,
        env=there | {"HUBTOOL_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout.splitlines() == shown["output"]


def test_a_folder_that_holds_something_is_refused_and_left_alone(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", "utf-8")
    run = demo("--keep", "mine", "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["error"]["code"] == "exists"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
