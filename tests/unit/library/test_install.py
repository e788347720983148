"""What ends in a LoRA folder, under which name, and what never does."""

import hashlib
import json
import os
import sys

import pytest
from unit.library.small_lora import Shelf, small_lora, write_lora

from hubtool.errors import (
    BadHeader,
    FileMissing,
    NameTaken,
    NotAnAdapter,
    NotRegularFile,
    StorageProblem,
    TruncatedFile,
    UnsafePickle,
    UsageProblem,
)
from hubtool.library.index import Index

JPEG = b"\xff\xd8\xff\xe0" + bytes(30)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.fixture
def ink(tmp_path):
    return write_lora(tmp_path / "downloads" / "ink.safetensors", metadata={"modelspec.trigger_phrase": "ink, brush"})


def test_a_file_is_installed_with_everything_the_contract_names(shelf, ink):
    done = shelf.install(ink)
    assert (done.status, done.path) == ("installed", shelf.folder / "ink.safetensors")
    assert done.path.read_bytes() == ink.read_bytes()
    assert done.sha256 == hashlib.sha256(ink.read_bytes()).hexdigest()
    assert (done.architecture, done.dialect, done.parametrizations) == ("sd1", "kohya", ("lora",))
    assert (done.trigger_words, done.prompt) == (("ink", "brush"), "<lora:ink:1>")
    assert done.sidecars == (shelf.folder / "ink.json",)
    sidecar = json.loads((shelf.folder / "ink.json").read_text())
    assert (sidecar["sd version"], sidecar["activation text"]) == ("SD1", "ink, brush")
    assert shelf.files() == {"ink.safetensors", "ink.json"}


def test_the_index_knows_every_hash_of_what_was_installed(shelf, ink):
    shelf.install(ink)
    (found,) = shelf.scan()
    assert all([found.digests.sha256, found.digests.autov3, found.digests.blake3, found.digests.crc32])


def test_the_same_content_is_present_whatever_its_name(shelf, ink, tmp_path):
    first = shelf.install(ink)
    again = shelf.install(
        write_lora(tmp_path / "other.safetensors", metadata={"modelspec.trigger_phrase": "ink, brush"})
    )
    assert (again.status, again.path) == ("present", first.path)
    assert shelf.files() == {"ink.safetensors", "ink.json"}


def test_content_that_was_put_there_by_hand_is_present_too(shelf, ink):
    write_lora(shelf.folder / "by-hand.safetensors", metadata={"modelspec.trigger_phrase": "ink, brush"})
    assert shelf.install(ink).path.name == "by-hand.safetensors"


def test_content_that_was_deleted_meanwhile_is_installed_again(shelf, ink):
    shelf.install(ink).path.unlink()
    assert shelf.install(ink).status == "installed"


def test_two_targets_each_get_their_own(tmp_path, ink):
    assert Shelf(tmp_path).install(ink).status == "installed"
    assert Shelf(tmp_path, "comfyui").install(ink).status == "installed"


def test_another_file_of_that_name_gets_a_suffix_and_the_first_stays(shelf, ink, tmp_path):
    shelf.install(ink)
    before = (shelf.folder / "ink.safetensors").read_bytes()
    other = write_lora(tmp_path / "other" / "ink.safetensors", 1)
    done = shelf.install(other)
    assert done.path.name == f"ink_{done.sha256[:8]}.safetensors"
    assert (shelf.folder / "ink.safetensors").read_bytes() == before


@pytest.mark.parametrize("taken", ["INK.safetensors", "ink.pt", "sub/ink.safetensors"])
def test_names_that_a1111_cannot_tell_apart_are_taken(shelf, ink, taken):
    write_lora(shelf.folder / taken, 7)
    assert shelf.install(ink).path.name.startswith("ink_")


def test_comfyui_tells_subfolders_apart(tmp_path, ink):
    shelf = Shelf(tmp_path, "comfyui")
    write_lora(shelf.folder / "sub" / "ink.safetensors", 7)
    assert shelf.install(ink).path.name == "ink.safetensors"


def test_a_chosen_name_that_is_taken_is_refused_unless_forced(shelf, ink):
    taken = write_lora(shelf.folder / "mine.safetensors", 7)
    with pytest.raises(NameTaken, match="mine"):
        shelf.install(ink, name="mine")
    assert taken.read_bytes() == small_lora(7)
    assert shelf.install(ink, name="mine", force=True).path == taken
    assert taken.read_bytes() == ink.read_bytes()


