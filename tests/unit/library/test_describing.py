"""Who says what of a file, and sidecars that complete each other."""

import json

import pytest
from unit.library.small_lora import write_lora

from hubtool.library.describing import import_sidecars, layers_of, sync_sidecars, write_sidecars
from hubtool.library.marking import mark
from hubtool.library.scan import fresh_index
from hubtool.library.sidecar import all_sidecars
from hubtool.settings import Directories, Settings

VERSION = {
    "id": 7,
    "modelId": 3,
    "name": "v1",
    "baseModel": "Pony",
    "trainedWords": ["hub word"],
    "model": {"name": "Ink", "tags": ["style"]},
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models" / "Lora"
    write_lora(folder / "ink.safetensors", 1, {"modelspec.trigger_phrase": "header word"})
    (folder / "ink.civitai.info").write_text(json.dumps(VERSION))
    return folder


@pytest.fixture
def index(tmp_path, folder):
    home = tmp_path / "home"
    with fresh_index(Settings(Directories(home, home, home), library=tmp_path), print) as index:
        yield index


def ink(index):
    return index.adapters()[0]


def test_the_hub_goes_before_the_header_and_the_user_before_both(index):
    assert layers_of(ink(index)).in_force["trigger_words"] == {"value": ("hub word",), "from": "hub"}
    mark(index, ink(index), lambda _: {"trigger_words": ("mine",)})
    found = layers_of(ink(index))
    assert found.in_force["trigger_words"] == {"value": ("mine",), "from": "user"}
    assert found.in_force["base_model"] == {"value": "Pony", "from": "hub"}
    assert set(found.sidecars) == {"civitai_info", "hubtool", "a1111"}
    assert (found.header["trigger_words"], found.hub["trigger_words"]) == (("header word",), ("hub word",))


def test_any_format_is_written_from_what_is_known(index, folder):
    done = write_sidecars(
        index, ink(index), [all_sidecars()[id] for id in ("stability_matrix", "lora_manager", "sdnext")]
    )
    assert {path.name for path in done} == {"ink.cm-info.json", "ink.metadata.json", "ink.json"}
    assert json.loads((folder / "ink.cm-info.json").read_text())["ModelName"] == "Ink"
    assert json.loads((folder / "ink.metadata.json").read_text())["civitai"]["id"] == 7


def test_what_another_program_knows_is_taken_over(index, folder):
    table = {"favorite": True, "notes": "from LoRA Manager", "usage_tips": json.dumps({"strength": 0.6})}
    (folder / "ink.metadata.json").write_text(json.dumps(table))
    own = import_sidecars(index, ink(index))
    assert (own.favourite, own.notes, own.preferred_weight) == (True, "from LoRA Manager", 0.6)
    assert json.loads((folder / "ink.hubtool.json").read_text())["favourite"] is True
    assert ink(index).own == own


def test_sync_completes_and_changes_nothing(index, folder):
    (folder / "ink.swarm.json").write_text(json.dumps({"modelspec.title": "My title"}))
    sync_sidecars(index, ink(index))
    found = json.loads((folder / "ink.swarm.json").read_text())
    assert (found["modelspec.title"], found["modelspec.trigger_phrase"]) == ("My title", "hub word")
    assert not (folder / "ink.metadata.json").exists()


def test_a_hash_that_nobody_computed_yet_is_computed_for_those_who_know_files_by_it(index, folder):
    write_sidecars(index, ink(index), [all_sidecars()["lora_manager"]])
    found = json.loads((folder / "ink.metadata.json").read_text())
    assert (len(found["sha256"]), found["hash_status"]) == (64, "completed")


def test_sync_puts_the_hubs_answer_into_no_file_of_a1111(index, folder):
    (folder / "ink.json").write_text(json.dumps({"notes": "mine"}))
    sync_sidecars(index, ink(index))
    assert "modelVersions" not in json.loads((folder / "ink.json").read_text())
    (folder / "ink.json").write_text(json.dumps({"notes": "mine", "modelVersions": []}))
    sync_sidecars(index, ink(index))
    assert json.loads((folder / "ink.json").read_text())["modelVersions"][0]["id"] == 7


def test_words_that_were_copied_for_a_ui_are_still_the_hubs(index, folder):
    write_sidecars(index, ink(index), [all_sidecars()["a1111"]])
    mark(index, ink(index), lambda _: {"tags": ("x",)})
    found = layers_of(ink(index))
    assert found.in_force["trigger_words"]["from"] == "hub"
    assert found.user == {"tags": ("x",)}
    assert json.loads((folder / "ink.hubtool.json").read_text())["trigger_words"] == []
    assert json.loads((folder / "ink.json").read_text())["activation text"] == "hub word"
