"""`search`, `info` and `download` as other programs see them: fields, statuses, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import FILE, MODEL, NAME, VERSION, Fault, FaultyHub, lora

from hubtool.cli import root
from hubtool.cli._errors import run_guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def server() -> Iterator[FaultyHub]:
    with FaultyHub() as running:
        yield running


@pytest.fixture
def run(
    server: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command with --json against the server: (exit code, document)."""
    monkeypatch.setenv("HUBTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HUBTOOL_HUB", server.api)
    monkeypatch.setenv("HUBTOOL_TIMEOUT", "0.2")
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, dict[str, object]]:
        code = run_guarded(root, [*words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


def rows(document: dict[str, object]) -> list[dict[str, object]]:
    results = document["results"]
    assert isinstance(results, list)
    return results


def test_download_answers_the_contracts_fields(run: Command, server: FaultyHub, tmp_path: Path) -> None:
    code, document = run("download", str(MODEL), "-o", "loras")
    assert code == 0
    assert (document["schema"], document["command"]) == (1, "download")
    assert rows(document) == [
        {
            "spec": str(MODEL),
            "status": "downloaded",
            "path": os.path.join("loras", NAME),  # noqa: PTH118  # as printed
            "size_bytes": len(server.content),
            "sha256": server.sha256,
            "verified": True,
            "resumed_from": 0,
            "hub": server.api,
            "model_id": MODEL,
            "version_id": VERSION,
            "file_id": FILE,
            "error": None,
        }
    ]
    assert (tmp_path / "loras" / NAME).read_bytes() == server.content
    assert rows(run("download", str(MODEL), "-o", "loras")[1])[0]["status"] == "present"


def test_one_that_fails_does_not_stop_the_others_and_gives_exit_code_17(run: Command) -> None:
    code, document = run("download", "9999", str(MODEL), "nonsense")
    first, second, third = rows(document)
    assert code == 17
    assert (first["status"], first["error"]["code"], first["error"]["exit"]) == ("failed", "not_found", 4)  # type: ignore[index]
    assert second["status"] == "downloaded"
    assert third["error"]["exit"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=401, body=b'{"error":"Unauthorized"}'), 3),
        (Fault(status=404, body=b'{"error":"File not found"}'), 4),
        (Fault(status=500), 5),
        (Fault(status=429, headers={"Retry-After": "9999"}), 6),
        (Fault(status=403, body=b'{"error":"Early Access"}'), 11),
        (Fault(headers={"Location": "file:///x"}), 15),
    ],
)
def test_all_failed_for_one_reason_gives_its_exit_code(
    run: Command, server: FaultyHub, fault: Fault, exit_code: int
) -> None:
    server.always["download"] = fault
    code, document = run("download", str(MODEL))
    assert code == exit_code == rows(document)[0]["error"]["exit"]  # type: ignore[index]


def test_a_bare_version_id_is_ambiguous(run: Command) -> None:
    assert run("download", str(VERSION))[0] == 13


def test_offline_is_exit_code_14(run: Command, server: FaultyHub) -> None:
    assert run("--offline", "search", "x")[0] == 14
    assert run("download", str(MODEL), "--offline")[0] == 14
    assert not server.seen


def test_dry_run_writes_nothing(run: Command, server: FaultyHub, tmp_path: Path) -> None:
    code, document = run("download", str(MODEL), "-o", "new", "--dry-run")
    row = rows(document)[0]
    assert (code, row["status"], row["sha256"], row["size_bytes"]) == (0, "planned", server.sha256, len(server.content))
    assert not (tmp_path / "new").exists()
    assert not server.requests("storage")


def test_a_name_of_ones_own_gets_the_right_extension(run: Command) -> None:
    assert rows(run("download", str(MODEL), "--name", "../mine")[1])[0]["path"] == "mine.safetensors"


def test_one_name_for_several_files_is_a_usage_error(run: Command) -> None:
    assert run("download", "1", "2", "--name", "x")[0] == 2