def test_force_installs_a_second_copy(shelf, ink):
    shelf.install(ink)
    assert shelf.install(ink, name="copy", force=True).path.name == "copy.safetensors"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("水墨 画", "水墨 画.safetensors"),
        ("emoji 🎨", "emoji 🎨.safetensors"),
        ("two words.safetensors", "two words.safetensors"),
        ("v1.5", "v1.5.safetensors"),
        ("a=b", "a_b.safetensors"),
        ("CON", "_CON.safetensors"),
        ("what?", "what_.safetensors"),
        ("a:b", "a_b.safetensors"),
        ("style: anime", "style_ anime.safetensors"),
        ("é" * 200, "é" * 94 + ".safetensors"),
    ],
)
def test_a_name_becomes_a_legal_file_name(shelf, ink, name, expected):
    assert shelf.install(ink, name=name).path.name == expected


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", "   "])
def test_a_name_that_leads_elsewhere_is_refused(shelf, ink, name):
    with pytest.raises(UsageProblem):
        shelf.install(ink, name=name)
    assert shelf.files() == set()


def test_a_subfolder_is_made_from_what_is_known(shelf, ink):
    done = shelf.install(ink, subdir="{architecture}/{creator} x/{base_model}")
    assert done.path == shelf.folder / "sd1" / "unknown x" / "unknown" / "ink.safetensors"


@pytest.mark.parametrize("template", ["../{architecture}", "{nonsense}", "a/../..", ".hidden", "{__class__}", "~/.."])
def test_a_subfolder_never_leads_out(shelf, ink, template):
    with pytest.raises(UsageProblem):
        shelf.install(ink, subdir=template)
    assert shelf.files() == set()


def test_a_value_with_slashes_stays_one_folder(shelf, tmp_path):
    path = write_lora(tmp_path / "x.safetensors", metadata={"modelspec.title": "../../etc/passwd"})
    assert shelf.install(path, subdir="{model}").path.parent.parent == shelf.folder


def test_a_value_with_a_colon_keeps_all_its_letters(shelf, tmp_path):
    path = write_lora(tmp_path / "x.safetensors", metadata={"modelspec.title": "a:b"})
    assert shelf.install(path, subdir="{model}").path.parent.name == "a_b"


def test_what_people_wrote_survives_a_second_install(shelf, ink):
    shelf.install(ink)
    sidecar = shelf.folder / "ink.json"
    mine = json.loads(sidecar.read_text()) | {"notes": "mine", "activation text": "my words", "extra": [1]}
    sidecar.write_text(json.dumps(mine))
    again = shelf.install(ink)
    assert again.status == "present"
    assert json.loads(sidecar.read_text()) == mine
    shelf.scan()
    assert shelf.install(ink).trigger_words == ("my words",)


def test_a_lost_sidecar_is_written_again(shelf, ink):
    shelf.install(ink)
    (shelf.folder / "ink.json").unlink()
    assert shelf.install(ink).sidecars == (shelf.folder / "ink.json",)


def test_sidecars_and_pictures_beside_a_local_file_come_along(shelf, ink):
    ink.with_suffix(".json").write_text(json.dumps({"notes": "theirs", "preferred weight": 0.6}))
    ink.with_suffix(".civitai.info").write_text(json.dumps({"id": 5}))
    ink.with_suffix(".preview.png").write_bytes(JPEG)
    done = shelf.install(ink)
    assert json.loads((shelf.folder / "ink.json").read_text())["preferred weight"] == 0.6
    assert json.loads((shelf.folder / "ink.civitai.info").read_text())["id"] == 5
    assert done.preview == shelf.folder / "ink.preview.jpg"  # the bytes say so


def test_no_sidecars_and_no_preview_means_the_file_alone(shelf, ink):
    ink.with_suffix(".png").write_bytes(JPEG)
    shelf.install(ink, sidecars=(), preview=False)
    assert shelf.files() == {"ink.safetensors"}


def test_a_hard_link_shares_the_bytes_and_a_symbolic_one_points_to_them(shelf, ink, tmp_path):
    hard = shelf.install(ink, way="hard").path
    assert os.path.samestat(hard.stat(), ink.stat())
    assert not hard.is_symlink()
    other = write_lora(tmp_path / "oil.safetensors", 3)
    soft = shelf.install(other, way="sym").path
    assert soft.is_symlink()
    assert soft.resolve() == other.resolve()


def test_a_converted_file_is_installed_once(shelf, ink):
    done = shelf.install(ink, dialect="diffusers")
    assert (done.status, done.dialect) == ("installed", "diffusers")
    assert done.sha256 == hashlib.sha256(done.path.read_bytes()).hexdigest()
    assert shelf.install(ink, dialect="diffusers").status == "present"
    assert shelf.files() == {"ink.safetensors", "ink.json"}


