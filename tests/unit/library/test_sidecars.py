"""Sidecars are filled, never overwritten."""

import json

import pytest

from hubtool.errors import NetworkFailure, UsageProblem
from hubtool.library.history import changes_of, keep
from hubtool.library.record import Origin
from hubtool.library.sidecar import Card, all_sidecars, choose_sidecars, fill, merge
from hubtool.library.sidecars.preview import existing_preview, fetch_preview, picture_extension, write_preview
from hubtool.library.target import target_named

PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
JPEG = b"\xff\xd8\xff\xe0" + bytes(30)
CARD = Card(
    "sdxl", ("ink", "brush"), "A style.", Origin("civitai", "1", "2", url="https://x/1", snapshot={"id": 2, "a": 1})
)


@pytest.fixture
def model(tmp_path):
    return tmp_path / "ink style.v2.safetensors"


def test_a1111_gets_its_six_keys_with_its_own_types(model):
    fields = all_sidecars()["a1111"].fields(CARD)
    assert fields == {
        "description": "A style.",
        "sd version": "SDXL",
        "activation text": "ink, brush",
        "preferred weight": 0.0,
        "negative text": "",
        "notes": "https://x/1",
    }
    assert all_sidecars()["a1111"].path(model).name == "ink style.v2.json"


def test_an_unknown_architecture_is_unknown_to_the_ui_too():
    assert all_sidecars()["a1111"].fields(Card())["sd version"] == "Unknown"


def test_the_hubs_answer_is_kept_whole():
    assert all_sidecars()["civitai_info"].fields(CARD) == {"id": 2, "a": 1}
    assert all_sidecars()["civitai_info"].fields(Card()) == {}


def test_what_is_there_stays_and_what_is_empty_is_filled(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"notes": "mine", "activation text": "", "theirs": {"deep": [1]}, "flag": False}))
    assert fill(path, {"notes": "no", "activation text": "ink", "flag": True, "new": 1})
    assert json.loads(path.read_text()) == {
        "notes": "mine",
        "activation text": "ink",
        "theirs": {"deep": [1]},
        "flag": False,
        "new": 1,
    }


def test_a_complete_sidecar_is_not_even_touched(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"notes":    "mine"}')
    before = path.stat().st_mtime_ns
    assert fill(path, {"notes": "other"})
    assert (path.read_text(), path.stat().st_mtime_ns) == ('{"notes":    "mine"}', before)


def test_half_a_character_survives_as_it_was_written(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"notes": "\\ud800"}')
    assert fill(path, {"new": 1})
    assert json.loads(path.read_text()) == {"notes": "\ud800", "new": 1}


@pytest.mark.parametrize("text", ["not json", "[1, 2]", ""])
def test_somebody_elses_file_is_left_alone(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert not fill(path, {"notes": "x"})
    assert path.read_text() == text


def test_a_hub_sidecar_of_another_version_is_replaced(tmp_path):
    path = tmp_path / "x.civitai.info"
    path.write_text('{"id": 1, "name": "old"}')
    assert fill(path, {"id": 2}, "id")
    assert json.loads(path.read_text()) == {"id": 2}


def test_the_file_is_readable_by_people(tmp_path):
    fill(tmp_path / "x.json", {"notes": "水墨"})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n    "notes": "水墨"\n}'


def test_merging_keeps_the_order_of_the_first():
    assert list(merge({"b": 1, "a": ""}, {"a": "x", "c": 2, "b": 3})) == ["b", "a", "c"]


def test_sidecars_are_chosen_by_name_or_not_at_all():
    assert [one.id for one in choose_sidecars("civitai-info, A1111", ())] == ["civitai_info", "a1111"]
    assert choose_sidecars("none", ("a1111",)) == ()
    assert [one.id for one in choose_sidecars(None, ("a1111",))] == ["a1111"]
    with pytest.raises(UsageProblem, match="civitai_info"):
        choose_sidecars("nonsense", ())


