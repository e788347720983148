"""The sample hub over real HTTP answers with the shapes, statuses and headers of Civitai and its storage."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from hubtool.hubs.sample.catalogue import MODELS, TOKEN, Offer, offers, pictures
from hubtool.hubs.sample.made import made
from hubtool.hubs.sample.server import running_sample_hub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hubtool.hubs.sample.records import Origins

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "civitai"
LOGIN = {"Authorization": f"Bearer {TOKEN}"}
FREE, EARLY, LOCKED, TWO_FILES = 2007, 2008, 2009, 2002  # versions
MISSING = 999_999


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"].startswith("application/json")
        return json.loads(self.body)


@pytest.fixture(scope="module")
def hub() -> Iterator[Origins]:
    with running_sample_hub() as origins:
        yield origins


def ask(url: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: bytes | None = None) -> Reply:
    """One request, redirects not followed."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    try:
        connection.request(method, url.removeprefix(f"http://{parts.netloc}"), body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def api(hub: Origins, path: str, **more: Any) -> Reply:
    return ask(f"{hub.api}/api/v1{path}", **more)


def stored(hub: Origins, version: int = FREE) -> str:
    """Where the storage has a version's file."""
    return ask(f"{hub.api}/api/download/models/{version}").headers["location"]


def content(version: int = FREE) -> bytes:
    return next(made(offer).body for offer in offers() if offer.version.id == version)


# ---------------------------------------------------------------- shapes


def same_kind(recorded: object, ours: object) -> bool:
    """Whether a value is of the JSON type of another; null goes with everything, for it is what is missing."""
    if recorded is None or ours is None:
        return True
    if isinstance(recorded, bool) or isinstance(ours, bool):
        return isinstance(recorded, bool) and isinstance(ours, bool)
    if isinstance(recorded, (int, float)):
        return isinstance(ours, (int, float))
    return type(recorded) is type(ours)


def differences(recorded: object, ours: object, path: str = "") -> list[str]:
    """Where two records disagree in keys (missing in ours) or in types; lists are compared by their first entries."""
    if not same_kind(recorded, ours):
        return [f"{path}: {type(recorded).__name__} became {type(ours).__name__}"]
    if isinstance(recorded, dict) and isinstance(ours, dict):
        missing = [f"{path}.{key} is missing" for key in recorded if key not in ours]
        shared = (key for key in recorded if key in ours)
        return missing + [line for key in shared for line in differences(recorded[key], ours[key], f"{path}.{key}")]
    if isinstance(recorded, list) and isinstance(ours, list) and recorded and ours:
        return differences(recorded[0], ours[0], f"{path}[0]")
    return []


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text("utf-8"))


@pytest.mark.parametrize("model", [model.id for model in MODELS])
def test_a_model_has_every_field_that_was_recorded_of_a_real_one(hub: Origins, model: int) -> None:
    # recorded in 2024; the counts are gone since, and a description that is null is left out
    gone = (".favoriteCount", ".ratingCount", ".rating", ".stats.thumbsDownCount", "].description")
    lines = differences(recorded("model_7984_2024_lora.json"), api(hub, f"/models/{model}").json)
    assert [line for line in lines if not line.removesuffix(" is missing").endswith(gone)] == []


@pytest.mark.parametrize("version", [version.id for model in MODELS for version in model.versions])
def test_a_version_has_every_field_that_is_documented(hub: Origins, version: int) -> None:
    lines = differences(recorded("model_version_docs_2026.json"), api(hub, f"/model-versions/{version}").json)
    assert [line for line in lines if "earlyAccessConfig" not in line and "AutoV1" not in line] == []


def test_a_brief_version_has_every_field_that_is_documented(hub: Origins) -> None:
    ours = api(hub, f"/model-versions/mini/{FREE}").json
    lines = differences(recorded("model_version_mini_docs_2026.json"), ours)
    assert [line for line in lines if "additionalResourceCharge" not in line] == []


def test_a_brief_version_tells_beforehand_what_is_needed(hub: Origins) -> None:
    needs = {
        version: (brief["requireAuth"], brief["checkPermission"])
        for version in (FREE, EARLY, LOCKED)
        if (brief := api(hub, f"/model-versions/mini/{version}").json)
    }
    assert needs == {FREE: (False, False), EARLY: (False, True), LOCKED: (True, False)}


