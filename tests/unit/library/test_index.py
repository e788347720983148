"""The index finds, survives damage, and is shared by processes."""

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.library.index import Index
from hubtool.library.record import Digests, Facts, Folder, Installed, Origin, Own, Stamp
from hubtool.library.searching import search

LORAS = Path("/models/Lora")


def adapter(inside: str, **parts: object) -> Installed:
    return replace(Installed(LORAS / inside, LORAS, "a1111", Stamp(10, 20, 30)), **parts)


@pytest.fixture
def index(tmp_path):
    with Index(tmp_path / "index.sqlite") as index:
        with index.writing():
            index.remember(Folder(LORAS, "a1111"))
        yield index


def store(index, *adapters):
    with index.writing():
        for one in adapters:
            index.store(one)


def names(adapters):
    return [one.name for one in adapters]


def test_what_is_stored_comes_back_as_it_was(index):
    whole = adapter(
        "a/ink.safetensors",
        digests=Digests("s" * 64, "1", "2", "3", "4", "5", "6"),
        facts=Facts("adapter", "sdxl", "kohya", ("lora", "loha"), "base", "Title", ("one", "two"), "alias", "ff", "no"),
        origin=Origin("civitai", "1", "2", "3", "Model", "v1", "me", "Pony", ("w",), "https://x", "src"),
        own=Own((), False, 0.5, ("mine",), "note"),
    )
    store(index, whole)
    assert index.at(whole.path) == whole


def test_a_search_needs_every_word_and_accepts_beginnings(index):
    store(index, adapter("pixel-art.safetensors"), adapter("pixel-ink.safetensors"), adapter("oil.safetensors"))
    assert names(search(index, "pix ink")) == ["pixel-ink"]
    assert names(search(index, "pixel")) == ["pixel-art", "pixel-ink"]
    assert search(index, "pixel oil") == []


@pytest.mark.parametrize("query", ["castl", "Miku", "pony", "somebody", "Große"])
def test_a_search_looks_at_words_base_people_and_ignores_case(index, query):
    origin = Origin("civitai", creator="Somebody", base_model="Pony", trigger_words=("castle", "hatsune miku"))
    store(index, adapter("x.safetensors", origin=origin, facts=Facts(title="große Burg")), adapter("y.safetensors"))
    assert names(search(index, query)) == ["x"]


@pytest.mark.parametrize("query", ["'", '"', "NEAR(", "a AND", "*", "-x", "name:", "%", "_", "!", "^", "(", ")"])
def test_no_query_is_a_syntax_error_or_a_wildcard(index, query):
    store(index, adapter("plain.safetensors"))
    assert names(search(index, query)) == []


def test_what_no_word_begins_with_is_found_inside_words(index):
    store(index, adapter("SuperPixel.safetensors"), adapter("水墨画风格.safetensors"))
    assert names(search(index, "pixel")) == ["SuperPixel"]
    assert names(search(index, "画风")) == ["水墨画风格"]


def test_changed_words_are_found_and_old_ones_are_not(index):
    before = adapter("x.safetensors", facts=Facts(title="castle"))
    store(index, before)
    store(index, replace(before, facts=Facts(title="forest")))
    assert search(index, "castle") == []
    assert names(search(index, "forest")) == ["x"]


def test_an_error_inside_a_transaction_undoes_it(index):
    bad = adapter("y.safetensors", facts=Facts(title=object()))  # type: ignore[arg-type]  # no database holds that
    with pytest.raises(TypeError):
        store(index, adapter("x.safetensors"), bad)
    assert index.adapters() == []


def test_a_missing_file_is_not_listed_and_keeps_its_row(index):
    one = adapter("x.safetensors")
    store(index, one)
    with index.writing():
        index.mark_missing([str(one.path)])
    assert index.adapters() == []
    assert index.known(LORAS)[str(one.path)].missing


@pytest.mark.parametrize("damage", ["garbage", "cut", "middle"])
def test_a_damaged_index_is_moved_aside_and_begun_anew_with_its_folders(tmp_path, damage):
    path = tmp_path / "index.sqlite"
    with Index(path) as index:
        with index.writing():
            index.remember(Folder(LORAS, "a1111"))
        store(index, *(adapter(f"{number}.safetensors", facts=Facts(title="t" * 300)) for number in range(200)))
    data = bytearray(path.read_bytes())
    if damage == "garbage":
        data = b"not a database at all" * 1000
    elif damage == "cut":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    path.write_bytes(data)
    with Index(path) as index:
        assert "damaged" in index.note
        assert index.adapters() == []
        assert [folder.path for folder in index.folders()] in ([], [LORAS])
    assert len(list(tmp_path.glob("index.sqlite.damaged-*"))) == 1
    with Index(path) as index:
        assert not index.note


