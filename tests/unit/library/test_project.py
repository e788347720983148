"""Manifest and lock: what people wrote stays, what is locked is exactly what is installed, and each failure has its code."""

import json
from dataclasses import replace

import pytest
from unit.library.small_lora import write_lora
from unit.library.small_project import carried, opened, rebuilt

from hubtool.errors import (
    ContentChanged,
    HubtoolError,
    LibraryProblem,
    LockProblem,
    UsageProblem,
)
from hubtool.library.exports import export
from hubtool.library.lock_entries import wish_of
from hubtool.library.lockfile import Locked, read_lock
from hubtool.library.manifest import Wanted, add_wanted, read_manifest, remove_wanted
from hubtool.library.project import Project
from hubtool.library.scan import fresh_index, scan_place

TEXT = """# mine
[loras]
ink = "1001"      # the good one
"fog é" = { spec = "v:2", weight = 0.8, subdir = "styles" }

[sets]
both = ["ink:0.5", "fog é"]
"""


def test_a_manifest_is_read_as_it_is_meant(tmp_path):
    path = tmp_path / "loras.toml"
    path.write_text(TEXT, "utf-8")
    found = read_manifest(path)
    assert found.wanted["ink"] == Wanted("ink", "1001")
    assert found.wanted["fog é"] == Wanted("fog é", "v:2", weight=0.8, subdir="styles")
    assert found.sets == {"both": (("ink", 0.5), ("fog é", None))}


def test_adding_and_removing_leaves_the_other_lines_alone(tmp_path):
    path = tmp_path / "loras.toml"
    path.write_text(TEXT, "utf-8")
    add_wanted(path, [Wanted("new", "5", weight=0.5)])
    text = path.read_text("utf-8")
    assert [line for line in TEXT.splitlines() if line not in text.splitlines()] == []
    assert read_manifest(path).wanted["new"].weight == 0.5
    remove_wanted(path, "new")
    assert path.read_text("utf-8") == TEXT
    remove_wanted(path, "ink")
    assert read_manifest(path).sets == {"both": (("fog é", None),)}
    with pytest.raises(LibraryProblem):
        remove_wanted(path, "ink")


def test_a_name_cannot_stand_for_two_things(tmp_path):
    path = tmp_path / "loras.toml"
    path.write_text(TEXT, "utf-8")
    with pytest.raises(LibraryProblem, match="already"):
        add_wanted(path, [Wanted("ink", "9")])


@pytest.mark.parametrize(
    "text",
    [
        "[loras",
        "loras = 3",
        "[loras]\nx = {}",
        "[loras]\nx = [1]",
        "[loras]\nx = {spec='1', nonsense=2}",
        "[loras]\nx = {spec='1', weight='much'}",
        "[sets]\ns = ['x']",
        "[loras]\nx='1'\n[sets]\ns = 'x'",
        "sets = 1",
    ],
)
def test_a_wrong_manifest_is_refused_with_a_sentence(tmp_path, text):
    (tmp_path / "loras.toml").write_text(text)
    with pytest.raises(UsageProblem):
        read_manifest(tmp_path / "loras.toml")


def test_an_adopted_folder_is_rebuilt_byte_for_byte_on_an_empty_machine(project, tmp_path, folder):
    locked = {one.name: one for one in project.adopt().locked}
    assert (locked["fog"].path, locked["fog"].spec, locked["fog"].creator) == ("sub/fog.safetensors", "v:7", "ada")
    assert locked["ink"].wish == f"sha256:{locked['ink'].sha256}"
    assert str(tmp_path) not in (tmp_path / "loras.lock").read_text() + (tmp_path / "loras.toml").read_text()
    other = carried(tmp_path, tmp_path / "other")
    settings, place = opened(other, tmp_path / "home")  # the same library knows where copies are
    with fresh_index(settings, print) as index:
        rows = Project(other, settings, place, index, print).sync(frozen=True)
    assert {row.status for row in rows} == {"copied"}
    for name in ("ink.safetensors", "sub/fog.safetensors"):
        assert (place.folder / name).read_bytes() == (folder / name).read_bytes()
    with fresh_index(settings, print) as index:
        rows = Project(other, settings, place, index, print).sync(frozen=True)
    assert {row.status for row in rows} == {"present"}


def test_names_that_no_installation_would_choose_come_out_the_same(project, tmp_path, folder):
    names = ("a=b", "  blanks  ", "x" * 240, "é (1)")
    for seed, name in enumerate(names):
        write_lora(folder / f"{name}.safetensors", 20 + seed, {"modelspec.trigger_phrase": "w"})
    scan_place(project.index, project.place)
    project.adopt()
    place = rebuilt(tmp_path, tmp_path / "other")
    assert {path.stem for path in place.folder.glob("*.safetensors")} == {*names, "ink"}
    assert (place.folder / "a=b.json").exists()