def test_a_version_names_neither_creator_nor_tags(hub: Origins) -> None:
    assert not api(hub, f"/model-versions/{FREE}").json.keys() & {"creator", "tags"}


def test_only_lists_give_pictures_an_id_and_only_versions_their_meta(hub: Origins) -> None:
    keys = {}
    for place, path in (("list", "/models"), ("model", "/models/1001"), ("version", f"/model-versions/{TWO_FILES}")):
        found = api(hub, path).json
        record = found["items"][-1] if place == "list" else found
        version = record if place == "version" else record["modelVersions"][0]
        keys[place] = {"id", "meta"} & version["images"][0].keys()
    assert keys == {"list": {"id"}, "model": set(), "version": {"meta"}}


def test_the_model_leaves_out_what_is_null_in_its_versions(hub: Origins) -> None:
    versions = api(hub, "/models/1003").json["modelVersions"]
    assert all(value is not None for version in versions for value in version.values())


@pytest.mark.parametrize("offer", offers(), ids=lambda offer: offer.file.name)
def test_a_file_s_size_is_exact_and_its_hashes_are_upper_case(hub: Origins, offer: Offer) -> None:
    version = api(hub, f"/model-versions/{offer.version.id}").json
    file = next(file for file in version["files"] if file["id"] == offer.file.id)
    assert file["sizeKB"] * 1024 == len(made(offer).body)
    assert all(digits == digits.upper() for digits in file["hashes"].values())
    assert file["hashes"]["AutoV2"] == file["hashes"]["SHA256"][:10]


def test_exactly_one_file_of_a_version_is_primary(hub: Origins) -> None:
    for model in MODELS:
        for version in model.versions:
            files = api(hub, f"/model-versions/{version.id}").json["files"]
            assert [file["primary"] for file in files] == [True] + [False] * (len(files) - 1)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/models/{MISSING}", ""),
        (f"/model-versions/{MISSING}", "err_404_version.json"),
        (f"/model-versions/mini/{MISSING}", "err_404_version.json"),
        ("/model-versions/by-hash/DEADBEEF", "err_404_version.json"),
        ("/me", "err_401_me.json"),
        ("/models?query=ink&page=2", "err_400_query_with_page.json"),
        ("/models?limit=100&page=11", "err_429_paging_cap.json"),
        ("/models?favorites=false", "err_401_me.json"),
    ],
)
def test_errors_are_the_recorded_ones(hub: Origins, path: str, name: str) -> None:
    reply = api(hub, path)
    expected = recorded(name) if name else {"status": 404, "body": {"error": f"No model with id {MISSING}"}}
    assert (reply.status, reply.json) == (expected["status"], expected["body"])


def test_an_absurd_id_is_a_bad_request(hub: Origins) -> None:
    assert api(hub, "/models/9999999999").status == 400


def test_an_unknown_path_and_a_wrong_method_are_told_in_json(hub: Origins) -> None:
    assert api(hub, "/vault/get").status == 404
    assert api(hub, "/models", method="POST", body=b"{}").json == {"error": "Method not allowed"}


# ---------------------------------------------------------------- hashes and the rest


@pytest.mark.parametrize("kind", ["SHA256", "AutoV1", "AutoV2", "AutoV3", "BLAKE3", "CRC32"])
def test_a_file_is_found_by_every_kind_of_hash_in_any_case(hub: Origins, kind: str) -> None:
    offer = next(offer for offer in offers() if offer.file.id == 3005)
    digits = made(offer).hashes[kind]
    for spelling in (digits, digits.lower()):
        assert api(hub, f"/model-versions/by-hash/{spelling}").json["id"] == offer.version.id


def test_the_beginning_of_a_hash_finds_nothing(hub: Origins) -> None:
    digits = made(offers()[0]).hashes["SHA256"]
    assert api(hub, f"/model-versions/by-hash/{digits[:20]}").status == 404


