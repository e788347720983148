"""CivArchive, Arc en Ciel and ModelScope over a real socket."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import lora
from contract.small_site import Page, SmallSite, page

from hubtool.errors import AmbiguousSpec, BadAnswer, BadSpec, NotFound
from hubtool.hubs.delivery import deliver
from hubtool.hubs.hub import Query
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.in_process import Run

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses"
DIGEST = hashlib.sha256(lora()).hexdigest()


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with SmallSite() as running:
        yield running


def settings(site: SmallSite, home: Path) -> Settings:
    names = ("civarchive", "arcenciel", "modelscope")
    folders = Directories(home / "c", home / "d", home / "e")
    return Settings(folders, hubs=dict.fromkeys(names, site.url), timeout_s=0.3)


def recorded(name: str) -> dict[str, dict[str, object]]:
    return json.loads((RECORDED / name).read_text("utf-8"))


# ---------------------------------------------------------------- CivArchive


def archived(site: SmallSite, *mirrors: tuple[str, str | None]) -> dict[str, dict[str, object]]:
    """The recorded model with the bytes of ours and these mirrors: path → when it was deleted."""
    answer = recorded("civarchive/model_1746460.json")
    rows = [{"filename": "x", "url": f"{site.url}{path}", "deletedAt": gone} for path, gone in mirrors]
    file = {"sizeKB": 0.01, "sha256": DIGEST, "mirrors": rows, "downloadUrl": rows[0]["url"] if rows else ""}
    answer["data"]["version"]["files"][0].update(file)  # type: ignore[index]
    return answer


def test_the_recorded_model_is_read_in_full(site: SmallSite, tmp_path: Path) -> None:
    site.pages["/api/models/1746460"] = page(recorded("civarchive/model_1746460.json"))
    model = open_hub(settings(site, tmp_path), "civarchive").model(1746460)
    version, file = model.versions[0], model.versions[0].files[0]
    assert (model.name, model.creator, model.type) == ("Mixplin Style [Illustrious]", "Ty_Lee", "LORA")
    assert (model.nsfw, model.nsfw_level, model.tags) == (True, 31, ("art", "style"))
    assert (version.id, version.base_model, version.trigger_words) == (1976567, "Illustrious", ("mxpln",))
    assert (file.name, file.size_bytes) == ("mxpln-illustrious-ty_lee.safetensors", 228479356)
    assert file.sha256 == "e2b7a280d6539556f23f380b3f71e4e22bc4524445c4c96526e117c6005c6ad3"
    assert [entry.id for entry in model.versions] == [1976567, 2042594]


def test_a_deleted_model_comes_from_the_first_mirror_that_is_left(site: SmallSite, tmp_path: Path) -> None:
    answer = archived(site, ("/gone", "2025-01-01"), ("/dead", None), ("/alive", None))
    site.pages[f"/api/sha256/{DIGEST}"] = page(answer)
    site.pages["/alive"] = Page(lora(), ranged=True)
    hub = open_hub(settings(site, tmp_path), "civarchive")
    wanted = hub.resolve(f"sha256:{DIGEST}")
    assert (wanted.file.url, wanted.file.mirrors) == (f"{site.url}/dead", (f"{site.url}/alive",))
    done = deliver(hub, wanted, Transfer(tmp_path / "out"))[0]
    assert (done.verified, done.path.name) == (True, "mxpln-illustrious-ty_lee.safetensors")
    assert "/gone" not in site.paths()


def test_a_web_page_at_the_first_address_does_not_end_the_search(site: SmallSite, tmp_path: Path) -> None:
    site.pages[f"/api/sha256/{DIGEST}"] = page(archived(site, ("/sold", None), ("/alive", None)))
    site.pages["/sold"] = Page(
        b"<!doctype html><title>This domain is for sale</title>", headers={"content-type": "text/html"}
    )
    site.pages["/alive"] = Page(lora(), ranged=True)
    hub = open_hub(settings(site, tmp_path), "civarchive")
    (done,) = deliver(hub, hub.resolve(f"sha256:{DIGEST}"), Transfer(tmp_path / "out"))
    assert done.verified
    assert site.paths()[-2:] == ["/sold", "/alive"]


def test_mirrors_that_only_a_browser_gets_come_last_and_pages_of_files_are_the_files(
    site: SmallSite, tmp_path: Path
) -> None:
    answer = archived(site)
    urls = ["https://tensor.art/models/5", "https://huggingface.co/o/r/blob/main/a.safetensors", f"{site.url}/alive"]
    answer["data"]["version"]["files"][0]["mirrors"] = [{"url": url} for url in urls]  # type: ignore[index]
    site.pages[f"/api/sha256/{DIGEST}"] = page(answer)
    file = open_hub(settings(site, tmp_path), "civarchive").resolve(f"sha256:{DIGEST}").file
    expected = ["https://huggingface.co/o/r/resolve/main/a.safetensors", f"{site.url}/alive", urls[0]]
    assert [file.url, *file.mirrors] == expected


def test_a_hit_that_holds_only_files_leads_to_their_model(site: SmallSite, tmp_path: Path) -> None:
    hit = {"files": [{"sha256": DIGEST, "model_id": 1746460, "model_version_id": 1976567}]}
    site.pages[f"/api/sha256/{DIGEST}"] = page(hit)
    site.pages["/api/models/1746460"] = page(archived(site, ("/alive", None)))
    assert open_hub(settings(site, tmp_path), "civarchive").by_hash(DIGEST).id == 1976567
    assert site.asked[-1].query == {"modelVersionId": ["1976567"]}


def test_a_hash_that_was_taken_for_a_number_is_no_model(site: SmallSite, tmp_path: Path) -> None:
    site.pages[f"/api/sha256/{DIGEST}"] = page({"files": [{"sha256": DIGEST, "model_id": 3_000_000_000}]})
    with pytest.raises(NotFound):
        open_hub(settings(site, tmp_path), "civarchive").by_hash(DIGEST)
    assert len(site.asked) == 1


@pytest.mark.parametrize("answer", [[], None, 5, {"data": []}, {"data": {"id": 5}}])
def test_an_answer_without_the_model_is_an_error_of_ours(site: SmallSite, tmp_path: Path, answer: object) -> None:
    site.pages["/api/models/1746460"] = page(answer)
    with pytest.raises((NotFound, BadAnswer)):
        open_hub(settings(site, tmp_path), "civarchive").model(1746460)


def test_a_search_keeps_what_was_asked_for(site: SmallSite, tmp_path: Path) -> None:
    rows = [{"id": 1, "type": "LORA"}, {"id": 2, "type": "Checkpoint"}, {"id": 3, "type": "LORA", "is_nsfw": True}]
    site.pages["/api/search"] = page({"results": rows})
    found = open_hub(settings(site, tmp_path), "civarchive").search(Query("clouds"))
    assert [model.id for model in found.models] == [1]


def test_what_the_archive_does_not_filter_is_filtered_here(site: SmallSite, tmp_path: Path) -> None:
    """Its search knows a text, base models and a rating, nothing else."""
    now, long_ago = datetime.now(timezone.utc).isoformat(), "2023-02-11T07:55:58.459Z"
    rows = [
        {"id": 1, "tags": ["Style"], "username": "Ann", "version": {"publishedAt": now, "downloadCount": 5}},
        {"id": 2, "tags": ["style"], "username": "ann", "version": {"publishedAt": long_ago, "downloadCount": 9}},
        {"id": 3, "tags": ["cars"], "username": "ann", "version": {"publishedAt": now}},
        {"id": 4, "tags": ["style"], "username": "bob", "version": {"publishedAt": "no date"}},
        {"id": 5, "tags": ["style"], "username": "ann", "nsfw_level": 16, "version": {"publishedAt": now}},
    ]
    site.pages["/api/search"] = page({"results": rows})
    hub = open_hub(settings(site, tmp_path), "civarchive")

    def ids(**fields: object) -> list[object]:
        return [model.id for model in hub.search(Query("x", **fields)).models]  # type: ignore[arg-type]

    assert ids(tag="style", creator="ANN", nsfw="all") == [1, 2, 5]
    assert ids(tag="style", creator="ann", nsfw="mature") == [1, 2]
    assert ids(period="Month", nsfw="all") == [1, 3, 5]
    assert ids(sort="downloads", limit=2) == [2, 1]


def test_one_of_several_hubs_that_fails_is_said_beside_the_others_results(
    site: SmallSite, run: Run, tmp_path: Path
) -> None:
    site.pages["/api/v1/models"] = page({"items": [{"id": 1, "name": "one"}]})
    words = ("search", "x", "--hub", site.url, "--hub", "modelscope")
    ended = run(*words, "--json")
    assert (ended.code, [row["id"] for row in ended.document["results"]]) == (17, [1])
    assert "modelscope cannot be searched" in ended.document["failures"][0]["message"]
    assert "Not every hub answered: modelscope" in run(*words).err
    assert run("search", "x", "--hub", "modelscope", "--hub", "modelscope").code == 2


# ---------------------------------------------------------------- Arc en Ciel


def arc(site: SmallSite) -> None:
    versions = recorded("arcenciel/versions_77.json")
    versions[0]["sha256"] = DIGEST  # type: ignore[index]
    site.pages["/api/models/77"] = page(recorded("arcenciel/model_77.json"))
    site.pages["/api/models/77/versions"] = page(versions)
    site.pages["/api/models/search"] = page(recorded("arcenciel/search_clouds.json"))
    site.pages["/api/models/77/versions/702/download"] = Page(b"", 302, {"Location": f"{site.url}/uploads/a1b2"})
    site.pages["/uploads/a1b2"] = Page(lora(), ranged=True)


def test_a_published_version_is_downloaded_under_its_own_name(site: SmallSite, tmp_path: Path) -> None:
    arc(site)
    hub = open_hub(settings(site, tmp_path))
    wanted = hub.resolve("arcenciel:77")
    assert (wanted.hub, wanted.version.trigger_words) == ("arcenciel", ("cloudy", "soft light"))
    assert [version.id for version in wanted.model.versions] == [702]  # 701 is a draft
    done = deliver(hub, wanted, Transfer(tmp_path / "out"))[0]
    assert (done.path.name, done.verified) == ("cloud_style_v2.safetensors", True)


def test_its_pages_and_hashes_are_understood(site: SmallSite, tmp_path: Path) -> None:
    arc(site)
    assert open_hub(settings(site, tmp_path)).find("https://arcenciel.io/models/77").model.name == "Cloud Style"
    assert open_hub(settings(site, tmp_path), "arcenciel").find(f"sha256:{DIGEST}").model.id == 77
    with pytest.raises(NotFound):
        open_hub(settings(site, tmp_path), "arcenciel").find(f"sha256:{'ab' * 32}")


def test_a_search_goes_on_by_page(site: SmallSite, tmp_path: Path) -> None:
    arc(site)
    hub = open_hub(settings(site, tmp_path), "arcenciel")
    found = hub.search(Query("clouds", base_models=("Illustrious",)))
    assert ([model.name for model in found.models], found.next_cursor) == (["Cloud Style"], "2")
    assert hub.search(Query("clouds", cursor="2")).next_cursor is None
    assert site.asked[0].query["modelType"] == ["LORA"]


# ---------------------------------------------------------------- ModelScope


def test_a_repository_lists_weights_with_their_hashes(site: SmallSite, tmp_path: Path) -> None:
    site.pages["/api/v1/models/me/ink/repo/files"] = page(recorded("modelscope/files.json"))
    hub = open_hub(settings(site, tmp_path))
    wanted = hub.resolve("ms:me/ink")
    assert (wanted.file.id, wanted.file.size_bytes, wanted.file.sha256) == ("loras/ink.safetensors", 200072, "2" * 64)
    assert wanted.file.url == f"{site.url}/models/me/ink/resolve/master/loras/ink.safetensors"
    page_url = "https://modelscope.cn/models/me/ink/file/view/master/loras/ink.safetensors"
    assert hub.resolve(page_url).file == wanted.file


def test_a_partial_answer_with_status_200_is_gone_on_with(site: SmallSite, tmp_path: Path) -> None:
    body = lora()
    listing = recorded("modelscope/files.json")
    listing["Data"]["Files"][2].update(Sha256=DIGEST, Size=len(body))  # type: ignore[index]
    site.pages["/api/v1/models/me/ink/repo/files"] = page(listing)

    def storage(asked: object) -> Page:
        start = int(getattr(asked, "headers", {}).get("range", "bytes=0-")[6:-1])
        if not start:
            return Page(body[:100_000], headers={"Content-Length": str(len(body)), "ETag": '"a"'})
        span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}", "ETag": '"a"'}
        return Page(body[start:], 200, span)

    site.pages["/models/me/ink/resolve/master/loras/ink.safetensors"] = storage
    hub = open_hub(settings(site, tmp_path))
    done = deliver(hub, hub.resolve("ms:me/ink"), Transfer(tmp_path / "out"))[0]
    assert done.path.read_bytes() == body
    assert [asked.headers.get("range") for asked in site.asked[1:]] == [None, "bytes=100000-"]


def test_an_error_with_status_200_is_an_error(site: SmallSite, tmp_path: Path) -> None:
    site.pages["/api/v1/models/me/ink/repo/files"] = page(recorded("modelscope/missing.json"))
    with pytest.raises(NotFound, match="record not found"):
        open_hub(settings(site, tmp_path)).find("ms:me/ink")


def test_an_error_with_status_200_does_not_replace_what_was_known(site: SmallSite, tmp_path: Path) -> None:
    site.pages["/api/v1/models/me/ink/repo/files"] = page(recorded("modelscope/files.json"))
    chosen = settings(site, tmp_path)
    open_hub(chosen).find("ms:me/ink")
    site.pages["/api/v1/models/me/ink/repo/files"] = page(recorded("modelscope/missing.json"))
    with pytest.raises(NotFound) as caught:
        open_hub(chosen).find("ms:me/ink")
    assert "--offline" in caught.value.hint
    assert open_hub(replace(chosen, offline=True)).resolve("ms:me/ink").file.size_bytes == 200072


def test_several_files_are_a_question(site: SmallSite, tmp_path: Path) -> None:
    listing = recorded("modelscope/files.json")
    listing["Data"]["Files"].append({"Path": "b.safetensors", "Type": "blob"})  # type: ignore[attr-defined]
    site.pages["/api/v1/models/me/ink/repo/files"] = page(listing)
    hub = open_hub(settings(site, tmp_path))
    with pytest.raises(AmbiguousSpec, match="several files"):
        hub.resolve("ms:me/ink")
    assert hub.resolve("ms:me/ink/b.safetensors").file.name == "b.safetensors"
    with pytest.raises(BadSpec):
        open_hub(settings(site, tmp_path), "modelscope").search(Query("x"))
