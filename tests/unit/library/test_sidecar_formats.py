"""Every program's sidecar: the fields that its reader asks for, and nothing lost in a round trip."""

import json
from dataclasses import replace

import pytest

from hubtool.library.record import Origin, Own
from hubtool.library.sidecar import Card, all_sidecars, fill, read_sidecars

SNAPSHOT = {
    "id": 20,
    "modelId": 10,
    "name": "v2",
    "baseModel": "Pony",
    "trainedWords": ["ink"],
    "model": {"name": "Ink", "type": "LORA", "nsfw": False, "tags": ["style", "ink"], "creator": {"username": "ada"}},
    "files": [{"id": 30, "name": "ink.safetensors", "hashes": {"SHA256": "AB"}, "metadata": {"fp": "fp16"}}],
}
ORIGIN = Origin("civitai", "10", "20", "30", "Ink", "v2", "ada", "Pony", ("ink",), "https://h/10", snapshot=SNAPSHOT)


@pytest.fixture
def card(tmp_path):
    model = tmp_path / "ink é.v2.safetensors"
    return Card(
        architecture="sdxl",
        trigger_words=("ink",),
        description="A style.",
        origin=ORIGIN,
        own=Own(preferred_weight=0.8, notes="mine"),
        model=model,
        picture=model.with_name("ink é.v2.preview.png"),
        sha256="ab",
        size_bytes=123,
    )


def written(id, card):
    sidecar = all_sidecars()[id]
    path = sidecar.path(card.model)
    assert fill(path, sidecar.fields(card), sidecar.identity, sidecar.placed)
    return json.loads(path.read_text("utf-8"))


def test_stability_matrix_gets_whole_numbers_and_no_nulls(card):
    found = written("stability_matrix", card)
    assert (found["ModelId"], found["VersionId"], found["RemoteFileId"]) == (10, 20, 30)
    assert found["Hashes"] == {"SHA256": "AB"}
    assert (found["Source"], found["Tags"], found["TrainedWords"]) == ("Civitai", ["style", "ink"], ["ink"])
    assert None not in found.values()
    assert {"ModelName", "ModelDescription", "Nsfw", "ModelType", "VersionName", "ImportedAt", "BaseModel"} <= set(
        found
    )


def test_stability_matrix_gets_nothing_of_a_hub_without_numbers(card):

    other = replace(card, origin=Origin("huggingface", "ada/ink", "main"))
    assert all_sidecars()["stability_matrix"].fields(other) == {}


def test_lora_manager_gets_the_path_with_slashes_and_tips_as_text(card):
    found = written("lora_manager", card)
    assert found["file_path"] == card.model.as_posix()
    assert (found["sha256"], found["size"], found["file_name"]) == ("ab", 123, "ink é.v2")
    assert json.loads(found["usage_tips"]) == {"strength": 0.8}
    assert (found["from_civitai"], found["civitai"]["id"], found["base_model"]) == (True, 20, "Pony")


def test_a_moved_lora_manager_sidecar_says_where_the_file_is_now_and_keeps_the_rest(card):
    sidecar = all_sidecars()["lora_manager"]
    path = sidecar.path(card.model)
    path.write_text(json.dumps({"sha256": "ab", "file_path": "/old/ink.safetensors", "theirs": [1], "notes": "kept"}))
    found = written("lora_manager", card)
    assert (found["file_path"], found["theirs"], found["notes"]) == (card.model.as_posix(), [1], "kept")


def test_swarm_gets_modelspec_keys_as_text(card):
    found = written("swarm", card)
    assert found["modelspec.title"] == "Ink v2"
    assert found["modelspec.lora_default_weight"] == "0.8"
    assert found["modelspec.trigger_phrase"] == "ink"
    assert all(isinstance(value, str) for value in found.values())


def test_sdnext_finds_the_version_inside_the_model_beside_a1111s_keys(card):
    written("a1111", card)
    found = written("sdnext", card)
    assert (found["id"], found["activation text"]) == (10, "ink")
    assert found["modelVersions"][0]["trainedWords"] == ["ink"]
    assert found["modelVersions"][0]["files"][0]["name"] == "ink.safetensors"


@pytest.mark.parametrize("id", ["civitai_info", "lora_manager", "sdnext", "stability_matrix"])
def test_what_the_hub_said_comes_back_from_each_alone(card, id):
    written(id, card)
    _, origin = read_sidecars(card.model)
    assert origin is not None
    assert (origin.model_id, origin.version_id, origin.creator) == ("10", "20", "ada")
    assert (origin.base_model, origin.trigger_words, origin.model_name) == ("Pony", ("ink",), "Ink")


@pytest.mark.parametrize("id", ["lora_manager", "swarm"])
def test_what_the_user_said_comes_back_from_each_alone(card, id):
    written(id, card)
    own, _ = read_sidecars(card.model)
    assert (own.preferred_weight, own.notes) == (0.8, "mine")


def test_a_poorer_record_never_replaces_a_richer_one(card):
    written("civitai_info", card)
    path = all_sidecars()["stability_matrix"].path(card.model)
    path.write_text(json.dumps({"ModelId": 10, "VersionId": 20, "RemoteFileId": 30, "ModelName": "Poor"}))
    _, origin = read_sidecars(card.model)
    assert (origin.model_name, origin.file_id) == ("Ink", "30")
    assert origin.snapshot["files"]


def test_a_record_of_another_version_adds_nothing(card):
    written("civitai_info", card)
    path = all_sidecars()["stability_matrix"].path(card.model)
    path.write_text(json.dumps({"ModelId": 99, "VersionId": 98, "RemoteFileId": 97}))
    _, origin = read_sidecars(card.model)
    assert (origin.model_id, origin.file_id) == ("10", "")


@pytest.mark.parametrize("id", sorted(all_sidecars()))
@pytest.mark.parametrize(
    "text",
    [
        '{"id": [], "civitai": 3, "ModelId": "x", "modelVersions": [7], "usage_tips": "{[", "preferred weight": "NaN"}',
        '{"modelVersions": [{}], "id": 1, "creator": 4, "usage_tips": "[1]", "modelspec.lora_default_weight": [1]}',
        '{"ModelId": 1, "VersionId": 2, "TrainedWords": {"a": 1}, "modelspec.trigger_phrase": 5}',
    ],
)
def test_nonsense_in_a_sidecar_is_no_reason_to_stop(card, id, text):
    path = all_sidecars()[id].path(card.model)
    path.write_text(text)
    own, _ = read_sidecars(card.model)
    assert own.trigger_words == ()