def test_a_name_that_an_installation_would_change_costs_no_other_file_its_place(project, tmp_path, folder):
    write_lora(folder / "a=b.safetensors", 30)
    scan_place(project.index, project.place)
    project.adopt()
    other = tmp_path / "other"
    mine = write_lora(other / "models" / "Lora" / "a_b.safetensors", 31).read_bytes()
    carried(tmp_path, other)
    settings, place = opened(other, tmp_path / "home")
    with fresh_index(settings, print) as index:
        assert all(row.error is None for row in Project(other, settings, place, index, print).sync(frozen=True))
    assert (place.folder / "a_b.safetensors").read_bytes() == mine
    assert (place.folder / "a=b.safetensors").read_bytes() == (folder / "a=b.safetensors").read_bytes()


def test_a_name_that_other_systems_take_for_a_drive_is_left_out_with_a_sentence(project, folder, capsys):
    write_lora(folder / "c:d.safetensors", 9)
    scan_place(project.index, project.place)
    assert {one.name for one in project.adopt().locked} == {"ink", "fog"}
    assert "c:d" in capsys.readouterr().out
    assert set(read_lock(project.lock_path)) == {"ink", "fog"}


def test_a_template_as_subdir_is_locked_as_what_it_means(project, tmp_path):
    source = write_lora(tmp_path / "downloads" / "new.safetensors", 5)
    locked = project.add(str(source), Wanted("new", "", subdir="{architecture}"))
    assert locked.path == "sd1/new.safetensors"
    (tmp_path / "loras.lock").unlink()
    assert [one.path for one in project.lock()] == ["sd1/new.safetensors"]


def test_adopting_twice_changes_nothing(project, tmp_path):
    project.adopt()
    before = (tmp_path / "loras.toml").read_text(), (tmp_path / "loras.lock").read_text()
    project.adopt()
    assert ((tmp_path / "loras.toml").read_text(), (tmp_path / "loras.lock").read_text()) == before


def test_a_changed_file_is_not_overwritten(project, folder):
    project.adopt()
    write_lora(folder / "ink.safetensors", 99)
    scan_place(project.index, project.place)
    rows = {row.name: row for row in project.sync(frozen=True)}
    assert isinstance(rows["ink"].error, ContentChanged)
    assert rows["ink"].error.code == "hash_mismatch"
    assert rows["fog"].status == "present"


def test_a_dead_source_is_said_and_the_others_go_on(project, folder):
    project.adopt()
    (folder / "ink.safetensors").unlink()
    scan_place(project.index, project.place)
    rows = {row.name: row for row in project.sync(frozen=True)}
    assert isinstance(rows["ink"].error, HubtoolError)
    assert rows["fog"].error is None


def test_frozen_refuses_a_lock_that_is_not_what_the_manifest_asks_for(project, tmp_path):
    project.adopt()
    add_wanted(tmp_path / "loras.toml", [Wanted("more", "5")])
    with pytest.raises(LockProblem, match="more"):
        project.sync(frozen=True)


def test_a_local_file_is_added_by_its_hash(project, tmp_path):
    source = write_lora(tmp_path / "downloads" / "new.safetensors", 5)
    locked = project.add(str(source), Wanted("", ""))
    assert read_manifest(tmp_path / "loras.toml").wanted["new"].spec == f"sha256:{locked.sha256}"
    assert read_lock(tmp_path / "loras.lock")["new"] == locked
    assert wish_of(read_manifest(tmp_path / "loras.toml").wanted["new"]) == locked.wish
    assert str(tmp_path) not in (tmp_path / "loras.lock").read_text()
    project.remove("new")
    assert read_lock(tmp_path / "loras.lock") == {}


def test_prune_puts_the_rest_into_the_trash(project, tmp_path, folder):
    project.adopt()
    project.remove("ink")
    scan_place(project.index, project.place)
    assert {row.status for row in replace(project, dry_run=True).sync(prune=True)} == {"present", "pruned"}
    assert (folder / "ink.safetensors").exists()
    project.sync(prune=True)
    assert not (folder / "ink.safetensors").exists()
    assert list(folder.glob(".hubtool-trash/*/ink.safetensors"))


def test_exports(project, tmp_path):
    path = tmp_path / "loras.toml"
    path.write_text(TEXT, "utf-8")
    place = project.place
    locked = [
        Locked(
            "ink",
            "1001",
            "ink.safetensors",
            "ab" * 32,
            5,
            "v:2",
            "civitai",
            url="https://h/1",
            creator="a|da",
            model="Ink",
            base_model="SD 1.5",
        )
    ]
    wanted = read_manifest(path)
    assert export("aria2", wanted, locked, place) == (
        "https://civitai.com/api/download/models/2\n  out=ink.safetensors\n  checksum=sha-256=" + "ab" * 32 + "\n"
    )
    assert json.loads(export("comfy-lock", wanted, locked, place))["models"][0]["hashes"] == [
        {"hash": "ab" * 32, "type": "SHA256"}
    ]
    assert "| Ink | a/da | SD 1.5 | not said | https://h/1 |" in export("credits", wanted, locked, place)
    assert export("prompts", wanted, locked, place) == "both: <lora:ink:0.5> <lora:fog é:0.8>\n"
    with pytest.raises(UsageProblem):
        export("nonsense", wanted, locked, place)
