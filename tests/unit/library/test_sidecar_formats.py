"""Every program's sidecar: the fields that its reader asks for, and nothing lost in a round trip."""

import json
from dataclasses import replace
from datetime import datetime

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


def test_the_address_that_we_put_into_a1111s_notes_is_not_taken_for_the_users_word(card):
    written("a1111", replace(card, own=Own()))
    own, _ = read_sidecars(card.model)
    assert own == Own(trigger_words=("ink",))
    written("a1111", card)
    assert json.loads(all_sidecars()["a1111"].path(card.model).read_text())["notes"] == "https://h/10"


# ------------------------------------------------------------ what each program's own reader makes of our files


def forges_card(table, stem):
    """extensions-builtin/sd_forge_lora/ui_extra_networks_lora.py, create_item: what a click puts into the prompts."""
    weight = table.get("preferred weight", 0.0)
    words = table.get("activation text")
    tag = f"<lora:{stem}:{weight or 'default'}>"
    return f"{tag} {words}" if words else tag, table.get("negative text", ""), table.get("sd version")


def invokeais_phrases(table):
    """invokeai/backend/model_manager/metadata/lora_metadata_extractor.py: trigger phrases of an import."""
    return {phrase.strip() for phrase in table.get("activation text", "").split(",") if phrase.strip()}


def swarmuis_card(folder, stem):
    """src/Text2Image/T2IModelHandler.cs, LoadMetadata: all files fill one header, but names and words come from the first."""
    header, name, words = {}, None, []
    there = [folder / (stem + end) for end in (".swarm.json", ".json", ".cm-info.json", ".civitai.info")]
    tables = [json.loads(path.read_text("utf-8")) for path in there if path.exists()]
    for table in tables:
        header |= table
    for table in tables[:1]:
        names = [table["model"]["name"]] if isinstance(table.get("model"), dict) else []
        name = next(iter([*names, *(table[key] for key in ("UserTitle", "ModelName", "name") if table.get(key))]), None)
        words = [word for key in ("TrainedWords", "trainedWords") for word in table.get(key) or []]
        words += [table["activation text"]] if table.get("activation text") else []
    title = header.get("modelspec.title") or header.get("title") or name or stem
    return title, header.get("modelspec.trigger_phrase") or header.get("trigger_phrase") or ", ".join(words)


STRICT = {  # StabilityMatrix.Core/Models/ConnectedModelInfo.cs: System.Text.Json takes no text for a number
    "ModelId": int,
    "ModelName": str,
    "ModelDescription": str,
    "Nsfw": bool,
    "Tags": list,
    "ModelType": str,
    "VersionId": int,
    "VersionName": str,
    "VersionDescription": str,
    "AuthorUsername": str,
    "BaseModel": str,
    "RemoteFileName": str,
    "RemoteFileId": int,
    "FileMetadata": dict,
    "ImportedAt": str,
    "Hashes": dict,
    "TrainedWords": list,
    "Source": str,
}
LORA_MANAGER = {  # py/utils/models.py, BaseModelMetadata: fields without a default must be there
    "file_name": str,
    "model_name": str,
    "file_path": str,
    "size": int,
    "modified": float,
    "sha256": str,
    "base_model": str,
    "preview_url": str,
}


def test_forge_puts_our_words_and_strength_into_its_prompts(card):
    said = replace(card, own=Own(preferred_weight=0.8, negative="blurry", trigger_words=("a", "b")))
    assert forges_card(written("a1111", said), "x") == ("<lora:x:0.8> a, b", "blurry", "SDXL")
    assert forges_card(all_sidecars()["a1111"].fields(Card()), "x") == ("<lora:x:default>", "", "Unknown")


def test_invokeai_imports_single_phrases(card):
    assert invokeais_phrases(written("a1111", replace(card, trigger_words=("a b", "c")))) == {"a b", "c"}


@pytest.mark.parametrize(
    "ids", [["swarm"], ["a1111"], ["stability_matrix"], ["civitai_info"], ["swarm", "a1111", "sdnext"]]
)
def test_swarmui_finds_name_and_words_in_any_of_ours(card, ids):
    for id in ids:
        written(id, card)
    title, words = swarmuis_card(card.model.parent, card.model.stem)
    assert title in {"Ink", "Ink v2", card.model.stem}
    assert words == "ink"


def test_stability_matrix_gets_the_types_that_it_insists_on(card):
    found = written("stability_matrix", card)
    assert {key: type(value) for key, value in found.items()} == {key: STRICT[key] for key in found}
    assert datetime.fromisoformat(found["ImportedAt"]).utcoffset() is not None


def test_lora_manager_gets_the_fields_that_it_insists_on(card):
    found = written("lora_manager", card)
    assert {key: type(found[key]) for key in LORA_MANAGER} == LORA_MANAGER


def test_sdnext_finds_words_and_base_by_the_files_name(card):
    """modules/ui_extra_networks_lora.py looks for the version whose files have the model's name, else takes the first."""
    version = written("sdnext", card)["modelVersions"][0]
    assert (version["trainedWords"], version["baseModel"]) == (["ink"], "Pony")


# ------------------------------------------------------------ what the programs wrote comes through us whole

THEIRS = {
    "a1111": {"description": "d", "sd version": "SDXL", "activation text": "a || b", "preferred weight": 0.65,
              "negative text": "n", "notes": "my notes", "extensions": {"sd_civitai_helper": {"version": "1"}}},
    "lora_manager": {"file_name": "x", "model_name": "X", "file_path": "/x", "size": 1, "modified": 1.5, "sha256": "ab",
                     "base_model": "Pony", "preview_url": "", "preview_nsfw_level": 4, "notes": "my notes", "tags": ["t"],
                     "civitai": {"id": 20, "customImages": [{"id": "q"}]}, "favorite": True, "autov3": None,
                     "usage_tips": '{"strength_min": 0.2, "strength": 0.65}', "exclude": True, "future": {"x": [1]}},
    "stability_matrix": {"ModelId": 10, "VersionId": 20, "UserTitle": "T", "InferenceDefaults": {"Steps": 3}, "Stats": {"a": 1}},
    "swarm": {"modelspec.title": "T", "modelspec.lora_default_weight": "0.65", "modelspec.lora_default_confinement": "3"},
    "civitai_info": {"id": 20, "modelId": 10, "name": "old", "extensions": {"sd_civitai_helper": {"version": "1"}}},
    "sdnext": {"id": 10, "modelVersions": [{"id": 20, "x": 1}], "tags": ["t"]},
    "hubtool": {"tags": ["t"], "preferred_weight": 0.65, "future": 1},
}  # fmt: skip


@pytest.mark.parametrize("id", sorted(THEIRS))
def test_nothing_that_a_program_wrote_is_lost_when_we_complete_its_file(card, id):
    path = all_sidecars()[id].path(card.model)
    path.write_text(json.dumps(THEIRS[id]))
    found = written(id, card)
    for key, value in THEIRS[id].items():
        inside = isinstance(value, dict) and isinstance(found[key], dict)
        kept = {k: found[key][k] for k in value} if inside else found[key]
        assert kept == value or key in all_sidecars()[id].placed or value in (None, "", [], {})


@pytest.mark.parametrize(("id", "weight"), [(id, 0.65) for id in ("a1111", "lora_manager", "swarm", "hubtool")])
def test_a_strength_that_a_program_stored_is_the_users(card, id, weight):
    all_sidecars()[id].path(card.model).write_text(json.dumps(THEIRS[id]))
    assert read_sidecars(card.model)[0].preferred_weight == weight
