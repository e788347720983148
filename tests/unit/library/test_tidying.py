"""Files move with everything that belongs to them, whole or not at all, and nothing is overwritten."""

import json
import os
import signal
import subprocess
import sys

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import LibraryProblem, NameTaken, NotInstalled, OutputExists, StorageProblem, UsageProblem
from hubtool.library.acquire import Order
from hubtool.library.companions import companions
from hubtool.library.index import Index
from hubtool.library.install import Wish
from hubtool.library.journal import TRASH, Move, Plan, carry_out, complete
from hubtool.library.record import Folder
from hubtool.library.scan import add_folders, fresh_index
from hubtool.library.spreading import install_everywhere
from hubtool.library.target import choose_place
from hubtool.library.tidying import Tidier, check_template
from hubtool.library.uninstalling import uninstall
from hubtool.library.walking import stamp_of
from hubtool.settings import Directories, Settings


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    folder = tmp_path / "models" / "Lora"
    write_lora(folder / "ink.safetensors", 1)
    write_lora(folder / "sub" / "fog v1.safetensors", 2)
    for name in ("ink.json", "ink.preview.png", "ink.civitai.info", "ink.txt", "ink2.json", "inkling.png"):
        (folder / name).write_text("{}")
    (folder / "ink.metadata.json").write_text(
        json.dumps({"sha256": "x", "file_path": "old", "file_name": "ink", "mine": 1})
    )
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.fixture
def folder(settings):
    return settings.library / "models" / "Lora"


@pytest.fixture
def mover(settings):
    with fresh_index(settings, print) as index:
        yield Tidier(index, settings)


def files(folder):
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and TRASH not in path.parts
    }


def names(settings):
    with fresh_index(settings, print) as index:
        return {one.path.relative_to(one.folder).as_posix() for one in index.adapters()}


def test_only_files_that_carry_the_whole_name_belong_to_a_model(folder):
    beside = {path.name for path in companions(folder / "ink.safetensors")}
    assert beside == {"ink.json", "ink.preview.png", "ink.civitai.info", "ink.txt", "ink.metadata.json"}


def test_a_longer_name_has_the_better_claim(folder):
    write_lora(folder / "ink.preview.safetensors", 3)
    assert folder / "ink.preview.png" not in companions(folder / "ink.safetensors")
    assert companions(folder / "ink.preview.safetensors") == [folder / "ink.preview.png"]


def test_what_two_models_share_goes_with_neither(folder):
    (folder / "ink.pt").write_bytes(b"")
    assert companions(folder / "ink.safetensors") == []


def test_a_renamed_model_takes_everything_along(mover, settings, folder):
    done = mover.rename("ink", "brush é")
    assert done.target == folder / "brush é.safetensors"
    expected = {
        "brush é.safetensors",
        "brush é.json",
        "brush é.preview.png",
        "brush é.civitai.info",
        "brush é.txt",
        "brush é.metadata.json",
    }
    assert files(folder) == expected | {"ink2.json", "inkling.png", "sub/fog v1.safetensors"}
    table = json.loads((folder / "brush é.metadata.json").read_text())
    assert (table["file_path"], table["mine"]) == ((folder / "brush é.safetensors").as_posix(), 1)
    assert names(settings) == {"brush é.safetensors", "sub/fog v1.safetensors"}


def test_what_the_user_said_stays_with_a_renamed_file(mover, settings):
    mover.rename("ink", "brush")
    with fresh_index(settings, print) as index:
        assert index.at(settings.library / "models" / "Lora" / "brush.safetensors").digests is not None
        assert len(index.known(settings.library / "models" / "Lora")) == 2  # the old row became the new one


def test_a_name_in_use_is_refused_whatever_its_case(mover, folder):
    before = files(folder)
    with pytest.raises(NameTaken) as caught:
        mover.rename("ink", "FOG V1")
    assert files(folder) == before
    assert "--name" not in caught.value.hint


def test_a_letter_before_a_colon_is_no_drive(mover):
    assert mover.rename("ink", "v:12").target.name == "v_12.safetensors"


@pytest.mark.parametrize("new", ["a/b", "..", ""])
def test_what_is_no_name_is_refused(mover, new):
    with pytest.raises(UsageProblem):
        mover.rename("ink", new)