def test_all_files_gives_a_row_a_file(run: Command, server: FaultyHub) -> None:
    other = {"id": 3002, "name": "config.pt", "sizeKB": 1}
    server.version = {"files": [server.version_json()["files"][0], other]}  # type: ignore[index]
    code, document = run("download", str(MODEL), "--all-files")
    assert code == 17
    assert [(row["file_id"], row["status"]) for row in rows(document)] == [(FILE, "downloaded"), (3002, "failed")]
    assert rows(run("download", str(MODEL), "--file", "3002")[1])[0]["error"]["code"] == "unsafe_file"  # type: ignore[index]
    assert run("download", str(MODEL), "--file", "none such")[0] == 4


def test_specs_are_read_from_stdin_and_files(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text(f"v:{VERSION}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"# mine\n{MODEL}\n"))
    code, document = run("download", "-", "@list")
    assert code == 0
    assert [row["spec"] for row in rows(document)] == [str(MODEL), f"v:{VERSION}"]


def test_search_answers_the_contracts_fields(run: Command, server: FaultyHub) -> None:
    page = {"items": [server.model_json()], "metadata": {"nextCursor": "c"}}
    server.answers["/api/v1/models"] = (200, {}, json.dumps(page).encode())
    code, document = run("search", "style", "--limit", "1", "--base", "SD 1.5")
    result = rows(document)[0]
    assert (code, document["next_cursor"]) == (0, "c")
    assert {
        "id",
        "name",
        "type",
        "creator",
        "base_models",
        "downloads",
        "nsfw_level",
        "tags",
        "url",
        "versions",
    } <= set(result)
    version = result["versions"][0]  # type: ignore[index]
    assert {"id", "name", "base_model", "published_at", "trigger_words", "files"} <= set(version)
    assert "raw" not in result
    assert "raw" not in version


def test_info_answers_one_record_with_files_and_licence(run: Command, server: FaultyHub) -> None:
    code, document = run("info", f"v:{VERSION}")
    assert (code, document["id"], document["version_id"]) == (0, MODEL, VERSION)
    assert {"license", "description", "files", "versions", "tags"} <= set(document)
    file = document["files"][0]  # type: ignore[index]
    assert (file["sha256"], file["size_bytes"], file["format"]) == (server.sha256, len(server.content), "SafeTensor")
    assert {"id", "name", "primary", "hashes", "scan"} <= set(file)


def test_people_get_a_path_on_stdout_and_talk_on_stderr(
    run: Command, capsys: pytest.CaptureFixture[str], server: FaultyHub
) -> None:
    assert run_guarded(root, ["download", str(MODEL)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{NAME}\n"
    assert "verified" in captured.err
    assert run_guarded(root, ["info", str(MODEL)]) == 0
    assert NAME in capsys.readouterr().out
    server.answers["/api/v1/models"] = (200, {}, json.dumps({"items": [server.model_json()]}).encode())
    assert run_guarded(root, ["search"]) == 0
    assert "A style" in capsys.readouterr().out


@pytest.mark.parametrize("rate", ["fast", "10", "1X", ""])
def test_a_senseless_rate_is_a_usage_error(run: Command, rate: str) -> None:
    assert run("download", "1", "--limit-rate", rate)[0] == 2


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with FaultyHub(lora(0, 2_000_000)) as server:
        server.on_storage.append(Fault(pause_s=30))
        words = [sys.executable, "-c", "from hubtool.cli import main; main()", "download", str(MODEL), "--json"]
        environment = os.environ | {"HUBTOOL_HUB": server.api, "HUBTOOL_HOME": str(tmp_path / "home")}
        first = subprocess.Popen(words, cwd=tmp_path, env=environment)
        half = len(server.content) // 2
        while sum(part.stat().st_size for part in tmp_path.glob("*.part")) < half:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        first.wait()
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)
        row = json.loads(done.stdout)["results"][0]
        assert (row["status"], row["verified"], row["resumed_from"]) == ("downloaded", True, half)
        assert (tmp_path / NAME).read_bytes() == server.content
        assert not list(tmp_path.glob(".hubtool-*"))
