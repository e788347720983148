"""Every bad file gets its verdict: quickly, without a traceback, a trace on the terminal or a trace on disk."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from bad_adapters import bad_adapters
from bad_files import BAD, Case, bad_containers, marker
from support.in_process import Run

CASES = [*bad_containers(), *bad_adapters()]
EXITS = {"ok": 0, "warning": 0, "broken": 10, "refused": 15}


@pytest.fixture(params=CASES, ids=[case.name.replace("/", " ") for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def path(case: Case, tmp_path: Path) -> Path:
    made = tmp_path / f"file{case.extension}"
    case.make(made)
    return made


def state(path: Path) -> tuple[object, ...]:
    """What must not change: contents and time of a file, nature of anything else."""
    status = os.lstat(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
    return status.st_mode, status.st_mtime_ns, status.st_size, content


def tame(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


def test_the_verdict_is_right_and_nothing_else_happens(run: Run, case: Case, path: Path) -> None:
    before = state(path)
    started = time.process_time()
    ran = run("validate", "--json", path)
    assert time.process_time() - started < 2
    (row,) = ran.document["results"]
    assert row["verdict"] in case.verdicts, row["problems"]
    assert ran.code == EXITS[row["verdict"]]
    assert bool(row["problems"]) == (row["verdict"] != "ok") or all(p["severity"] == "note" for p in row["problems"])
    assert tame(ran.out + ran.err)
    shown = run("validate", path)
    assert (shown.code, tame(shown.out + shown.err)) == (ran.code, True)
    assert state(path) == before
    assert not Path(marker(path)).exists()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_looking_at_it_is_safe(run: Run, case: Case, path: Path) -> None:
    started = time.process_time()
    for options in (["--json"], []):
        ran = run("inspect", *options, path)
        assert ran.code in {0, 4, 10, 15, 1}
        assert "should not" not in ran.err + ran.out
        assert tame(ran.out + ran.err)
    assert time.process_time() - started < 4
    assert not Path(marker(path)).exists()


def test_nothing_is_made_from_what_is_broken(run: Run, case: Case, path: Path, tmp_path: Path) -> None:
    for target in ("comfyui", "diffusers", "normalize"):
        words = ("normalize",) if target == "normalize" else ("convert", "--to", target)
        ran = run(*words, "--json", path, "-o", tmp_path / target / "out.safetensors")
        error = ran.document["results"][0]["error"]
        assert "should not" not in ran.out
        assert tame(ran.out + ran.err)
        if case.verdicts <= BAD:
            assert error is not None
        if error is not None:
            assert ran.code == error["exit"] != 0
            assert not (tmp_path / target).exists()
    assert not Path(marker(path)).exists()
