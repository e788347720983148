"""`identify` and `update` against the sample hub over loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hubtool.cli import root
from hubtool.cli._errors import run_guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with --json against the sample hub: (exit code, result rows)."""
    monkeypatch.setenv("HUBTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        code = run_guarded(root, ["--hub", "sample", *arguments, "--json"])
        document = json.loads(capsys.readouterr().out)
        return code, document.get("results", [document])

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.safetensors")}


def test_files_are_recognised_whatever_their_name_and_their_lineage_has_evidence(run: Command, tmp_path: Path) -> None:
    run("download", "1001", "-o", str(tmp_path / "d"))
    (found,) = (tmp_path / "d").glob("*.safetensors")
    found.rename(found.with_name("mystery.safetensors"))
    (tmp_path / "d" / "mine.safetensors").write_bytes(
        (tmp_path / "d" / "mystery.safetensors").read_bytes()[:-1] + b"\1"
    )
    code, rows = run("identify", "d")
    by_name = {row["path"].rpartition("/")[2]: row for row in rows}
    assert code == 0
    assert (by_name["mystery.safetensors"]["model_id"], by_name["mystery.safetensors"]["version_id"]) == (1001, 2002)
    assert by_name["mystery.safetensors"]["hash_kind"] == "sha256"
    assert {"claim": "SD 1.5", "evidence": "sample: base model of the version"} in by_name["mystery.safetensors"][
        "lineage"
    ]
    assert (by_name["mine.safetensors"]["status"], by_name["mine.safetensors"]["model_id"]) == ("unknown", None)


def test_another_header_is_recognised_by_its_tensors_and_saved(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "Lora"
    run("download", "1001", "-o", str(folder))
    (path,) = folder.glob("*.safetensors")
    body = path.read_bytes()
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    header["__metadata__"] = {**header.get("__metadata__", {}), "note": "edited"}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body[8 + length :])
    _, (row,) = run("identify", path.stem, "--save", "--dry-run")
    assert (row["version_id"], run("list")[1][0]["base_model"]) == (2002, "sd_v1")
    _, (row,) = run("identify", path.stem, "--save")
    assert (row["version_id"], row["hash_kind"]) == (2002, "autov3")
    _, (listed,) = run("list")
    assert listed["base_model"] == "SD 1.5"


def test_a_newer_version_of_the_same_base_is_found_fetched_and_the_old_one_put_away(
    run: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "Lora"
    run("install", "v:2001")
    old = files(folder)
    code, (row,) = run("update", "--check")
    assert (code, row["reason"], row["installed"], row["available"]) == (0, "newer", "2001", "2002")
    assert row["size_bytes"] > 0
    assert files(folder) == old
    run("update", "--replace")
    assert files(folder) == {"pixel-meadow-v2.safetensors"}
    _, (row,) = run("update", "--check")
    assert (row["reason"], row["available"]) == ("current", None)
    run("restore")
    assert files(folder) == old | {"pixel-meadow-v2.safetensors"}


@pytest.mark.parametrize(("tag", "reason"), [("pin", "pinned"), ("ignore:2002", "current")])
def test_what_the_user_put_aside_is_not_offered(run: Command, tag: str, reason: str) -> None:
    run("install", "v:2001", "--name", "meadow")
    run("mark", "meadow", "--tag", tag)
    _, (row,) = run("update", "--check")
    assert row["reason"] == reason