@pytest.mark.parametrize(
    ("body", "extension"),
    [
        (PNG, ".png"),
        (JPEG, ".jpg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", ".webp"),
        (b"GIF89a..", ".gif"),
        (b"\0\0\0\x20ftypmp42", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_bytes_decide_what_a_picture_is(body, extension):
    assert picture_extension(body) == extension


def test_the_first_picture_that_can_be_had_is_taken(model):
    asked = []

    def fetch(url, limit):
        asked.append(url)
        if url == "gone":
            raise NetworkFailure("gone")
        return {"video": b"\0\0\0\x20ftypmp42", "good": JPEG}[url]

    assert fetch_preview(model, ["gone", "video", "good", "never"], fetch).name == "ink style.v2.preview.jpg"
    assert asked == ["gone", "video", "good"]


def test_a_picture_that_the_ui_shows_goes_before_one_that_it_does_not(model):
    bodies = {"webp": b"RIFF\0\0\0\0WEBPVP8 ", "png": PNG, "video": b"\0\0\0\x20ftypmp42"}
    swarm = target_named("swarmui").pictures
    found = fetch_preview(model, ["video", "webp", "png"], lambda url, _: bodies[url], shown=swarm)
    assert found.suffix == ".png"
    found.unlink()
    assert fetch_preview(model, ["webp"], lambda url, _: bodies[url], shown=swarm).suffix == ".webp"
    assert fetch_preview(model, ["video"], lambda url, _: bodies[url], shown=swarm) is None


def test_no_picture_is_no_failure(model):
    def fetch(url, limit):
        raise NetworkFailure("offline")

    assert fetch_preview(model, ["a", "b", "c", "d"], fetch) is None
    assert fetch_preview(model, [], fetch) is None


def test_a_picture_that_is_there_is_found_with_and_without_infix(model):
    assert existing_preview(model) is None
    write_preview(model, PNG)
    assert existing_preview(model).name == "ink style.v2.preview.png"
    model.with_suffix(".jpeg").write_bytes(JPEG)
    assert existing_preview(model) is not None


def test_objects_within_are_completed_unless_they_are_about_something_else():
    there = {"civitai": {"id": 1, "name": "", "mine": 2}, "other": {"id": 1, "x": 1}}
    new = {"civitai": {"id": 1, "name": "v2", "files": [3]}, "other": {"id": 2, "y": 1}}
    assert merge(there, new) == {
        "civitai": {"id": 1, "name": "v2", "mine": 2, "files": [3]},
        "other": {"id": 1, "x": 1},
    }


def test_a_record_that_is_replaced_is_kept_whole_in_the_history(model):
    path = all_sidecars()["lora_manager"].path(model)
    old = {"sha256": "aa", "file_path": "/x", "notes": "mine", "usage_tips": '{"strength": 1}', "tags": []}
    path.write_text(json.dumps(old))
    assert fill(path, {"sha256": "bb", "file_path": "/y"}, "sha256", ("file_path",))
    (change,) = changes_of(model)
    assert (change.sidecar, change.was) == (path.name, {k: old[k] for k in ("sha256", "notes", "usage_tips")})


def test_what_is_only_completed_leaves_no_history(model):
    path = all_sidecars()["lora_manager"].path(model)
    path.write_text(json.dumps({"file_path": "/old", "civitai": {"id": 1}, "notes": ""}))
    assert fill(path, {"file_path": "/new", "civitai": {"id": 1, "x": 2}, "notes": "n"}, placed=("file_path",))
    assert changes_of(model) == []


def test_a_history_that_was_cut_off_goes_on(model):
    path = model.with_name(f"{model.stem}.hubtool-history.jsonl")
    path.write_text('{"when": "x", "sidecar": "a.json", "was": {"notes": "1"}}\n{"when": "x", "sid')
    keep(model.with_name("a.json"), model.stem, {"notes": "\ud800"})
    assert [change.was["notes"] for change in changes_of(model)] == ["1", "\ud800"]
    for text in ("[1]", "null", '{"was": 3}', "{" * 5000):
        path.write_text(text)
        assert changes_of(model) == []


@pytest.mark.parametrize(
    ("there", "ours"), [("AB", "ab"), ("", "ab"), ("ab", ""), (None, "ab"), ("20", 20), ([], "ab")]
)
def test_an_identity_that_is_unknown_or_only_spelt_differently_is_no_other(tmp_path, there, ours):
    path = tmp_path / "x.metadata.json"
    path.write_text(json.dumps({"sha256": there, "notes": "mine"}))
    assert fill(path, {"sha256": ours, "new": 1}, "sha256")
    assert json.loads(path.read_text())["notes"] == "mine"
