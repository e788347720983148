"""A folder is adopted with its subfolders, and without what no other machine could have."""

import pickle
import shutil
from dataclasses import replace

import pytest
from unit.library.small_lora import small_lora, write_lora
from unit.library.small_project import opened, rebuilt

from hubtool.library.lockfile import read_lock
from hubtool.library.manifest import read_manifest
from hubtool.library.project import Project
from hubtool.library.scan import fresh_index, scan_place
from hubtool.library.target import choose_place


def test_subfolders_are_adopted_whatever_the_library_knew(tmp_path):
    folder = tmp_path / "hand" / "made"
    for name in ("a.safetensors", "deep/er/b.safetensors"):
        write_lora(folder / name, len(name))
    settings, _ = opened(tmp_path / "elsewhere")
    place = choose_place(settings, to=folder)
    with fresh_index(settings, print) as index:
        scan_place(index, place)  # as `install --to` leaves it
        deep = replace(place, deep=True)
        scan_place(index, deep)
        inner = replace(place, folder=folder / "deep")
        for one in (deep, inner):
            scan_place(index, one)
        paths = [
            [one.path for one in Project(tmp_path / name, settings, one, index, print, dry_run=True).adopt().locked]
            for name, one in (("whole", deep), ("part", inner))
        ]
    assert paths == [["a.safetensors", "deep/er/b.safetensors"], ["er/b.safetensors"]]


def test_what_no_other_machine_could_have_is_left_out_of_manifest_and_lock(project, folder, capsys):
    whole = (folder / "ink.safetensors").read_bytes()
    (folder / "sub" / "cut.safetensors").write_bytes(whole[:-9])
    (folder / "pickled.pt").write_bytes(pickle.dumps({"weight": 1}))
    (folder / "nul.safetensors").write_bytes(small_lora(11))
    scan_place(project.index, project.place)
    done = project.adopt()
    assert {one.name for one in done.locked} == {"ink", "fog"} == set(read_manifest(project.manifest_path).wanted)
    assert [one.path.name for one in done.left_out] == ["nul.safetensors", "pickled.pt", "cut.safetensors"]
    said = capsys.readouterr().out
    assert said.count("Left out") == 3
    assert "in sub: cut.safetensors" in said


def test_two_names_that_differ_in_case_are_one_elsewhere(project, folder):
    write_lora(folder / "INK.safetensors", 12)
    if len(list(folder.glob("*.safetensors"))) < 2:
        pytest.skip("this disk has one of them only")
    scan_place(project.index, project.place)
    done = project.adopt()
    assert {one.path for one in done.locked} == {"INK.safetensors", "sub/fog.safetensors"}
    assert [one.path.name for one in done.left_out] == ["ink.safetensors"]


def test_one_file_under_one_name_in_three_folders_is_three_entries(project, folder):
    for sub in ("a", "b"):
        write_lora(folder / sub / "ink.safetensors", 1)
    scan_place(project.index, project.place)
    assert len(project.adopt().locked) == 4
    assert len(read_lock(project.lock_path)) == len(read_manifest(project.manifest_path).wanted) == 4


def test_a_folder_without_loras_comes_to_nothing(project, folder):
    shutil.rmtree(folder)
    folder.mkdir()
    scan_place(project.index, project.place)
    assert not project.adopt().locked
    assert not project.lock_path.exists()


def test_a_model_under_another_extension_comes_out_under_it(project, tmp_path, folder):
    (folder / "ink.pt").write_bytes(small_lora(13))
    scan_place(project.index, project.place)
    project.adopt()
    place = rebuilt(tmp_path, tmp_path / "other")
    assert (place.folder / "ink.pt").read_bytes() == small_lora(13)
    assert (place.folder / "ink.safetensors").read_bytes() == small_lora(1)