def test_many_hashes_are_looked_up_at_once(hub: Origins) -> None:
    wanted = [made(offer).hashes["SHA256"] for offer in offers()] + ["0" * 64]
    body = json.dumps(wanted).encode()
    rows = api(hub, "/model-versions/by-hash/ids", method="POST", body=body).json
    assert differences(recorded("by_hash_ids_post.json"), rows) == []
    assert {row["hash"] for row in rows} == set(wanted[:-1])
    versions = api(hub, "/model-versions/by-hash", method="POST", body=body).json
    assert {version["id"] for version in versions} == {offer.version.id for offer in offers()}


@pytest.mark.parametrize("body", [b"", b"{}", b'["AB"]', json.dumps(["0" * 64] * 101).encode()])
def test_a_list_that_is_none_of_hashes_is_a_bad_request(hub: Origins, body: bytes) -> None:
    assert api(hub, "/model-versions/by-hash", method="POST", body=body).status == 400


def test_a_huge_body_is_refused_unread(hub: Origins) -> None:
    reply = api(hub, "/model-versions/by-hash", method="POST", headers={"Content-Length": str(1 << 40)})
    assert reply.status == 413


@pytest.mark.parametrize("headers", [LOGIN, {"Authorization": f"Basic {TOKEN}"}])
def test_the_token_is_the_second_word_of_the_header(hub: Origins, headers: Mapping[str, str]) -> None:
    assert api(hub, "/me", headers=headers).json["tier"] == "free"


def test_the_token_may_stand_in_the_query(hub: Origins) -> None:
    assert api(hub, f"/me?token={TOKEN}").status == 200


def test_tags_creators_and_enumerations_cover_the_catalogue(hub: Origins) -> None:
    tags = api(hub, "/tags?limit=200").json["items"]
    creators = api(hub, "/creators?limit=1&page=2").json
    enums = api(hub, "/enums").json
    assert {row["name"] for row in tags} == {tag for model in MODELS for tag in model.tags}
    assert len(creators["items"]) == 1
    assert creators["metadata"]["totalPages"] == len({model.creator for model in MODELS})
    assert set(enums["BaseModel"]) >= {v.base_model for m in MODELS for v in m.versions}
    assert set(enums["ModelType"]) >= {model.type for model in MODELS}


def test_pictures_are_listed_by_model_and_can_be_fetched(hub: Origins) -> None:
    items = api(hub, "/images?modelId=1001").json["items"]
    assert [item["id"] for item in items] == [4002, 4003, 4001]
    reply = ask(items[0]["url"])
    assert (reply.status, reply.headers["content-type"], reply.body[:4]) == (200, "image/png", b"\x89PNG")


def test_every_picture_is_there(hub: Origins) -> None:
    assert {ask(f"{hub.storage}/images/{id}.png").status for id in pictures()} == {200}


# ---------------------------------------------------------------- downloads


def download(hub: Origins, rest: object, headers: Mapping[str, str] | None = None) -> Reply:
    return ask(f"{hub.api}/api/download/models/{rest}", headers)


def test_a_download_is_a_redirect_to_the_other_origin_that_nobody_may_keep(hub: Origins) -> None:
    reply = download(hub, FREE)
    assert (reply.status, reply.headers["cache-control"]) == (307, "no-store")
    assert reply.headers["location"].startswith(hub.storage + "/")
    assert hub.storage != hub.api


@pytest.mark.parametrize(
    "offer", [offer for offer in offers() if offer.version.access != "early"], ids=lambda offer: offer.file.name
)
def test_the_published_address_of_each_file_leads_to_that_file(hub: Origins, offer: Offer) -> None:
    version = api(hub, f"/model-versions/{offer.version.id}").json
    file = next(file for file in version["files"] if file["id"] == offer.file.id)
    reply = ask(ask(file["downloadUrl"], LOGIN).headers["location"])
    assert reply.body == made(offer).body
    assert reply.headers["content-disposition"] == f'attachment; filename="{offer.file.name}"'


def test_a_file_is_chosen_by_its_id(hub: Origins) -> None:
    assert "pixel-meadow-v2-small" in download(hub, f"{TWO_FILES}?fileId=3003").headers["location"]


