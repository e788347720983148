"""`hubtool normalize` as people and scripts use it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.adapters import lora, modules_like
from support.files import write

if TYPE_CHECKING:
    from pathlib import Path

    from support.in_process import Run

K = modules_like("sd1", "attn2.to_k")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "style.safetensors", lora("sd1", "kohya", K))


def test_the_document_says_what_was_mended_and_what_was_not(run: Run, source: Path) -> None:
    (row,) = run("normalize", "--json", source).document["results"]
    assert row["error"] is None
    assert (row["input"], row["output"]) == (str(source), str(source.with_name("style.normal.safetensors")))
    assert {tuple(fix) for fix in row["fixes"]} == {("code", "key", "message")}
    assert row["problems_left"] == []
    assert len(row["sha256"]) == 64


def test_several_files_keep_their_names_in_a_folder(run: Run, source: Path) -> None:
    other = write(source.with_name("other.safetensors"), lora("sd1", "kohya", K[:2]))
    assert run("normalize", source, other, "-o", source.parent / "new").code == 0
    assert sorted(path.name for path in (source.parent / "new").iterdir()) == [other.name, source.name]


def test_in_place_is_said_and_exclusive(run: Run, source: Path) -> None:
    before = source.read_bytes()
    ended = run("normalize", "--in-place", source, "-o", source.parent / "new")
    assert (ended.code, source.read_bytes()) == (2, before)
    assert run("normalize", "--in-place", source).code == 0
    assert source.read_bytes() != before
    assert "nothing to mend" in run("normalize", "--in-place", source).out
    assert [path.name for path in source.parent.iterdir()] == [source.name]


def test_what_exists_is_refused_also_by_a_dry_run(run: Run, source: Path) -> None:
    for options in ([], ["--dry-run"]):
        ended = run("normalize", "--json", source, "-o", source, *options)
        assert (ended.code, ended.document["results"][0]["error"]["code"]) == (1, "exists")


def test_a_broken_file_is_refused_and_a_missing_one_named(run: Run, source: Path) -> None:
    halves = {key: raw for key, raw in lora("sd1", "kohya", K).items() if "down" in key}
    broken = write(source.with_name("broken.safetensors"), halves)
    assert run("normalize", broken).code == 10
    assert run("normalize", source.with_name("gone.safetensors")).code == 4
    assert sorted(path.name for path in source.parent.iterdir()) == ["broken.safetensors", source.name]


def test_keys_and_alphas_need_no_torch(source: Path) -> None:
    code = (
        "import sys; from hubtool.cli import main\n"
        f"try: main(['normalize', {str(source)!r}])\n"
        "finally: assert not {'torch', 'numpy', 'httpx', 'pydantic'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