def test_an_unknown_name_gets_near_misses(mover):
    with pytest.raises(NotInstalled) as caught:
        mover.rename("fog", "x")
    assert caught.value.suggestions == ("fog v1",)


def test_a_sidecar_in_the_way_stops_everything(mover, folder):
    (folder / "brush.txt").write_text("mine")
    before = files(folder)
    with pytest.raises(OutputExists) as caught:
        mover.rename("ink", "brush")
    assert "`" not in caught.value.hint  # no option of another command
    assert files(folder) == before
    assert (folder / "brush.txt").read_text() == "mine"


def test_a_dry_run_moves_nothing(settings, folder):
    before = files(folder)
    with fresh_index(settings, print) as index:
        rows = Tidier(index, settings, dry_run=True).organize("{architecture}")
    assert {row.status for row in rows} == {"planned"}
    assert files(folder) == before


def test_organized_files_lie_by_the_template_and_undo_takes_it_back(mover, settings, folder):
    before = files(folder)
    mover.organize("{architecture}")
    assert {"sd1/ink.safetensors", "sd1/ink.preview.png", "sd1/fog v1.safetensors"} <= files(folder)
    mover.undo()
    assert files(folder) == before
    with pytest.raises(UsageProblem):
        check_template("all")


def test_of_two_files_that_would_become_one_the_second_stays_and_says_so(mover, settings, folder):
    write_lora(folder / "other" / "ink.safetensors", 9)
    with fresh_index(settings, print) as index:
        rows = Tidier(index, settings).organize("{architecture}")
    assert sorted((row.name, row.status) for row in rows) == [
        ("fog v1", "moved"),
        ("ink", "moved"),
        ("ink", "name taken"),
    ]
    assert {"sd1/ink.safetensors", "other/ink.safetensors"} <= files(folder)


def test_undo_takes_along_what_was_said_since(mover, folder):
    mover.organize("{architecture}")
    (folder / "sd1" / "ink.hubtool.json").write_text("{}")
    mover.undo()
    assert {"ink.safetensors", "ink.hubtool.json", "ink.preview.png"} <= files(folder)
    assert not (folder / "sd1").exists()


def test_folders_that_moves_emptied_are_removed_and_those_with_anything_in_them_stay(mover, folder):
    (folder / "deep" / "er").mkdir(parents=True)
    write_lora(folder / "deep" / "er" / "oil.safetensors", 5)
    (folder / "sub" / "notes.md").write_text("mine")
    with fresh_index(mover.settings, print) as index:
        Tidier(index, mover.settings).organize("{architecture}")
    assert (folder / "sub" / "notes.md").exists()
    assert not (folder / "deep").exists()


def test_what_was_installed_can_be_uninstalled_after_it_was_renamed(mover, settings, folder):
    files = [folder / "ink.safetensors", folder / "ink.json"]
    with mover.index.writing():
        mover.index.remember_placed(files[0], {path: stamp_of(path.stat()) for path in files})
    mover.rename("ink", "brush")
    with fresh_index(settings, print) as index:
        done = uninstall(index, index.at(folder / "brush.safetensors"))
    assert {path.name for path in done.removed} == {"brush.safetensors", "brush.json"}


def test_trash_hides_and_restore_brings_back(mover, settings, folder):
    before = files(folder)
    mover.trash(["ink", "fog v1"])
    assert names(settings) == set()
    assert files(folder) == {"ink2.json", "inkling.png"}
    mover.restore(["ink"])
    assert "ink.preview.png" in files(folder)
    mover.restore([])
    assert files(folder) == before
    assert names(settings) == {"ink.safetensors", "sub/fog v1.safetensors"}
    with pytest.raises(LibraryProblem, match="empty"):
        mover.restore([])


def test_a_place_that_was_taken_meanwhile_is_not_overwritten(mover, folder):
    mover.trash(["ink", "fog v1"])
    (folder / "ink.safetensors").write_text("new")
    rows = {row.name: row for row in mover.restore([])}
    assert (folder / "ink.safetensors").read_text() == "new"
    assert (rows["ink"].status, rows["ink"].error.code) == ("failed", "exists")
    assert "--" not in rows["ink"].error.hint
    assert rows["fog v1"].status == "moved"
    assert (folder / "sub" / "fog v1.safetensors").exists()
    assert [one.path.stem for one in mover.in_trash()] == ["ink"]