def test_an_index_of_a_newer_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "index.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LibraryProblem, match="999"):
        Index(path)
    assert path.read_bytes() == before


def test_a_place_that_cannot_hold_an_index_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageProblem, match="file"):
        Index(tmp_path / "file" / "index.sqlite")
    with pytest.raises(StorageProblem, match="index"):
        Index(tmp_path)


def test_a_folder_inside_a_deep_one_is_kept_with_it(index):
    with index.writing():
        assert index.remember(Folder(LORAS / "sub", "comfyui", deep=False)).path == LORAS
    assert [folder.path for folder in index.folders()] == [LORAS]


def test_a_deep_folder_takes_over_the_folders_inside_it(index):
    store(index, adapter("x.safetensors"))
    with index.writing():
        index.remember(Folder(LORAS.parent, "comfyui"))
    assert [folder.path for folder in index.folders()] == [LORAS.parent]
    assert [one.folder for one in index.adapters()] == [LORAS.parent]


def test_a_subfolder_belongs_to_one_folder_only(index):
    named, sub = Path("/named"), Path("/named/sub")
    mine = Installed(sub / "ink.safetensors", sub, "a1111", Stamp(10, 20, 30))
    with index.writing():
        for path in (named, sub):
            index.remember(Folder(path, "a1111", deep=False))
        index.store(mine)
        index.look_into(named, sub)
        assert index.at(mine.path).folder == named
        assert index.remember(Folder(sub, "a1111", deep=False)).path == named
        index.remember(Folder(sub, "a1111"))
    assert index.at(mine.path).folder == sub
    assert [(one.path, one.also) for one in index.folders()] == [(LORAS, ()), (named, ()), (sub, ())]


def test_eight_processes_that_begin_an_index_at_once_all_succeed(tmp_path):
    code = """
import sys
from pathlib import Path
from hubtool.library.index import Index
from hubtool.library.record import Folder
for number in range(5):
    with Index(Path(sys.argv[1])) as index, index.writing():
        index.remember(Folder(Path(f"/loras/{sys.argv[2]}-{number}"), "a1111"))
"""
    path = str(tmp_path / "index.sqlite")
    processes = [
        subprocess.Popen([sys.executable, "-c", code, path, str(number)], stderr=subprocess.PIPE) for number in range(8)
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert errors == [""] * 8
    with Index(Path(path)) as index:
        assert len(index.folders()) == 40


def test_a_deleted_index_begins_anew_with_its_folders(tmp_path):
    path = tmp_path / "index.sqlite"
    with Index(path) as index, index.writing():
        index.remember(Folder(LORAS, "comfyui"))
        index.remember(Folder(LORAS.parent / "other é", "a1111", deep=False))
        index.look_into(LORAS.parent / "other é", LORAS.parent / "other é" / "sub")
    for file in tmp_path.glob("index.sqlite*"):
        file.unlink()
    with Index(path) as index:
        other = LORAS.parent / "other é"
        assert index.folders() == [Folder(LORAS, "comfyui"), Folder(other, "a1111", False, (other / "sub",))]
    (tmp_path / "folders.json").write_text("no list")
    path.unlink()
    with Index(path) as index:
        assert index.folders() == []


def test_every_kind_of_hash_is_found_by_its_beginning(index):
    digests = Digests("a1" * 32, "b2b2b2b2", "a1a1a1a1a1", "c3c3c3c3c3c3", "d4d4d4d4", "e5" * 32, "c3" * 32)
    origin = Origin("civitai", source_sha256="f6" * 32)
    facts = Facts(embedded_hash="0a" * 32)
    store(index, adapter("x.safetensors", digests=digests, origin=origin, facts=facts), adapter("y.safetensors"))
    for start in (
        "a1a1a1a1a1",
        "A1A1A1A1",
        "b2b2b2b2",
        "0xc3c3c3c3c3",
        "d4d4d4d4",
        "e5e5e5e5",
        "f6f6f6f6",
        "0x0a0a0a0a0a",
    ):
        assert names(index.with_short_hash(start)) == ["x"]
    for start in ("a1a1a1a", "a1a1a1a2", "", "xyz"):
        assert index.with_short_hash(start) == []


def test_a_large_index_is_checked_once_a_day_and_damage_found_later_mends_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("hubtool.library.database.SMALL_BYTES", 0)
    path = tmp_path / "index.sqlite"
    with Index(path) as index:
        with index.writing():
            index.remember(Folder(LORAS, "a1111"))
        store(index, *(adapter(f"{number}.safetensors", facts=Facts(title="t" * 300)) for number in range(200)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    path.write_bytes(data)
    with Index(path) as index, pytest.raises(LibraryProblem, match="damaged"):
        index.adapters()
    with Index(path) as index:
        assert "damaged" in index.note
        assert [folder.path for folder in index.folders()] == [LORAS]
