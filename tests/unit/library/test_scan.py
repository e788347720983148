"""The index follows what people do in the folders by hand."""

import json
import os
import shutil
import sys
import time

import pytest
from unit.library.small_lora import Shelf, small_lora, write_lora

from hubtool.library.index import Index
from hubtool.library.listing import Question, listing
from hubtool.library.litter import STALE_S, is_litter, stale
from hubtool.library.record import Folder
from hubtool.library.scan import Report, same_names, scan_folder
from hubtool.library.searching import search


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def test_a_file_put_there_by_hand_is_described_from_its_header(shelf):
    write_lora(shelf.folder / "sub" / "ink.safetensors", metadata={"ss_output_name": "inky", "modelspec.title": "Ink"})
    (found,) = shelf.scan()
    assert (found.name, found.facts.architecture, found.facts.dialect) == ("ink", "sd1", "kohya")
    assert (found.facts.alias, found.facts.title, found.digests.sha256) == ("inky", "Ink", "")


def test_an_unchanged_folder_is_not_read_again(shelf):
    write_lora(shelf.folder / "ink.safetensors")
    shelf.scan()
    shelf.scan()
    assert (shelf.report.added, shelf.report.changed, shelf.report.removed) == ([], [], [])


def test_removed_files_disappear_and_come_back_with_what_was_known(shelf, tmp_path):
    path = write_lora(shelf.folder / "ink.safetensors")
    shelf.install(path)
    shelf.scan()
    away = tmp_path / "unmounted"
    shutil.move(path, away)
    assert shelf.scan() == []
    assert shelf.report.removed == [str(path)]
    shutil.move(away, path)
    (back,) = shelf.scan()
    assert back.digests.sha256  # kept, not computed again


def test_a_renamed_file_keeps_its_hashes(shelf):
    path = write_lora(shelf.folder / "ink.safetensors")
    shelf.install(path)
    shelf.scan()
    path.rename(shelf.folder / "oil.safetensors")
    (moved,) = shelf.scan()
    assert moved.name == "oil"
    assert moved.digests.sha256
    with Index(shelf.index_path) as index:
        assert [one.name for one in search(index, "oil")] == ["oil"]


def test_other_bytes_under_the_old_name_lose_hashes_and_origin(shelf):
    path = write_lora(shelf.folder / "ink.safetensors")
    (shelf.folder / "ink.civitai.info").write_text(json.dumps({"id": 5, "modelId": 4, "baseModel": "Pony"}))
    assert shelf.scan()[0].base_model == "Pony"
    (shelf.folder / "ink.civitai.info").unlink()
    path.write_bytes(small_lora(99) + b"")
    os.utime(path, ns=(1, 1))
    (found,) = shelf.scan()
    assert found.digests.sha256 == ""
    assert found.origin is None


def test_what_people_type_into_the_ui_is_seen_at_the_next_scan(shelf):
    write_lora(shelf.folder / "ink.safetensors")
    shelf.scan()
    sidecar = shelf.folder / "ink.json"
    sidecar.write_text(json.dumps({"activation text": "ink, brush", "preferred weight": 0.8, "notes": "nice"}))
    (found,) = shelf.scan()
    assert found.trigger_words == ("ink", "brush")
    assert (found.own.preferred_weight, found.own.notes) == (0.8, "nice")
    sidecar.unlink()
    assert shelf.scan()[0].own.preferred_weight is None


def test_the_hubs_sidecar_tells_the_base_model_and_words(shelf):
    write_lora(shelf.folder / "ink.safetensors")
    info = {
        "id": 7,
        "modelId": 6,
        "baseModel": "Illustrious",
        "trainedWords": [" ink ", "<lora:ink:1>"],
        "model": {"name": "Ink"},
    }
    (shelf.folder / "ink.civitai.info").write_text(json.dumps(info))
    (found,) = shelf.scan()
    assert (found.base_model, found.trigger_words) == ("Illustrious", ("ink",))
    assert (found.origin.model_id, found.origin.version_id) == ("6", "7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"preferred weight": "high", "activation text": 3}',
        "\ufeff{}",
        "[" * 10_000,
        r'{"notes": "\ud800", "activation text": "\udfff", "id": 1, "name": "\ud800"}',
    ],
)
def test_a_strange_sidecar_does_no_harm(shelf, text):
    write_lora(shelf.folder / "ink.safetensors")
    for suffix in (".json", ".civitai.info"):
        (shelf.folder / f"ink{suffix}").write_text(text, "utf-8")
    assert [found.name for found in shelf.scan()] == ["ink"]


