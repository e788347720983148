"""The lock is refused before anything is written if it is not ours, or says what cannot be everywhere."""

import json
from dataclasses import asdict, replace

import pytest
import tomli
from unit.library.small_lora import write_lora
from unit.library.small_project import carried, files_of, opened

from hubtool.errors import ContentChanged, LockProblem
from hubtool.library.lock_entries import from_file
from hubtool.library.lockfile import Locked, read_lock, write_lock
from hubtool.library.manifest import Wanted
from hubtool.library.project import Project
from hubtool.library.record import Origin
from hubtool.library.scan import fresh_index, scan_place
from hubtool.library.target import choose_place

LOCKED = Locked("ink", "1001", "sub/ink.safetensors", "ab" * 32, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": ""},
        {"sha256": "AB" * 32},
        {"path": "/etc/x"},
        {"path": "../x"},
        {"path": "a/../../x"},
        {"path": "C:/x"},
        {"path": "a\\b"},
        {"size_bytes": "5"},
        {"path": ""},
    ],
)
def test_a_lock_without_hash_or_with_a_path_that_leads_out_is_refused(tmp_path, change):
    path = tmp_path / "loras.lock"
    write_lock(path, [LOCKED])
    assert read_lock(path) == {"ink": LOCKED}
    table = tomli.loads(path.read_text())
    row = table["lora"][0] | change
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
    path.write_text("version = 1\n[[lora]]\n" + "\n".join(lines))
    with pytest.raises(LockProblem):
        read_lock(path)


def test_a_lock_of_a_newer_version_is_refused(tmp_path):
    (tmp_path / "loras.lock").write_text("version = 2")
    with pytest.raises(LockProblem, match="version 2"):
        read_lock(tmp_path / "loras.lock")


@pytest.mark.parametrize(
    "place",
    [
        ".git/hooks/x.py",
        ".hidden/x.safetensors",
        "sub/.x.safetensors",
        "x.py",
        "x",
        "CON/x.safetensors",
        "sub/nul:.safetensors",
        "sub/aux.safetensors",
        "sub./x.safetensors",
        "sub /x.safetensors",
        "what?.safetensors",
        "a\nb.safetensors",
    ],
)
def test_a_path_that_no_lock_may_have_is_refused_before_anything_is_written(project, tmp_path, place):
    write_lock(project.lock_path, [LOCKED])
    text = project.lock_path.read_text()
    project.lock_path.write_text(text.replace('"sub/ink.safetensors"', json.dumps(place)))
    before = files_of(tmp_path)
    with pytest.raises(LockProblem, match="has a path that"):
        project.sync(frozen=True)
    with pytest.raises(LockProblem):
        write_lock(project.lock_path, [replace(LOCKED, path=place)])
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [{"name": "two", "path": "sub/ink.safetensors"}, {"name": "two", "path": "SUB/Ink.SAFETENSORS"}, {"path": "x.pt"}],
)
def test_two_entries_of_one_path_or_name_are_refused(tmp_path, change):
    path = tmp_path / "loras.lock"
    write_lock(path, [LOCKED])
    row = asdict(LOCKED) | change
    path.write_text(path.read_text() + "\n[[lora]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in row.items()))
    with pytest.raises(LockProblem, match=r"have one path|two entries"):
        read_lock(path)


def test_a_file_that_the_index_does_not_know_is_not_overwritten(project, tmp_path, folder):
    project.adopt()
    other = tmp_path / "other"
    mine = write_lora(other / "loras" / "sub" / "fog.safetensors", 77).read_bytes()
    carried(tmp_path, other)
    settings, _ = opened(other, tmp_path / "home")
    place = choose_place(settings, to=other / "loras")  # is not looked into deeply
    with fresh_index(settings, print) as index:
        scan_place(index, place)
        rows = {row.name: row for row in Project(other, settings, place, index, print).sync(frozen=True)}
    assert isinstance(rows["fog"].error, ContentChanged)
    assert (place.folder / "sub" / "fog.safetensors").read_bytes() == mine


def test_addresses_of_this_machine_mean_nothing_elsewhere(project, folder):
    version = {"id": 7, "modelId": 3, "model": {"name": "Fog"}}
    shelf = project.index.at(folder / "ink.safetensors")
    for hub, url in (("http://127.0.0.1:8080", "http://localhost:8080/models/3"), ("civitai", "https://civitai.com/3")):
        origin = Origin(hub=hub, version_id="7", url=url, snapshot=version)
        locked = from_file(Wanted("ink", "3"), replace(shelf, origin=origin), "ink.safetensors")
        kept = ("civitai", "https://civitai.com/3") if hub == "civitai" else ("", "")
        assert (locked.hub, locked.url, locked.spec) == (*kept, "v:7")
