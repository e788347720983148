"""Symbolic links go on leading to their files, whichever of the two is moved."""

import os
import signal
import subprocess
import sys

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import LibraryProblem
from hubtool.library.scan import fresh_index
from hubtool.library.tidying import Tidier
from hubtool.settings import Directories, Settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need privileges there")

LINKS = {
    "one_link.safetensors": "real/one.safetensors",
    "deep/rel.safetensors": "../../../outside/x.safetensors",
    "absolute.safetensors": "{folder}/real/one.safetensors",
}


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A LoRA folder with two files and the links to them."""
    folder = tmp_path / "models" / "Lora"
    write_lora(folder / "real" / "one.safetensors", 1)
    write_lora(tmp_path / "outside" / "x.safetensors", 2)
    for name, text in LINKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(text.format(folder=folder))
    return folder


@pytest.fixture
def mover(settings, folder):
    with fresh_index(settings, print) as index:
        yield Tidier(index, settings)


def contents(folder):
    """Every name with the bytes that it leads to."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.suffix == ".safetensors"}


def texts(folder):
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) for path in folder.rglob("*") if path.is_symlink()
    }


def test_sorted_links_lead_to_their_files_and_undo_gives_them_back(mover, folder):
    before, said = contents(folder), texts(folder)
    mover.organize("{architecture}/{type}")
    assert contents(folder) == before
    assert texts(folder) == {
        "sd1/lora/one_link.safetensors": "one.safetensors",
        "sd1/lora/rel.safetensors": "../../../../outside/x.safetensors",
        "sd1/lora/absolute.safetensors": f"{folder}/sd1/lora/one.safetensors",
    }
    mover.undo()
    assert (contents(folder), texts(folder)) == (before, said)


def test_links_to_a_renamed_file_are_corrected_where_they_are(mover, folder):
    mover.rename(str(folder / "real" / "one.safetensors"), "uno")
    assert texts(folder)["one_link.safetensors"] == "real/uno.safetensors"
    mover.rename(str(folder / "one_link.safetensors"), "two")
    assert texts(folder)["two.safetensors"] == "real/uno.safetensors"


def test_a_relative_link_comes_back_from_the_trash_as_it_was(mover, folder):
    before = contents(folder)
    mover.trash(["rel"])
    assert contents(folder) == before
    mover.restore([])
    assert texts(folder)["deep/rel.safetensors"] == LINKS["deep/rel.safetensors"]


def test_a_link_that_leads_nowhere_is_restored_and_undone_as_it_is(mover, folder, tmp_path):
    mover.trash(["rel"])
    (tmp_path / "outside" / "x.safetensors").unlink()
    (row,) = mover.restore(["rel"])
    assert row.target.is_symlink()


def test_a_file_with_links_goes_into_the_trash_with_them_or_not_at_all(mover, folder):
    before, said = contents(folder), texts(folder)
    with pytest.raises(LibraryProblem, match="would lead nowhere"):
        mover.trash(["one"])
    assert contents(folder) == before
    mover.trash(["one", "one_link", "absolute"])
    assert contents(folder) == before
    mover.restore(["one"])
    assert contents(folder) == before
    mover.restore([])
    assert (contents(folder), texts(folder)) == (before, said)


def test_a_link_to_a_link_outside_the_library_finds_the_moved_file(settings, folder, tmp_path):
    (tmp_path / "between").symlink_to(folder / "real" / "one.safetensors")
    (folder / "far.safetensors").symlink_to("../../between")
    before = contents(folder)
    with fresh_index(settings, print) as index:
        Tidier(index, settings).organize("{architecture}")
    assert contents(folder) == before


def test_a_picture_that_is_a_link_is_still_seen(mover, folder, tmp_path):
    (tmp_path / "outside" / "x.png").write_bytes(b"picture")
    (folder / "real" / "one.preview.png").symlink_to("../../../outside/x.png")
    mover.trash(["one", "one_link", "absolute"])
    assert next(folder.rglob("one.preview.png")).read_bytes() == b"picture"
    mover.restore([])
    assert texts(folder)["real/one.preview.png"] == "../../../outside/x.png"


KILLED = """
import os, signal, sys
from pathlib import Path
from hubtool.library.scan import fresh_index
from hubtool.library.tidying import Tidier
from hubtool.settings import Directories, Settings
root, limit = Path(sys.argv[1]), int(sys.argv[2])
settings = Settings(Directories(*[root / "home"] * 3), library=root)
count = 0
def look(event, arguments):
    global count
    if event in {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir"}:
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
with fresh_index(settings, print) as index:
    sys.addaudithook(look)
    Tidier(index, settings).organize("{architecture}")
"""


@pytest.mark.parametrize("limit", [2, 4, 6, 8, 9, 10, 11, 12, 13, 14])
def test_links_are_whole_after_a_kill_between_any_two_steps(settings, folder, tmp_path, limit):
    before = contents(folder)
    with fresh_index(settings, print):
        pass
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(limit)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    with fresh_index(settings, print) as index:
        assert len(index.adapters()) == 4
    assert contents(folder) == before
    assert {path.parent.name for path in folder.rglob("*.safetensors")} == {"sd1"}