@pytest.mark.parametrize("name", ["sub/fog v1", "sub/fog v1.safetensors", "fog v1", "{folder}/sub/fog v1.safetensors"])
def test_what_is_to_be_restored_is_named_in_any_way(mover, folder, name):
    write_lora(folder / "fog v1.safetensors", 7)
    with fresh_index(mover.settings, print) as index:
        Tidier(index, mover.settings).trash([str(folder / "fog v1.safetensors"), "ink"])
    mover.trash([str(folder / "sub" / "fog v1.safetensors")])
    (row,) = mover.restore([name.format(folder=folder)])
    assert row.target == folder / "sub" / "fog v1.safetensors"


def test_a_failed_move_leaves_no_empty_trash(mover, folder, monkeypatch):
    def refusing(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "link", refusing)
    monkeypatch.setattr("pathlib.Path.rename", refusing)
    with pytest.raises(StorageProblem):
        mover.trash(["ink"])
    assert not (folder / TRASH).exists()


def test_nothing_to_undo_is_said(mover):
    with pytest.raises(LibraryProblem, match="nothing to undo"):
        mover.undo()


KILLED = """
import os, signal, sys
from pathlib import Path
from hubtool.library import journal
count, limit = 0, int(sys.argv[3])
def counted(call):
    def work(*arguments, **keywords):
        global count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **keywords)
    return work
journal.os.link = counted(os.link)
journal.Path.unlink = counted(Path.unlink)
root = Path(sys.argv[1])
moves = [journal.Move(root / f"{n}.a", root / "new" / f"{n}.a") for n in range(4)]
journal.carry_out(Path(sys.argv[2]), journal.Plan(tuple(moves), (), (root,)))
"""


