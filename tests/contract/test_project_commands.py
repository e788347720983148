"""Manifest and lock from folder to empty machine, over the sample hub's real sockets: the same bytes, or the right exit code."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from unit.library.small_lora import write_lora

from hubtool.cli import root
from hubtool.cli._errors import run_guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, dict[str, Any]]]

SECRET = "5e4c1f0a9b"  # looks like a token, and must be found nowhere


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on one of several machines (a folder each) against the sample hub: (exit code, document)."""
    monkeypatch.delenv("HUBTOOL_TOKEN", raising=False)

    def run(machine: str, *arguments: object, hub: str = "sample") -> tuple[int, dict[str, Any]]:
        (tmp_path / machine / "project").mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("HUBTOOL_HOME", str(tmp_path / machine / "home"))
        monkeypatch.chdir(tmp_path / machine / "project")
        code = run_guarded(root, ["--hub", hub, *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def adopted(run: Run, tmp_path: Path) -> dict[str, str]:
    """A machine whose folder was adopted: path below the LoRA folder → SHA-256."""
    folder = tmp_path / "first" / "loras"
    assert run("first", "install", "1001", "1002", "--to", folder, "--no-preview")[0] == 0
    assert run("first", "install", "1005", "--to", folder, "--name", "moss", "--no-preview")[0] == 0
    code, document = run("first", "adopt", folder)
    assert code == 0
    assert len(document["loras"]) == 3
    return digests(folder)


def digests(folder: Path) -> dict[str, str]:
    paths = folder.rglob("*.safetensors")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def carry(tmp_path: Path, machine: str) -> Path:
    """Bring manifest and lock to another machine; its project."""
    project = tmp_path / machine / "project"
    project.mkdir(parents=True, exist_ok=True)
    for name in ("loras.toml", "loras.lock"):
        shutil.copy(tmp_path / "first" / "project" / name, project / name)
    return project


def test_an_adopted_folder_comes_out_the_same_on_an_empty_machine(
    run: Run, adopted: dict[str, str], tmp_path: Path
) -> None:
    project = carry(tmp_path, "second")
    code, document = run("second", "sync", "--frozen")
    assert code == 0
    assert {row["status"] for row in document["results"]} == {"installed"}
    assert digests(project / "models" / "Lora") == adopted
    text = (project / "loras.lock").read_text() + (project / "loras.toml").read_text()
    assert str(tmp_path) not in text
    assert run("second", "sync", "--frozen")[1]["results"][0]["status"] == "present"


def test_a_file_that_was_changed_is_reported_and_left_alone(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    project = carry(tmp_path, "second")
    run("second", "sync", "--frozen")
    path = project / "models" / "Lora" / "moss.safetensors"
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.unlink()
    path.write_bytes(changed)
    code, document = run("second", "sync", "--frozen")
    errors = {row["name"]: row["error"] for row in document["results"]}
    assert (code, errors["moss"]["exit"], errors["moss"]["code"]) == (17, 10, "hash_mismatch")
    assert path.read_bytes() == changed


def test_an_entry_without_a_hash_is_out_of_date(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    lock = carry(tmp_path, "second") / "loras.lock"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join(line for line in lines if not line.startswith("sha256")))
    code, document = run("second", "sync", "--frozen")
    assert (code, document["error"]["code"]) == (16, "lock_out_of_date")
    assert not (tmp_path / "second" / "project" / "models").exists()


def test_a_manifest_with_more_than_the_lock_is_out_of_date(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    manifest = carry(tmp_path, "second") / "loras.toml"
    manifest.write_text(manifest.read_text() + 'more = "1003"\n')
    assert run("second", "sync", "--frozen")[0] == 16
    assert run("second", "sync")[0] == 0
    assert 'name = "more"' in (manifest.with_name("loras.lock")).read_text()


def test_a_hub_that_is_not_there_is_a_network_failure(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    carry(tmp_path, "second")
    code, document = run("second", "sync", "--frozen", hub="http://127.0.0.1:9")
    assert code == 5
    assert {row["status"] for row in document["results"]} == {"failed"}


def test_a_file_that_no_source_has_is_not_found(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    lock = carry(tmp_path, "second") / "loras.lock"
    text = lock.read_text()
    for digest in adopted.values():
        text = text.replace(digest, "0" * 64)
    rows = text.split("[[lora]]")
    kept = [line for line in rows[1].splitlines() if not line.startswith(("spec", "hub", "file_id"))]
    lock.write_text(rows[0] + "[[lora]]" + "\n".join(kept))
    name = next(line for line in kept if line.startswith("name")).partition("= ")[2]
    wish = next(line for line in kept if line.startswith("wish")).partition("= ")[2]
    lock.with_name("loras.toml").write_text(f"[loras]\n{name} = {wish}\n")
    assert run("second", "sync", "--frozen")[0] == 4


def test_a_source_whose_bytes_changed_is_refused_and_nothing_stays(
    run: Run, adopted: dict[str, str], tmp_path: Path
) -> None:
    lock = carry(tmp_path, "second") / "loras.lock"
    text = lock.read_text()
    for digest in adopted.values():
        text = text.replace(f'sha256 = "{digest}"', f'sha256 = "{digest[::-1]}"')
    lock.write_text(text)
    code, document = run("second", "sync", "--frozen")
    assert code == 10
    assert {row["error"]["code"] for row in document["results"]} == {"hash_mismatch"}
    left = [path for path in (tmp_path / "second" / "project").rglob("*") if path.is_file()]
    assert {path.name for path in left} == {"loras.toml", "loras.lock"}


def test_what_one_machine_has_elsewhere_is_copied_without_a_hub(
    run: Run, adopted: dict[str, str], tmp_path: Path
) -> None:
    run("second", "install", *(tmp_path / "first" / "loras" / name for name in adopted), "--to", tmp_path / "store")
    project = carry(tmp_path, "second")
    code, document = run("second", "sync", "--frozen", "--offline")
    assert code == 0
    assert {row["status"] for row in document["results"]} == {"copied"}
    assert digests(project / "models" / "Lora") == adopted


def test_no_secret_of_an_address_is_written_anywhere(run: Run, tmp_path: Path) -> None:
    address = f"https://someone:{SECRET}@civitai.com/api/download/models/2004?type=Model&token={SECRET}"
    assert run("first", "add", address, "--name", "lantern", "--weight", "0.5")[0] == 0
    manifest = tmp_path / "first" / "project" / "loras.toml"
    assert "https://civitai.com/api/download/models/2004?type=Model" in manifest.read_text()
    assert run("first", "sync", "--frozen")[0] == 0
    manifest.write_text(manifest.read_text().replace("type=Model", f"token={SECRET}"))  # typed by hand
    assert run("first", "lock")[0] == 0
    manifest.unlink()
    for path in (tmp_path / "first").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_credits_name_the_licence(run: Run) -> None:
    run("first", "add", "1005")
    code, document = run("first", "export", "--format", "credits")
    assert code == 0
    assert "commercial use: " in document["text"]


def test_nothing_is_pruned_where_no_project_is(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "first" / "loras"
    for arguments in (["sync", "--prune"], ["sync", "--frozen", "--prune"], ["sync"], ["lock"], ["export"]):
        code, document = run("second", *arguments, "--to", folder)
        assert (code, document["error"]["code"]) == (4, "file_not_found"), arguments
        assert "hubtool adopt" in document["error"]["hint"]
    assert run("second", "remove", "moss")[1]["results"][0]["error"]["exit"] == 4
    assert digests(folder) == adopted


def test_a_lock_without_its_manifest_is_kept(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    project = carry(tmp_path, "second")
    (project / "loras.toml").unlink()
    before = (project / "loras.lock").read_bytes()
    for command in ("lock", "sync"):
        code, document = run("second", command)
        assert (code, document["error"]["code"]) == (16, "lock_out_of_date")
    assert (project / "loras.lock").read_bytes() == before
    assert run("second", "sync", "--frozen")[0] == 0
    assert digests(project / "models" / "Lora") == adopted


def test_removing_what_is_not_there_is_not_found(run: Run, adopted: dict[str, str]) -> None:
    code, document = run("first", "remove", "nope")
    assert (code, document["results"][0]["error"]["code"]) == (4, "not_installed")


def test_a_trial_writes_nothing(run: Run, tmp_path: Path) -> None:
    run("first", "add", "1002")
    project = tmp_path / "first" / "project"
    (project / "loras.toml").write_text((project / "loras.toml").read_text() + 'more = "1003"\n')
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    for arguments in (["add", "1001"], ["remove", "more"], ["lock"], ["lock", "--upgrade"], ["adopt", "models/Lora"]):
        assert run("first", *arguments, "--dry-run")[0] == 0, arguments
    code, document = run("first", "sync", "--dry-run")
    assert (code, [row["status"] for row in document["results"]]) == (0, ["present", "planned"])
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_a_trial_says_what_would_be_locked(run: Run) -> None:
    _, trial = run("first", "add", "1001", "--dry-run")
    _, done = run("first", "add", "1001")
    shown = ("name", "path", "sha256", "wish")
    assert [trial["results"][0][key] for key in shown] == [done["results"][0][key] for key in shown]


def test_broken_files_and_subfolders_of_a_folder_that_is_adopted(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "first" / "by hand"
    write_lora(folder / "below" / "good.safetensors", 1)
    (folder / "bad.safetensors").write_bytes(b"\x08")
    code, document = run("first", "adopt", folder)
    assert (code, [row["path"] for row in document["loras"]]) == (0, ["below/good.safetensors"])
    assert [row["error"]["exit"] for row in document["left_out"]] == [10]
    (folder / "below" / "good.safetensors").unlink()
    code, document = run("second", "adopt", folder)
    assert (code, document["loras"]) == (10, [])
    assert not list((tmp_path / "second" / "project").glob("loras.*"))


def test_a_folder_that_is_not_there_cannot_be_adopted(run: Run, tmp_path: Path) -> None:
    assert run("first", "adopt", tmp_path / "nowhere")[0] == 4


def test_no_address_of_this_machine_is_locked(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    assert run("first", "add", "1003")[0] == 0
    (tmp_path / "first" / "project" / "loras.lock").unlink()
    assert run("first", "lock")[0] == 0
    text = (tmp_path / "first" / "project" / "loras.lock").read_text()
    assert 'spec = "v:' in text
    assert "127.0.0.1" not in text


def test_a_lock_with_a_path_that_is_hidden_writes_nothing(run: Run, adopted: dict[str, str], tmp_path: Path) -> None:
    project = carry(tmp_path, "second")
    lock = project / "loras.lock"
    lock.write_text(lock.read_text().replace('path = "moss.safetensors"', 'path = ".git/hooks/moss.safetensors"'))
    code, document = run("second", "sync", "--frozen")
    assert (code, document["error"]["code"]) == (16, "lock_out_of_date")
    assert {path.name for path in project.rglob("*")} == {"loras.toml", "loras.lock"}


def test_two_names_of_one_path_are_no_lock(run: Run, tmp_path: Path) -> None:
    run("first", "add", "1001", "--name", "ink")
    project = tmp_path / "first" / "project"
    before = (project / "loras.lock").read_bytes()
    (project / "loras.toml").write_text('[loras]\nink = "1001"\nINK = "1001"\n')
    for trial in ((), ("--dry-run",)):
        assert run("first", "lock", *trial)[1]["error"]["code"] == "lock_out_of_date"
    assert (project / "loras.lock").read_bytes() == before