def test_broken_files_and_pickles_are_listed_with_their_problem(shelf):
    (shelf.folder / "cut.safetensors").write_bytes(small_lora()[:5000])
    (shelf.folder / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    problems = {found.name: found.facts.problem for found in shelf.scan()}
    assert "cut" in problems["cut"]
    assert "pickle" in problems["old"]


def test_hidden_and_unfinished_files_are_not_listed(shelf):
    for name in (".hidden.safetensors", "x.safetensors.part", ".hubtool/y.safetensors", "z.tmp"):
        write_lora(shelf.folder / name)
    assert shelf.scan() == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges there")
def test_links_are_followed_and_circles_end(shelf, tmp_path):
    write_lora(tmp_path / "elsewhere" / "ink.safetensors")
    (shelf.folder / "more").symlink_to(tmp_path / "elsewhere")
    (shelf.folder / "circle").symlink_to(shelf.folder)
    (shelf.folder / "loop.safetensors").symlink_to(shelf.folder / "loop.safetensors")
    assert [found.path.name for found in shelf.scan()] == ["ink.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges there")
def test_a_folder_goes_before_a_link_to_it(shelf):
    path = write_lora(shelf.folder / "real" / "ink.safetensors")
    for name in ("aaa", "zzz"):
        (shelf.folder / name).symlink_to("real")
    assert [found.path for found in shelf.scan()] == [path]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere names are Unicode")
def test_a_name_that_is_no_text_is_reported_and_skipped(shelf):
    write_lora(shelf.folder / "fine.safetensors")
    (shelf.folder / os.fsdecode(b"caf\xe9.safetensors")).write_bytes(b"")
    assert [found.name for found in shelf.scan()] == ["fine"]
    assert len(shelf.report.unreadable) == 1


def test_names_of_all_scripts_are_kept_as_they_are(shelf):
    names = {"水墨 画.safetensors", "emoji 🎨 style.safetensors", "Ünïcødé.safetensors", "a'b\"c;--.safetensors"}
    for number, name in enumerate(names):
        write_lora(shelf.folder / name, number)
    assert {found.path.name for found in shelf.scan()} == names


# ---------------------------------------------------------------- a glance


def glanced(shelf, **question):
    with Index(shelf.index_path) as index:
        with index.writing():
            folder = index.remember(Folder(shelf.folder, "a1111"))
        for each in [folder] if not same_names(index, folder) else []:
            scan_folder(index, each, Report())
        return {row.name: row for row in listing(index, Question(**question))}


def settle(folder):
    """As if nothing had happened for an hour."""
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        os.utime(path, (1e9, 1e9))


@pytest.fixture
def settled_shelf(tmp_path):
    shelf = Shelf(tmp_path)
    write_lora(shelf.folder / "sub" / "ink.safetensors", 1)
    settle(shelf.folder)
    shelf.scan()
    return shelf


def test_a_glance_reads_no_folder_in_which_names_are_as_they_were(settled_shelf):
    with Index(settled_shelf.index_path) as index:
        assert same_names(index, Folder(settled_shelf.folder, "a1111"))
    write_lora(settled_shelf.folder / "sub" / "new.safetensors", 2)
    with Index(settled_shelf.index_path) as index:
        assert not same_names(index, Folder(settled_shelf.folder, "a1111"))
    assert set(glanced(settled_shelf)) == {"ink", "new"}


def test_a_folder_that_has_just_changed_is_not_believed(tmp_path):
    shelf = Shelf(tmp_path)
    write_lora(shelf.folder / "ink.safetensors", 1)
    shelf.scan()
    with Index(shelf.index_path) as index:
        assert not same_names(index, Folder(shelf.folder, "a1111"))


def test_what_is_shown_is_looked_at_first(settled_shelf):
    (settled_shelf.folder / "sub" / "ink.json").write_text('{"notes": "first"}')
    settle(settled_shelf.folder)
    settled_shelf.scan()
    (settled_shelf.folder / "sub" / "ink.json").write_text('{"notes": "second one"}')
    settle(settled_shelf.folder)
    assert glanced(settled_shelf)["ink"].notes == "second one"


def test_what_is_gone_is_not_shown(settled_shelf):
    (settled_shelf.folder / "sub" / "ink.safetensors").unlink()
    settle(settled_shelf.folder)
    assert glanced(settled_shelf, words="ink") == {}


def test_what_a_killed_process_left_is_removed_when_it_is_old(settled_shelf):
    fresh = settled_shelf.folder / "sub" / ".hubtool-0123456789ab.tmp"
    fresh.write_bytes(b"x")
    settled_shelf.scan()
    assert fresh.exists()
    assert is_litter(fresh.name)
    assert list(stale(fresh.parent, now=time.time() + 2 * STALE_S)) == [fresh]
