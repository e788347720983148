"""Civitai's smaller answers over a real socket: names, pictures, terms, many hashes at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, VERSION, Fault, FaultyHub, lora
from contract.small_site import Asked, Page, SmallSite, page
from unit.library.small_lora import small_lora

from hubtool.errors import BadAnswer, EarlyAccess, Forbidden, NeedsToken, NotFound, UsageProblem
from hubtool.hubs.batch import Wish, download_all
from hubtool.hubs.civitai_names import BASE_MODELS, MODEL_TYPES
from hubtool.hubs.delivery import deliver
from hubtool.hubs.hub import Fingerprint, Query
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.in_process import Run

    from hubtool.hubs.hub import Hub

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "civitai"
MINI = f"/api/v1/model-versions/mini/{VERSION}"
BY_HASH = "/api/v1/model-versions/by-hash/ids"


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with SmallSite() as running:
        running.pages["/api/v1/models"] = page({"items": [{"id": 1, "tags": ["style"]}], "metadata": {}})
        yield running


@pytest.fixture
def hub(site: SmallSite, tmp_path: Path) -> Hub:
    return open_hub(settings(site.url, tmp_path))


def settings(address: str, home: Path) -> Settings:
    return Settings(Directories(home / "c", home / "d", home / "e"), hub=address, timeout_s=0.2)


def recorded(name: str) -> dict[str, object]:
    return json.loads((RECORDED / name).read_text("utf-8"))


# ---------------------------------------------------------------- names


def test_the_built_in_lists_are_civitais() -> None:
    assert (len(BASE_MODELS), len(set(BASE_MODELS)), len(MODEL_TYPES)) == (99, 99, 23)


def test_a_base_model_and_a_type_are_spelt_as_the_hub_spells_them(site: SmallSite, hub: Hub) -> None:
    hub.search(Query(types=("lora",), base_models=("sdxl 1.0",)))
    assert site.paths() == ["/api/v1/models"]
    assert (site.asked[0].query["baseModels"], site.asked[0].query["types"]) == (["SDXL 1.0"], ["LORA"])


def test_a_base_model_that_is_newer_than_we_are_is_learnt_from_the_hub(site: SmallSite, hub: Hub) -> None:
    site.pages["/api/v1/enums"] = page({"BaseModel": ["SDXL 1.0"], "ActiveBaseModel": ["Novel 5"]})
    hub.search(Query(base_models=("novel 5",)))
    assert site.asked[-1].query["baseModels"] == ["Novel 5"]
    with pytest.raises(UsageProblem) as caught:
        hub.search(Query(base_models=("SDXL",)))
    assert "SDXL 1.0" in caught.value.hint


def test_a_type_that_is_newer_than_we_are_is_learnt_and_a_wrong_one_is_named(site: SmallSite, hub: Hub) -> None:
    site.pages["/api/v1/enums"] = page({"ModelType": ["LORA", "LoFi"], "BaseModel": []})
    hub.search(Query(types=("lofi",)))
    assert site.asked[-1].query["types"] == ["LoFi"]
    with pytest.raises(UsageProblem, match="no type LOR") as caught:
        hub.search(Query(types=("LOR",)))
    assert "LORA" in caught.value.hint


def test_a_server_that_ignores_the_limit_is_held_to_it(site: SmallSite, hub: Hub) -> None:
    site.pages["/api/v1/models"] = page({"items": [{"id": number} for number in range(1, 90)]})
    assert len(hub.search(Query(limit=5)).models) == 5


def test_a_hub_that_has_no_list_of_names_is_asked_all_the_same(site: SmallSite, hub: Hub) -> None:
    assert [model.id for model in hub.search(Query(base_models=("Mine",))).models] == [1]


def test_a_tag_that_does_not_exist_is_not_silently_ignored(site: SmallSite, hub: Hub) -> None:
    site.pages["/api/v1/tags"] = page({"items": [{"name": "styles"}, {"name": "stylised"}]})
    with pytest.raises(NotFound) as caught:
        hub.search(Query(tag="styl"))
    assert "styles, stylised" in caught.value.hint
    assert [model.id for model in hub.search(Query(tag="style")).models] == [1]


def test_a_creator_who_does_not_exist_is_named_with_those_who_do(site: SmallSite, hub: Hub) -> None:
    site.pages["/api/v1/models"] = page({"message": "User not found"}, 404)
    site.pages["/api/v1/creators"] = page({"items": [{"username": "nerijs"}, {"username": None}]})
    with pytest.raises(NotFound, match="User not found") as caught:
        hub.search(Query(creator="neri"))
    assert caught.value.hint == "There are: nerijs."


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", ["images_page_docs_2025.json", "images_page_wiki_2023.json"])
def test_recorded_pictures_are_read_and_gone_on_with(site: SmallSite, hub: Hub, name: str) -> None:
    first = recorded(name)
    pages = iter([page(first), page({"items": [{"url": "https://x/y.mp4", "type": "video"}], "metadata": {}})])
    site.pages["/api/v1/images"] = lambda _: next(pages)
    site.pages["/api/v1/model-versions/5"] = page({"id": 5, "modelId": 4})
    found = hub.pictures(hub.find("v:5"), "soft", 10)
    assert [image.type for image in found] == ["image", "video"]
    assert found[0].url == first["items"][0]["url"]  # type: ignore[index]
    assert site.asked[-1].query["cursor"] == [str(first["metadata"]["nextCursor"])]  # type: ignore[index]


def test_no_picture_is_more_explicit_than_asked(site: SmallSite, hub: Hub) -> None:
    levels = [("a", 1), ("b", 4), ("c", 16), ("d", 2)]
    site.pages["/api/v1/images"] = page({"items": [{"url": url, "browsingLevel": level} for url, level in levels]})
    site.pages["/api/v1/model-versions/5"] = page({"id": 5, "modelId": 4})
    found = hub.find("v:5")
    assert [image.url for image in hub.pictures(found, "none", 9)] == ["a", "d"]
    assert [image.url for image in hub.pictures(found, "mature", 9)] == ["a", "b", "d"]
    assert len(hub.pictures(found, "all", 9)) == 4
    assert len(hub.pictures(found, "all", 2)) == 2


# ---------------------------------------------------------------- terms


def civitai_with(terms: dict[str, object], status: int, body: bytes) -> FaultyHub:
    server = FaultyHub()
    server.answers[MINI] = (200, {}, json.dumps(terms).encode())
    server.always["download"] = Fault(status=status, body=body)
    return server


def test_a_refusal_without_a_reason_gets_the_one_that_the_hub_gives_elsewhere(tmp_path: Path) -> None:
    early = {"earlyAccessEndsAt": "2999-01-01T00:00:00.000Z", "checkPermission": True}
    no_access = json.dumps(recorded("err_403_no_access.json")["body"]).encode()
    with civitai_with(early, 403, no_access) as server:
        hub = server.open(tmp_path)
        with pytest.raises(EarlyAccess) as caught:
            deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))
    assert caught.value.deadline == "2999-01-01T00:00:00.000Z"
    over = {"earlyAccessEndsAt": "2020-01-01T00:00:00.000Z", "checkPermission": True}
    with civitai_with(over, 403, no_access) as server, pytest.raises(Forbidden):
        hub = server.open(tmp_path)
        deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))


@pytest.mark.parametrize(
    ("terms", "error", "words"),
    [
        ({"checkPermission": True, "availability": "EarlyAccess"}, EarlyAccess, "has to be paid for"),
        (
            {"checkPermission": True, "availability": "EarlyAccess", "earlyAccessEndsAt": "2999-01-01T00:00:00Z"},
            EarlyAccess,
            "early access",
        ),
        ({"checkPermission": True, "availability": "Private"}, NeedsToken, "private"),
        ({"requireAuth": True, "availability": "Public"}, NeedsToken, "logged in"),
    ],
    ids=["paid", "early", "private", "login"],
)
def test_paid_early_private_and_login_are_told_apart(
    tmp_path: Path, terms: dict[str, object], error: type[Exception], words: str
) -> None:
    """Before the download and after a bare refusal alike."""
    no_access = json.dumps(recorded("err_403_no_access.json")["body"]).encode()
    with civitai_with(terms, 403, no_access) as server:
        hub = server.open(tmp_path)
        outcome = download_all(hub, [str(MODEL)], Wish(dry_run=True), Transfer(tmp_path), 1)[0]
        assert type(outcome.error) is error
        assert words in str(outcome.error)
        with pytest.raises(error, match=words):
            deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))


def test_a_dry_run_says_what_the_download_would_meet(tmp_path: Path) -> None:
    wish = Wish(dry_run=True)
    with civitai_with({"requireAuth": True}, 307, b"") as server:
        outcome = download_all(server.open(tmp_path), [str(MODEL)], wish, Transfer(tmp_path), 1)[0]
    assert isinstance(outcome.error, NeedsToken)
    with civitai_with(recorded("model_version_mini_docs_2026.json"), 307, b"") as server:
        outcome = download_all(server.open(tmp_path), [str(MODEL)], wish, Transfer(tmp_path), 1)[0]
    assert outcome.planned == tmp_path / "style.safetensors"


# ---------------------------------------------------------------- many hashes


def test_many_files_are_identified_with_one_request(site: SmallSite, hub: Hub) -> None:
    recorded_row = json.loads((RECORDED / "by_hash_ids_post.json").read_text("utf-8"))[0]
    known = recorded_row["hash"].lower()
    newer = recorded_row | {"modelVersionId": 9_999_999}
    site.pages[BY_HASH] = page([newer, recorded_row, None, {"hash": "cut"}, {"modelVersionId": "x", "hash": known}])
    other = hashlib.sha256(b"unknown").hexdigest()
    found = hub.identify([Fingerprint(known.upper()), Fingerprint(other)]).matches
    assert set(found) == {known}
    assert (found[known].model_id, found[known].version_id) == (827184, 2514310)  # the oldest
    assert json.loads(site.asked[0].body) == sorted([known.upper(), other.upper()])
    assert (site.asked[0].method, site.asked[0].headers["content-type"]) == ("POST", "application/json")


def test_ten_thousand_hashes_are_one_batch_and_one_more_is_another(site: SmallSite, hub: Hub) -> None:
    site.pages[BY_HASH] = page([])
    hub.identify([Fingerprint(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(10_001)])
    assert sorted(len(json.loads(asked.body)) for asked in site.asked) == [1, 10_000]


def test_an_unknown_hash_is_not_asked_for_again_until_it_expires_but_a_typed_one_is(
    site: SmallSite, tmp_path: Path
) -> None:
    site.pages[BY_HASH] = page([])
    digest = hashlib.sha256(lora()).hexdigest()
    for _ in range(2):
        open_hub(settings(site.url, tmp_path)).identify([Fingerprint(digest)])
    assert [json.loads(asked.body) for asked in site.asked] == [[digest.upper()]]
    with pytest.raises(NotFound):
        open_hub(settings(site.url, tmp_path)).find(f"sha256:{digest}")
    assert site.paths()[-1].endswith(f"/by-hash/{digest.upper()}")
    path = tmp_path / "e" / "misses.tsv"
    name, moment, row = path.read_text().split("\t")
    path.write_text(f"{name}\t{int(moment) - 8 * 86_400}\t{row}")
    open_hub(settings(site.url, tmp_path)).identify([Fingerprint(digest)])
    assert site.asked[-1].path == BY_HASH


def test_the_sample_hub_identifies_its_own_files(tmp_path: Path) -> None:
    hub = open_hub(replace(settings("sample", tmp_path), timeout_s=20))
    files = [version.files[0] for model in hub.search(Query(limit=3)).models for version in model.versions]
    digests = [file.sha256 for file in files if file.sha256]
    assert set(hub.identify([Fingerprint(digest) for digest in digests]).matches) == set(digests)


# ---------------------------------------------------------------- the archive of answers


def test_what_was_seen_once_is_known_offline_and_after_it_was_deleted(site: SmallSite, tmp_path: Path) -> None:
    chosen = settings(site.url, tmp_path)
    site.pages["/api/v1/models/5"] = page({"id": 5, "name": "first"})
    open_hub(chosen).model(5)
    site.pages["/api/v1/models/5"] = page({"id": 5, "name": "second"})
    open_hub(chosen).model(5)
    open_hub(chosen).model(5)
    site.pages["/api/v1/models/5"] = Page(b'{"error":"No model with id 5"}', 404)
    with pytest.raises(NotFound, match="No model") as caught:
        open_hub(chosen).model(5)
    assert "--offline" in caught.value.hint
    before = len(site.asked)
    hub = open_hub(replace(chosen, offline=True))
    assert hub.model(5).name == "second"
    assert len(site.asked) == before
    history = [json.loads(kept.body)["name"] for kept in hub.client.answers.history(f"{site.url}/api/v1/models/5")]
    assert history == ["second", "first"]


def test_a_damaged_archive_is_passed_over(site: SmallSite, tmp_path: Path) -> None:
    chosen = settings(site.url, tmp_path)
    site.pages["/api/v1/models/5"] = page({"id": 5, "name": "first"})
    open_hub(chosen).model(5)
    for path in (tmp_path / "d" / "answers" / "bodies").rglob("*.gz"):
        path.write_bytes(b"\x1f\x8bdamaged")
    assert open_hub(chosen).client.answers.latest(f"{site.url}/api/v1/models/5") is None
    assert open_hub(chosen).model(5).name == "first"
    assert open_hub(replace(chosen, offline=True)).model(5).name == "first"  # and mended


@pytest.mark.parametrize("outage", [b"<html>We will be back soon</html>", b"", b"{", b"[" * 5000])
def test_what_an_outage_answers_is_not_kept_in_place_of_what_was_known(
    site: SmallSite, tmp_path: Path, outage: bytes
) -> None:
    chosen = settings(site.url, tmp_path)
    site.pages["/api/v1/models/5"] = page({"id": 5, "name": "first"})
    open_hub(chosen).model(5)
    site.pages["/api/v1/models/5"] = Page(outage)
    with pytest.raises(BadAnswer):
        open_hub(chosen).model(5)
    assert open_hub(replace(chosen, offline=True)).model(5).name == "first"


def test_a_page_instead_of_the_api_sends_us_to_the_hubs_other_address(site: SmallSite, tmp_path: Path) -> None:
    with SmallSite() as sister:
        site.pages["/api/v1/models/5"] = Page(b"<html>We will be back soon</html>")
        sister.pages["/api/v1/models/5"] = page({"id": 5, "name": "there"})
        both = replace(settings(site.url, tmp_path), hub="mine", hubs={"mine": f"{site.url}, {sister.url}"})
        assert open_hub(both).model(5).name == "there"


def test_errors_are_not_kept(site: SmallSite, tmp_path: Path) -> None:
    chosen = settings(site.url, tmp_path)

    def refuse(_: Asked) -> Page:
        return page({"error": "no"}, 403)

    site.pages["/api/v1/models/5"] = refuse
    with pytest.raises(Forbidden):
        open_hub(chosen).model(5)
    assert not (tmp_path / "d" / "answers").exists()


def test_a_preview_is_no_more_explicit_than_the_setting_says(run: Run, tmp_path: Path) -> None:
    with FaultyHub(small_lora()) as server:
        server.version = {
            "images": [
                {"url": f"{server.api}/explicit", "type": "image", "nsfwLevel": 16},
                {"url": f"{server.api}/video", "type": "video", "nsfwLevel": 1},
                {"url": f"{server.api}/plain", "type": "image", "nsfwLevel": 2},
            ]
        }
        run("install", MODEL, "--to", tmp_path / "one", "--hub", server.api)
        assert [seen.path for seen in server.seen if "/api/" not in seen.path and seen.port == "api"] == ["/plain"]
        run("config", "set", "previews", "all")
        run("install", MODEL, "--to", tmp_path / "two", "--hub", server.api)
        assert "/explicit" in [seen.path for seen in server.seen]
    assert run("config", "set", "previews", "some").code == 2
