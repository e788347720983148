"""Every recorded answer of Civitai, replayed over a real socket, gives the right record or the right error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from contract.faulty_hub import MODEL, Fault, FaultyHub

from hubtool.errors import (
    AmbiguousSpec,
    BadAnswer,
    EarlyAccess,
    Forbidden,
    HubProblem,
    NeedsToken,
    NetworkFailure,
    NotFound,
    Offline,
    RateLimited,
    UnsafeFile,
)
from hubtool.hubs.hub import Query
from hubtool.hubs.names import url_names
from hubtool.hubs.opening import open_hub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.hubs.hub import Hub

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "civitai"
MODELS = sorted(path.name for path in RECORDED.glob("model_*.json") if "version" not in path.name)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server() -> Iterator[FaultyHub]:
    with FaultyHub() as running:
        yield running


@pytest.fixture
def hub(server: FaultyHub, tmp_path: Path) -> Hub:
    return server.open(tmp_path, timeout_s=0.2)


def body(name: str) -> dict[str, object]:
    return json.loads((RECORDED / name).read_text("utf-8"))


def serve(server: FaultyHub, path: str, value: object) -> None:
    server.answers[path] = (200, JSON, json.dumps(value).encode())


def serve_model(server: FaultyHub, name: str) -> int:
    recorded = body(name)
    serve(server, f"/api/v1/models/{recorded['id']}", recorded)
    return int(str(recorded["id"]))


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("name", MODELS)
def test_a_recorded_model_is_read_with_all_its_versions_and_files(server: FaultyHub, hub: Hub, name: str) -> None:
    recorded = body(name)
    model = hub.model(serve_model(server, name))
    versions = recorded.get("modelVersions", [])
    assert [version.id for version in model.versions] == [version["id"] for version in versions]
    for version, raw in zip(model.versions, versions, strict=True):
        assert version.model_id == recorded["id"]
        assert version.raw["model"]["name"] == model.name
        assert version.raw["files"] == raw["files"]
        assert [file.id for file in version.files] == [file["id"] for file in raw["files"]]
        for file, entry in zip(version.files, raw["files"], strict=True):
            assert file.size_bytes == entry["sizeKB"] * 1024
            assert file.sha256 == entry["hashes"].get("SHA256", "").lower() or not entry["hashes"]
            assert file.url == f"{server.api}/api/download/models/{version.id}?fileId={file.id}"
    assert model.raw == recorded


def test_a_full_record_has_every_field(server: FaultyHub, hub: Hub) -> None:
    model = hub.model(serve_model(server, "model_7984_2024_lora.json"))
    version = model.versions[0]
    file = version.files[0]
    assert (model.name, model.type, model.creator) == ("Figma Anime Figures", "LORA", "robowaifudev")
    assert (model.base_models, model.downloads, model.nsfw_level) == (("SD 1.5",), 26527, 3)
    assert model.tags[0] == "anime"
    assert model.license.allow_no_credit is True
    assert model.license.allow_different_license is False
    assert model.description.startswith("Note: I did not train these LoRA models myself. Original source: https://")
    assert "<" not in model.description
    assert (version.name, version.trigger_words, version.published_at) == (
        "figma",
        ("figma",),
        "2023-02-11T07:55:58.459",
    )
    assert (file.name, file.format, file.primary, file.size_bytes) == (
        "figma.safetensors",
        "SafeTensor",
        True,
        155130138,
    )
    assert sorted(file.hashes) == ["autov1", "autov2", "autov3", "blake3", "crc32", "sha256"]
    assert file.scan == {"pickle": "Success", "virus": "Success", "at": "2023-02-11T08:01:10.521Z"}
    assert [image.nsfw_level for image in version.images] == [1, 2]


@pytest.mark.parametrize("name", ["model_version_docs_2026.json", "version_242807_2023_sdxl_turbo_lora.json"])
def test_a_recorded_version_is_read(server: FaultyHub, hub: Hub, name: str) -> None:
    recorded = body(name)
    serve(server, f"/api/v1/model-versions/{recorded['id']}", recorded)
    version = hub.version(recorded["id"])
    assert (version.id, version.model_id, version.base_model) == (
        recorded["id"],
        recorded["modelId"],
        recorded["baseModel"],
    )
    assert version.raw == recorded


def test_words_for_levels_and_cut_hashes_are_understood(server: FaultyHub, hub: Hub) -> None:
    for name in ("version_242807_2023_sdxl_turbo_lora.json", "model_version_docs_2026.json"):
        serve(server, f"/api/v1/model-versions/{body(name)['id']}", body(name))
    assert [image.nsfw_level for image in hub.version(242807).images] == [1, 1]
    assert "blake3" not in hub.version(2514310).files[0].hashes  # the documentation cuts it short


def test_trigger_words_lose_pasted_lora_tags(server: FaultyHub, hub: Hub) -> None:
    model = hub.model(serve_model(server, "model_10966_trainedword_lora_tag.json"))
    words = [word for version in model.versions for word in version.trigger_words]
    assert not any("<lora" in word or word != word.strip() for word in words)


@pytest.mark.parametrize(
    "name",
    [
        "model_20865_archived_no_files.json",
        "model_61016_empty_versions.json",
        "model_minimal_missing_modelVersions.json",
    ],
)
def test_a_model_without_files_has_info_and_no_download(server: FaultyHub, hub: Hub, name: str) -> None:
    number = serve_model(server, name)
    assert hub.find(str(number)).model.id == number
    with pytest.raises(NotFound):
        hub.resolve(str(number))


def test_a_version_that_offers_only_pickles_is_refused(server: FaultyHub, hub: Hub) -> None:
    with pytest.raises(UnsafeFile):
        hub.resolve(str(serve_model(server, "model_1248_angle_bracket_filename.json")))


def test_files_of_one_name_are_told_apart_by_their_ids(server: FaultyHub, hub: Hub) -> None:
    number = serve_model(server, "model_63278_duplicate_file_names.json")
    version = next(each for each in hub.model(number).versions if len({f.name for f in each.files}) < len(each.files))
    for file in version.files:
        assert hub.resolve(f"{number}@{version.id}", str(file.id)).file == file


def test_a_file_without_hashes_is_read(server: FaultyHub, hub: Hub) -> None:
    model = hub.model(serve_model(server, "model_65283_no_hashes_pending_scan.json"))
    pending = [file for version in model.versions for file in version.files if not file.hashes]
    assert pending
    assert all(file.sha256 is None and file.scan["pickle"] == "Pending" for file in pending)


# ---------------------------------------------------------------- errors

ERRORS: dict[str, tuple[type[HubProblem], int]] = {  # recorded answer → error, number of requests
    "err_400_query_with_page": (HubProblem, 1),
    "err_400_zod_object": (HubProblem, 1),
    "err_401_downloads_disabled": (Forbidden, 1),
    "err_401_login_required": (NeedsToken, 1),
    "err_401_me": (NeedsToken, 1),
    "err_403_early_access": (EarlyAccess, 1),
    "err_403_no_access": (Forbidden, 1),
    "err_404_file": (NotFound, 3),  # no-store: the storage's resolver may recover
    "err_404_model": (NotFound, 1),
    "err_404_version": (NotFound, 1),
    "err_410_archived": (NotFound, 1),
    "err_429_download_quota": (RateLimited, 1),
    "err_429_paging_cap": (RateLimited, 1),
    "err_451_region": (Forbidden, 1),
    "err_503_cloudflare_html": (NetworkFailure, 6),
    "storage_400_auth_header_leaked": (HubProblem, 1),
}


def test_every_recorded_error_is_in_the_table() -> None:
    recorded = {path.stem for pattern in ("err_*", "storage_*") for path in RECORDED.glob(pattern)}
    assert recorded == {*ERRORS, "err_503_search_overloaded"}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_a_recorded_error_has_its_type_its_words_and_its_number_of_tries(
    server: FaultyHub, hub: Hub, name: str
) -> None:
    recorded = body(f"{name}.json")
    text = recorded["body"] if isinstance(recorded["body"], str) else json.dumps(recorded["body"])
    server.answers["/api/v1/models/5"] = (recorded["status"], recorded["headers"], text.encode())
    kind, tries = ERRORS[name]
    with pytest.raises(kind) as caught:
        hub.model(5)
    assert (type(caught.value), len(server.seen)) == (kind, tries)
    assert str(recorded["status"]) in str(caught.value)


def test_the_words_of_an_error_are_found_in_each_of_its_shapes(server: FaultyHub, hub: Hub) -> None:
    shapes = {
        b'{"error": "Plain"}': "Plain",
        b'{"message": "User not found"}': "User not found",
        b'{"error": "Unauthorized", "message": "Log in"}': "Unauthorized \N{EN DASH} Log in",
        json.dumps(body("err_400_zod_object.json")["body"]).encode(): "Too big: expected number to be <=100",
        b'[{"code": "too_big", "message": "Too big"}]': "Too big",
        b"<html><title>524: A timeout</title></html>": "524: A timeout",
        b"<Error><Code>X</Code><Message>Expired</Message></Error>": "Expired",
        b"\x1b[2J bell": "[2J bell",
        b"": "no reason given",
    }
    for text, words in shapes.items():
        server.answers["/api/v1/models/5"] = (400, {}, text)
        with pytest.raises(HubProblem) as caught:
            hub.model(5)
        assert words in str(caught.value)


def test_an_overloaded_search_is_asked_again_when_it_says(server: FaultyHub, tmp_path: Path) -> None:
    recorded = body("err_503_search_overloaded.json")
    fault = Fault(status=503, headers={"Retry-After": "1"}, body=json.dumps(recorded["body"]).encode())
    server.on_api.append(fault)
    assert server.open(tmp_path, timeout_s=3).model(MODEL).id == MODEL
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "text",
    [b"<html>Sign in</html>", b"[" * 100_000, b'{"id": 5', b"[]", b"null", b'{"name": "no id"}', b'{"id": "evil"}'],
    ids=["a page", "nested", "cut", "a list", "null", "no id", "no number as id"],
)
def test_what_is_no_record_is_a_bad_answer(server: FaultyHub, hub: Hub, text: bytes) -> None:
    server.answers["/api/v1/models/5"] = (200, JSON, text)
    with pytest.raises(BadAnswer):
        hub.model(5)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "text",
    [
        b'\xef\xbb\xbf{"id": 5}',
        b'{"id": 5, "score": NaN, "big": 1e999}',
        b'{"id": "5", "tags": "style", "nsfw": "no", "modelVersions": {}}',
        b'{"id": 5, "name": null, "tags": null, "stats": null, "creator": null, "modelVersions": [null, 3, {}]}',
        b'{"id": 1, "id": 5}',
    ],
    ids=["byte order mark", "NaN", "other types", "nulls", "a key twice"],
)
def test_what_can_be_borne_is_borne(server: FaultyHub, hub: Hub, text: bytes) -> None:
    server.answers["/api/v1/models/5"] = (200, JSON, text)
    assert hub.model(5).id == 5


def test_an_answer_larger_than_any_record_is_not_read_to_its_end(server: FaultyHub, hub: Hub) -> None:
    server.answers["/api/v1/models/5"] = (200, JSON, b'{"pad":"' + b"A" * (33 << 20) + b'"}')
    with pytest.raises(BadAnswer, match="32 MiB"):
        hub.model(5)


def test_offline_asks_nobody(server: FaultyHub, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(Offline):
        open_hub(replace(server.settings(tmp_path), offline=True)).model(MODEL)
    assert not server.seen


# ---------------------------------------------------------------- SPECs


def test_a_version_id_given_as_a_bare_number_is_explained(server: FaultyHub, hub: Hub) -> None:
    with pytest.raises(AmbiguousSpec) as caught:
        hub.find("2001")
    assert "v:2001" in caught.value.hint


@pytest.mark.parametrize(
    "spec",
    [
        "1001",
        "m:1001",
        "v:2001",
        "1001@2001",
        "https://civitai.com/models/1001/a-style?modelVersionId=2001",
        "https://civitai.red/models/1001",
        "{api}/models/1001",
        "{api}/api/download/models/2001?fileId=3001",
        "urn:air:sd1:lora:civitai:1001@2001+3001.safetensors",
        "sha256:{sha256}",
    ],
)
def test_each_spec_leads_to_the_one_file(server: FaultyHub, hub: Hub, spec: str) -> None:
    resolved = hub.resolve(spec.format(api=server.api, sha256=server.sha256))
    assert (resolved.model.id, resolved.version.id, resolved.file.id) == (1001, 2001, 3001)
    assert resolved.model.tags == ("style",)


def test_a_file_on_this_machine_is_looked_up_by_its_hash(server: FaultyHub, hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(server.content)
    assert hub.resolve(str(path)).file.id == 3001


def test_a_version_of_another_model_is_not_found_under_this_one(server: FaultyHub, hub: Hub) -> None:
    serve(server, "/api/v1/models/77", {"id": 77, "modelVersions": []})
    with pytest.raises(NotFound, match="belongs to model 1001"):
        hub.find("77@2001")


def test_an_id_that_no_hub_can_have_is_not_asked_for(server: FaultyHub, hub: Hub) -> None:
    for spec in ("m:0", "m:99999999999", "v:4294967296"):
        with pytest.raises(NotFound):
            hub.find(spec)
    assert not server.seen


def test_a_version_of_a_model_that_is_hidden_is_still_found(server: FaultyHub, hub: Hub) -> None:
    server.answers["/api/v1/models/1001"] = (404, JSON, b'{"error":"No model with id 1001"}')
    found = hub.find("v:2001")
    assert (found.model.id, found.model.name) == (1001, "A style")


# ---------------------------------------------------------------- search


def pages(server: FaultyHub, *answers: dict[str, object]) -> None:
    server.on_api.extend(Fault(status=200, body=json.dumps(answer).encode()) for answer in answers)


def queries(server: FaultyHub) -> list[dict[str, list[str]]]:
    return [parse_qs(seen.query) for seen in server.seen]


def test_an_empty_page_with_a_cursor_is_not_the_end(server: FaultyHub, hub: Hub) -> None:
    pages(server, body("models_query_empty_page_with_cursor.json"), {"items": [server.model_json()], "metadata": {}})
    page = hub.search(Query("Flux"))
    assert ([model.id for model in page.models], page.next_cursor) == ([1001], None)
    assert queries(server)[1]["cursor"] == ["2322156"]


def test_a_cursor_that_repeats_ends_the_search(server: FaultyHub, hub: Hub) -> None:
    server.always["api"] = Fault(status=200, body=json.dumps({"items": [], "metadata": {"nextCursor": 3}}).encode())
    assert hub.search(Query()).next_cursor is None
    assert len(server.seen) == 2


def test_a_next_page_is_taken_for_its_cursor_and_never_followed(server: FaultyHub, hub: Hub) -> None:
    pages(
        server,
        {"items": [], "metadata": {"nextPage": "http://127.0.0.1:1/api/v1/models?cursor=9&token=x"}},
        {"items": [{"id": 3}], "metadata": {}},
    )
    assert [model.id for model in hub.search(Query()).models] == [3]
    assert queries(server)[1]["cursor"] == ["9"]


def test_no_model_is_listed_twice_and_no_more_than_asked(server: FaultyHub, hub: Hub) -> None:
    pages(
        server,
        {"items": [{"id": 1}, {"id": 1}], "metadata": {"nextCursor": "a"}},
        {"items": [{"id": 1}, {"id": 2}], "metadata": {"nextCursor": "b"}},
    )
    page = hub.search(Query(limit=2))
    assert ([model.id for model in page.models], page.next_cursor) == ([1, 2], "b")
    assert [query["limit"] for query in queries(server)] == [["2"], ["1"]]


def test_lists_are_repeated_and_what_is_not_set_is_not_sent(server: FaultyHub, hub: Hub) -> None:
    pages(server, {"items": []}, {"items": []})
    hub.search(Query(types=("LORA", "DoRA"), base_models=("Pony", "SDXL 1.0")))
    hub.search(Query("x", tag="style", creator="me", sort="newest", period="Month", nsfw="all", cursor="7"))
    first, second = queries(server)
    assert first == {"limit": ["20"], "types": ["DoRA", "LORA"], "baseModels": ["Pony", "SDXL 1.0"]}
    assert {key: second[key] for key in ("query", "tag", "username", "sort", "period", "nsfw", "cursor")} == {
        "query": ["x"],
        "tag": ["style"],
        "username": ["me"],
        "sort": ["Newest"],
        "period": ["Month"],
        "nsfw": ["true"],
        "cursor": ["7"],
    }


def test_a_tag_that_the_hub_ignores_is_filtered_here(server: FaultyHub, hub: Hub) -> None:
    pages(server, {"items": [{"id": 1, "tags": ["Style"]}, {"id": 2, "tags": ["cars"]}]})
    assert [model.id for model in hub.search(Query(tag="style")).models] == [1]


@pytest.mark.parametrize(("nsfw", "ids"), [("soft", [1]), ("mature", [1, 2]), ("all", [1, 2, 3])])
def test_levels_beyond_what_was_asked_are_left_out(server: FaultyHub, hub: Hub, nsfw: str, ids: list[int]) -> None:
    pages(server, {"items": [{"id": 1, "nsfwLevel": 3}, {"id": 2, "nsfwLevel": 4}, {"id": 3, "nsfwLevel": 31}]})
    assert [model.id for model in hub.search(Query(nsfw=nsfw)).models] == ids  # type: ignore[arg-type]


def test_a_text_search_is_put_in_the_order_that_the_hub_ignores(server: FaultyHub, hub: Hub) -> None:
    pages(server, {"items": [{"id": n, "stats": {"downloadCount": n}} for n in (1, 3, 2)]})
    assert [model.id for model in hub.search(Query("x", sort="downloads")).models] == [3, 2, 1]


# ---------------------------------------------------------------- storage addresses


def test_the_recorded_storage_address_holds_a_file_name() -> None:
    location = body("redirect_307_r2.json")["headers"]["location"]
    assert url_names(location) == ["BodHor-V1.safetensors", "bodhorV1.eq23.safetensors"]
