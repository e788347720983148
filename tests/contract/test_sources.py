"""What one hub does not have is asked of the next: by hash everywhere, by number only where numbers mean the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import FILE, MODEL, VERSION, Fault, FaultyHub, lora
from contract.small_site import Page, SmallSite, page

from hubtool.errors import Forbidden, NetworkFailure, NotFound
from hubtool.formats.hashing import hash_file
from hubtool.hubs.delivery import deliver
from hubtool.hubs.hub import Query
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "civarchive" / "model_1746460.json"
DIGEST = hashlib.sha256(lora()).hexdigest()


@pytest.fixture
def civitai() -> Iterator[FaultyHub]:
    with FaultyHub() as running:
        yield running


@pytest.fixture
def archive() -> Iterator[SmallSite]:
    """CivArchive, which knows model 1746460 with the bytes of ours."""
    with SmallSite() as running:
        answer = json.loads(RECORDED.read_text("utf-8"))
        mirrors = [{"url": f"{running.url}/mirror", "deletedAt": None}]
        answer["data"]["version"]["files"][0].update(sha256=DIGEST, mirrors=mirrors, downloadUrl="", sizeKB=0.01)
        for path in ("/api/models/1746460", f"/api/sha256/{DIGEST}"):
            running.pages[path] = page(answer)
        running.pages["/mirror"] = Page(lora(), ranged=True)
        yield running


@pytest.fixture
def settings(civitai: FaultyHub, archive: SmallSite, tmp_path: Path) -> Settings:
    hubs = {"civitai": civitai.api, "civarchive": archive.url}
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), hubs=hubs, timeout_s=0.6)


@pytest.mark.parametrize("spec", ["1746460", "1746460@1976567", f"sha256:{DIGEST}"])
def test_what_civitai_deleted_is_found_in_the_archive(
    civitai: FaultyHub, settings: Settings, tmp_path: Path, spec: str
) -> None:
    civitai.content = lora(5)  # so that it does not know the hash
    hub = open_hub(settings)
    wanted = hub.resolve(spec)
    assert (wanted.hub, wanted.model.id, wanted.file.sha256) == ("civarchive", 1746460, DIGEST)
    assert deliver(hub, wanted, Transfer(tmp_path / "out"))[0].verified


def test_a_file_on_this_disk_is_looked_up_everywhere(civitai: FaultyHub, settings: Settings, tmp_path: Path) -> None:
    civitai.content = lora(5)
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(lora())
    assert open_hub(settings).find(str(path)).model.id == 1746460


def test_a_file_whose_metadata_was_rewritten_is_known_by_its_tensors(
    civitai: FaultyHub, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "rewritten.safetensors"
    body = lora()
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    text = json.dumps({"__metadata__": {"note": "rewritten"}, **header}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body[8 + int.from_bytes(body[:8], "little") :])
    tensors = hash_file(path).autov3 or ""
    record = json.dumps(civitai.version_json()).encode()
    civitai.answers[f"/api/v1/model-versions/by-hash/{tensors.upper()}"] = (200, {}, record)
    assert open_hub(settings, civitai.api).find(str(path)).model.id == MODEL


def test_a_file_that_the_hub_lists_and_no_longer_has_comes_from_a_mirror(
    civitai: FaultyHub, archive: SmallSite, settings: Settings, tmp_path: Path
) -> None:
    civitai.always["download"] = Fault(status=404, body=b'{"error":"File not found"}')
    hub = open_hub(settings)
    done = deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))[0]
    assert done.path.read_bytes() == lora()
    assert archive.paths() == [f"/api/sha256/{DIGEST}", "/mirror"]


def test_what_the_creator_does_not_give_away_is_not_fetched_elsewhere(
    civitai: FaultyHub, archive: SmallSite, settings: Settings, tmp_path: Path
) -> None:
    civitai.version = {"usageControl": "Generation"}
    hub = open_hub(settings)
    with pytest.raises(Forbidden):
        deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))
    assert not archive.asked


def test_what_nobody_has_is_reported_as_the_first_hub_said_it(settings: Settings) -> None:
    with pytest.raises(NotFound, match="Not found"):
        open_hub(settings).find("m:4242")


def test_an_archive_that_is_away_changes_nothing(civitai: FaultyHub, settings: Settings) -> None:
    from dataclasses import replace

    gone = replace(settings, hubs={"civitai": civitai.api, "civarchive": "http://127.0.0.1:9"}, timeout_s=0.05)
    with pytest.raises(NotFound):
        open_hub(gone).find(f"sha256:{'ab' * 32}")


def test_a_hub_that_was_chosen_by_name_is_asked_alone(
    civitai: FaultyHub, archive: SmallSite, settings: Settings
) -> None:
    with pytest.raises(NotFound):
        open_hub(settings, civitai.api).find("m:1746460")
    assert not archive.asked


def test_no_fallback_asks_nobody_else(archive: SmallSite, settings: Settings) -> None:
    from dataclasses import replace

    with pytest.raises(NotFound):
        open_hub(replace(settings, fallback=())).find("m:1746460")
    assert not archive.asked


def test_several_hubs_are_asked_in_order_and_searched_together(
    civitai: FaultyHub, archive: SmallSite, settings: Settings
) -> None:
    from dataclasses import replace

    civitai.answers["/api/v1/models"] = (200, {}, json.dumps({"items": [civitai.model_json()]}).encode())
    archive.pages["/api/search"] = page({"results": [{"id": 9, "type": "LORA", "name": "other"}]})
    hub = open_hub(replace(settings, hub=civitai.api, further_hubs=("civarchive",)))
    assert [model.id for model in hub.search(Query()).models] == [MODEL, 9]
    assert hub.find("1746460").model.name == "Mixplin Style [Illustrious]"


def test_an_address_of_the_same_hub_is_asked_when_the_first_has_nothing(tmp_path: Path) -> None:
    with FaultyHub() as red, FaultyHub() as com:
        red.answers[f"/api/v1/models/{MODEL}"] = (404, {}, b'{"error":"No model with id 1001"}')
        red.always["download"] = Fault(status=404)
        folders = Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e")
        addresses = f"{red.api}, {com.api}/api/v1"
        hub = open_hub(Settings(folders, hubs={"civitai": addresses}, fallback=(), timeout_s=0.6))
        wanted = hub.resolve(str(MODEL))
        assert wanted.file.mirrors == (f"{com.api}/api/download/models/{VERSION}?fileId={FILE}",)
        assert deliver(hub, wanted, Transfer(tmp_path / "out"))[0].verified
        assert com.requests("api")[0].path == f"/api/v1/models/{MODEL}"


def test_the_token_stays_with_the_address_that_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret")
    with FaultyHub() as first, FaultyHub() as second:
        first.answers[f"/api/v1/models/{MODEL}"] = (404, {}, b"{}")
        folders = Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e")
        hubs = {"mine": f"{first.api},{second.api}"}
        open_hub(Settings(folders, hub="mine", hubs=hubs, timeout_s=0.6)).find(f"m:{MODEL}")
        assert first.seen[0].headers["authorization"] == "Bearer secret"
        assert "authorization" not in second.seen[0].headers


def test_a_host_that_failed_often_is_left_alone_for_a_while(civitai: FaultyHub, settings: Settings) -> None:
    civitai.always["api"] = Fault(status=500)
    hub = open_hub(settings, civitai.api)
    for _ in range(2):
        with pytest.raises(NetworkFailure):
            hub.model(MODEL)
    before = len(civitai.seen)
    with pytest.raises(NetworkFailure, match="left alone"):
        hub.model(MODEL)
    assert len(civitai.seen) == before == 12
    assert open_hub(settings, civitai.api)  # the next run starts afresh
    civitai.always.clear()
    assert open_hub(settings, civitai.api).model(MODEL).id == MODEL