@pytest.mark.parametrize("limit", range(1, 10))
def test_a_killed_move_is_completed_by_the_next_command(tmp_path, limit):
    notes, root = tmp_path / "notes", tmp_path / "files"
    root.mkdir()
    for number in range(4):
        (root / f"{number}.a").write_text(str(number))
    done = subprocess.run([sys.executable, "-c", KILLED, root, notes, str(limit)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert len(complete(notes)) == 1
    assert {path.name: path.read_text() for path in (root / "new").iterdir()} == {f"{n}.a": str(n) for n in range(4)}
    assert not list(root.glob("*.a"))
    assert complete(notes) == []


def test_a_failed_move_is_taken_back(tmp_path):
    first = tmp_path / "a"
    first.write_text("a")
    with pytest.raises(StorageProblem):
        carry_out(tmp_path / "notes", Plan((Move(first, tmp_path / "b"), Move(tmp_path / "gone", tmp_path / "c"))))
    assert first.read_text() == "a"
    assert not (tmp_path / "b").exists()
    assert list((tmp_path / "notes").iterdir()) == []


def test_the_index_completes_before_it_looks(settings, folder):
    notes = settings.directories.data / "moves"
    notes.mkdir(parents=True)
    move = Move(folder / "ink.safetensors", folder / "brush.safetensors")
    (notes / "moves-x.json").write_text(Plan((move,), (move.target,), (folder,)).text())
    said = []
    with fresh_index(settings, said.append) as index:
        assert isinstance(index, Index)
        assert {one.name for one in index.adapters()} == {"brush", "fog v1"}
    assert any("completed" in text for text in said)


def installed(settings, to, source, subdir=""):
    place = choose_place(settings, to=to)
    (done,) = install_everywhere(settings, [str(source)], [Order(place, Wish(subdir=subdir))], print)
    assert done.error is None
    return done.first.installation


@pytest.fixture
def named(settings, tmp_path):
    """A folder that was named with `--to`: a home, whose other subfolders are nobody's business."""
    write_lora(tmp_path / "named" / "private" / "theirs.safetensors", 8)
    installed(settings, tmp_path / "named", write_lora(tmp_path / "from" / "oil.safetensors", 9))
    return tmp_path / "named"


def oils(settings):
    with fresh_index(settings, print) as index:
        assert "theirs" not in {one.name for one in index.adapters()}
        return [one.path for one in index.adapters() if one.name == "oil"]


def test_below_a_folder_that_was_named_only_what_we_sorted_there_is_looked_into(settings, named, tmp_path):
    with fresh_index(settings, print) as index:
        Tidier(index, settings).organize("{architecture}", ["oil"])
    assert oils(settings) == [named / "sd1" / "oil.safetensors"]
    assert installed(settings, named, tmp_path / "from" / "oil.safetensors").status == "present"
    with fresh_index(settings, print) as index:
        Tidier(index, settings).trash(["oil"])
        Tidier(index, settings).restore([])
    assert oils(settings) == [named / "sd1" / "oil.safetensors"]
    for file in settings.index_path.parent.glob(f"{settings.index_path.name}*"):
        file.unlink()
    assert oils(settings) == [named / "sd1" / "oil.safetensors"]
    with fresh_index(settings, print) as index:
        Tidier(index, settings).organize("{architecture}", ["oil"])
    assert oils(settings) == [named / "sd1" / "oil.safetensors"]


def test_a_subfolder_that_was_asked_for_is_looked_into_and_forgotten_when_it_goes(settings, named, tmp_path):
    done = installed(settings, named, write_lora(tmp_path / "from" / "tea.safetensors", 10), "{architecture}/x")
    assert done.path == named / "sd1" / "x" / "tea.safetensors"
    assert "tea.safetensors" in {path.rpartition("/")[2] for path in names(settings)}
    again = installed(settings, done.path.parent, tmp_path / "from" / "tea.safetensors")
    assert (again.status, again.path) == ("present", done.path)
    done.path.unlink()
    done.path.parent.rmdir()
    with fresh_index(settings, print):
        pass
    with fresh_index(settings, print) as index:
        (folder,) = [one for one in index.folders() if one.path == named]
    assert folder == Folder(named, "a1111", deep=False)


def test_a_move_below_a_named_folder_that_was_killed_is_known_when_completed(settings, named):
    notes, target = settings.directories.data / "moves", named / "sd1" / "oil.safetensors"
    with fresh_index(settings, print) as index:
        plan = Plan((Move(named / "oil.safetensors", target),), (target,), tuple(one.path for one in index.folders()))
    (notes / "moves-x.json").write_text(plan.text())
    assert oils(settings) == [target]


def test_only_what_lies_below_a_folder_is_organized(mover, settings, folder):
    rows = mover.organize("{architecture}", (), folder / "sub")
    assert [row.name for row in rows] == ["fog v1"]
    assert (folder / "ink.safetensors").exists()


def test_files_whose_paths_are_in_a_database_stay(settings, tmp_path):
    path = write_lora(tmp_path / "invoke" / "autoimport" / "lora" / "tea.safetensors", 11)
    with fresh_index(settings, print) as index:
        add_folders(index, settings, [path.parent], "invokeai")
    with fresh_index(settings, print) as index:
        mover = Tidier(index, settings)
        rows = [row for row in mover.organize("{architecture}") if row.name == "tea"]
        assert [(row.status, row.kept_by) for row in rows] == [("left", "InvokeAI")]
        for refused in (lambda: mover.trash(["tea"]), lambda: mover.rename("tea", "coffee")):
            with pytest.raises(LibraryProblem, match="InvokeAI keeps the paths"):
                refused()
    assert path.exists()


def test_what_went_last_into_the_trash_comes_back_first_within_a_second_too(mover, folder, monkeypatch):
    for nanoseconds in (5_000_900_000, 5_001_000_001):  # less than a millisecond apart
        write_lora(folder / "fog.safetensors", nanoseconds % 97)
        with fresh_index(mover.settings, print) as index:
            monkeypatch.setattr("time.time_ns", lambda now=nanoseconds: now)
            Tidier(index, mover.settings).trash([str(folder / "fog.safetensors")])
            monkeypatch.undo()
    (row,) = mover.restore(["fog"])
    assert row.path.parent.name.endswith("-001000")