@pytest.mark.parametrize(
    "rest",
    [MISSING, f"{TWO_FILES}?fileId=3001", f"{TWO_FILES}?fp=fp32", f"{TWO_FILES}?format=GGUF", f"{FREE}?size=pruned"],
)
def test_a_file_that_is_not_as_asked_for_does_not_exist(hub: Origins, rest: object) -> None:
    reply = download(hub, rest)
    assert (reply.status, reply.json) == (404, recorded("err_404_file.json")["body"])


def test_a_locked_file_needs_the_token(hub: Origins) -> None:
    reply = download(hub, LOCKED)
    assert (reply.status, reply.json) == (401, recorded("err_401_login_required.json")["body"])
    assert download(hub, LOCKED, {"Authorization": "Bearer wrong"}).status == 401
    assert download(hub, LOCKED, LOGIN).status == 307


def test_early_access_says_until_when_and_no_token_helps(hub: Origins) -> None:
    for headers in ({}, LOGIN):
        reply = download(hub, EARLY, headers)
        assert reply.status == 403
        assert reply.json.keys() == recorded("err_403_early_access.json")["body"].keys()
        assert reply.json["error"] == "Early Access"


# ---------------------------------------------------------------- storage


@pytest.mark.parametrize(
    ("wanted", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=100-199", (100, 200)),
        ("bytes=1000-", (1000, None)),
        ("bytes=-16", (-16, None)),
        ("bytes=1400000-99999999", (1400000, None)),
    ],
)
def test_a_range_gives_those_bytes_and_says_which(hub: Origins, wanted: str, span: tuple[int, int | None]) -> None:
    reply, whole = ask(stored(hub), {"Range": wanted}), content()
    assert (reply.status, reply.body) == (206, whole[slice(*span)])
    start, stop, _ = slice(*span).indices(len(whole))
    assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"


@pytest.mark.parametrize("wanted", ["bytes={size}-", "bytes={size}-{size}", "bytes=-0", "bytes=9-3"])
def test_a_range_outside_the_file_is_416_with_its_size(hub: Origins, wanted: str) -> None:
    size = len(content())
    reply = ask(stored(hub), {"Range": wanted.format(size=size)})
    assert (reply.status, reply.headers["content-range"], reply.body) == (416, f"bytes */{size}", b"")


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "bytes=-", "bytes=a-b", "lines=1-2", ""])
def test_what_is_no_single_range_gets_the_whole_file(hub: Origins, wanted: str) -> None:
    reply = ask(stored(hub), {"Range": wanted})
    assert (reply.status, reply.body) == (200, content())


def test_a_range_of_another_file_s_state_gets_the_whole_file(hub: Origins) -> None:
    etag = ask(stored(hub)).headers["etag"]
    asked = {"Range": "bytes=5-9"}
    assert ask(stored(hub), asked | {"If-Range": etag}).status == 206
    assert ask(stored(hub), asked | {"If-Range": '"another"'}).status == 200
    assert ask(stored(hub), asked | {"If-Range": f"W/{etag}"}).status == 200


def test_the_storage_refuses_the_token_a_wrong_signature_and_head(hub: Origins) -> None:
    address = stored(hub)
    leaked = ask(address, LOGIN)
    assert (leaked.status, leaked.body.decode()) == (400, recorded("storage_400_auth_header_leaked.json")["body"])
    assert ask(address[:-1] + "-").status == 403
    assert ask(address, method="HEAD").status == 403
    assert ask(f"{hub.storage}/files/1/x.safetensors").status == 404


# ---------------------------------------------------------------- the servers


def test_each_hub_of_a_process_is_its_own_and_stops_with_its_block(hub: Origins) -> None:
    with running_sample_hub() as other:
        assert other.api != hub.api
        assert ask(other.api + "/api/v1/enums").status == 200
    with pytest.raises(OSError, match="refused"):
        ask(other.api + "/api/v1/enums")


def test_nothing_is_printed_even_when_a_client_hangs_up(hub: Origins, capfd: pytest.CaptureFixture[str]) -> None:
    parts = urllib.parse.urlsplit(stored(hub))
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    connection.request("GET", f"{parts.path}?{parts.query}")
    connection.getresponse().read(10)
    connection.close()
    ask(hub.api + "/nowhere")
    assert capfd.readouterr() == ("", "")