def test_a_file_that_is_in_the_wanted_dialect_is_not_rewritten(shelf, ink):
    assert shelf.install(ink, dialect="kohya").sha256 == hashlib.sha256(ink.read_bytes()).hexdigest()


def test_a_converted_file_cannot_be_a_link(shelf, ink):
    with pytest.raises(UsageProblem):
        shelf.install(ink, dialect="diffusers", way="sym")
    assert shelf.files() == set()


def test_a_dry_run_tells_the_plan_and_writes_nothing(shelf, ink):
    plan = shelf.install(ink, name="mine", dry_run=True)
    assert (plan.status, plan.path) == ("planned", shelf.folder / "mine.safetensors")
    assert shelf.files() == set()


def test_a_dry_run_leaves_no_trace_of_a_new_folder_even_with_a_conversion(tmp_path, ink):
    shelf = Shelf(tmp_path / "new")
    shelf.folder.rmdir()
    plan = shelf.install(ink, dialect="diffusers", dry_run=True)
    assert (plan.dialect, plan.status) == ("diffusers", "planned")
    assert not shelf.folder.exists()
    with Index(shelf.index_path) as index:
        assert index.folders() == []


def test_a_sidecar_that_belongs_to_somebody_else_is_noted(shelf, ink):
    (shelf.folder / "ink.json").write_text("somebody's notes")
    done = shelf.install(ink)
    assert (done.status, done.sidecars) == ("installed", ())
    assert any("ink.json" in note for note in done.notes)


def test_a_kind_of_warning_is_noted_once(shelf, tmp_path):
    path = tmp_path / "zero.safetensors"
    path.write_bytes(small_lora(value=0.0))
    notes = shelf.install(path).notes
    assert len(notes) == len({note.split(" (")[0] for note in notes})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (small_lora()[:-100], TruncatedFile),
        (small_lora()[:50], TruncatedFile),
        (b"", TruncatedFile),
        (small_lora(value=float("nan")), BadHeader),
        (b"\x80\x02}q\x00.", UnsafePickle),
    ],
)
def test_a_bad_file_leaves_nothing_behind(shelf, tmp_path, body, error):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(body)
    with pytest.raises(error):
        shelf.install(path)
    assert shelf.files() == set()
    assert shelf.scan() == []


def test_a_checkpoint_is_no_lora_unless_forced(shelf, tmp_path):
    header = b'{"model.diffusion_model.input_blocks.0.0.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(NotAnAdapter, match="checkpoint"):
        shelf.install(path)
    assert shelf.install(path, force=True).status == "installed"


def test_what_is_no_file_is_refused(shelf, tmp_path):
    with pytest.raises(FileMissing):
        shelf.install(tmp_path / "absent.safetensors")
    with pytest.raises(NotRegularFile):
        shelf.install(tmp_path)


def test_a_planted_link_is_not_followed(shelf, ink, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (shelf.folder / "ink.safetensors").symlink_to(victim)
    assert shelf.install(ink).path.name.startswith("ink_")
    assert victim.read_text() == "precious"


def test_a_linked_lora_folder_works(tmp_path, ink):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "ui" / "models").mkdir(parents=True)
    (tmp_path / "ui" / "models" / "Lora").symlink_to(tmp_path / "big-disk")
    shelf = Shelf(tmp_path / "ui")
    shelf.install(ink)
    assert (tmp_path / "big-disk" / "ink.safetensors").is_file()


def test_a_folder_that_cannot_be_made_is_named_in_one_sentence(tmp_path, ink):
    shelf = Shelf(tmp_path)
    shelf.folder.rmdir()
    shelf.folder.write_text("a file in the way")
    with pytest.raises(StorageProblem, match="Lora"):
        shelf.install(ink)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_in_one_sentence(shelf, ink):
    shelf.folder.chmod(0o555)
    try:
        with pytest.raises(StorageProblem, match="ermission"):
            shelf.install(ink)
    finally:
        shelf.folder.chmod(0o755)
    assert shelf.files() == set()


def test_what_a_killed_process_left_is_removed_when_it_is_old(shelf, ink):
    old, new = shelf.folder / ".hubtool-0123456789ab.tmp", shelf.folder / ".hubtool-ba9876543210.tmp"
    new.write_bytes(b"of somebody who is at work")
    old.write_bytes(b"left")
    shelf.install(ink)
    assert new.exists()
    assert old.exists()  # its change time is now, whatever its modification time says
