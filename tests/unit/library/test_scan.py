"""The index follows what people do in the folders by hand."""

import json
import os
import shutil
import sys

import pytest
from unit.library.small_lora import Shelf, small_lora, write_lora

from hubtool.library.index import Index
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
