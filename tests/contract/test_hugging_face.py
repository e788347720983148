"""Hugging Face's API over a real socket: recorded repositories, LoRA repositories of our making, and its refusals."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import lora
from contract.small_site import Asked, Page, SmallSite, page

from hubtool.errors import (
    AmbiguousSpec,
    BadSpec,
    Forbidden,
    NeedsToken,
    NotFound,
    RateLimited,
    UnsafeFile,
    UsageProblem,
    WrongFile,
)
from hubtool.hubs.delivery import deliver
from hubtool.hubs.hub import Query
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.hubs.hub import Hub

RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "huggingface"
SHA = "f4b0486b498f84668e828044de1d0c8ba486e05b"
REPO = "artist/pixel-lora"


def checkpoint() -> bytes:
    entry = {"dtype": "F16", "shape": [4, 4], "data_offsets": [0, 32]}
    header = json.dumps({"model.diffusion_model.input_blocks.0.0.weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(32)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallSite]:
    with SmallSite() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def hub(site: SmallSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return open_hub(Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.5))


def publish(site: SmallSite, files: dict[str, bytes], **fields: object) -> None:
    """A repository with these files, as the API lists and the storage serves them."""
    siblings = [
        {"rfilename": name, "size": 130, "lfs": {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}}
        for name, body in files.items()
    ]
    card = {"base_model": "black-forest-labs/FLUX.1-dev", "instance_prompt": "pxl art"}
    record = {
        "id": REPO,
        "sha": SHA,
        "author": "artist",
        "gated": False,
        "tags": ["lora", "diffusers"],
        "cardData": card,
    }
    site.pages[f"/api/models/{REPO}"] = page(record | {"siblings": siblings} | fields)
    for name, body in files.items():
        target = f"/cdn/{name}"
        site.pages[f"/{REPO}/resolve/{SHA}/{name}"] = Page(b"", 302, {"Location": target})
        site.pages[target] = Page(body, ranged=True)


def test_a_recorded_repository_lists_its_weights_with_their_hashes(site: SmallSite, hub: Hub) -> None:
    recorded = json.loads((RECORDED / "repository_sdxl_turbo.json").read_text("utf-8"))
    site.pages["/api/models/stabilityai/sdxl-turbo"] = page(recorded)
    found = hub.find("https://huggingface.co/stabilityai/sdxl-turbo")
    weights = {s["rfilename"]: s["lfs"] for s in recorded["siblings"] if s["rfilename"].endswith(".safetensors")}
    listed = {file.id: file for file in found.model.versions[0].files if file.name.endswith(".safetensors")}
    assert set(listed) == set(weights)
    for path, file in listed.items():
        assert (file.sha256, file.size_bytes) == (weights[path]["sha256"], weights[path]["size"])
        assert file.url == f"{site.url}/stabilityai/sdxl-turbo/resolve/{recorded['sha']}/{path}"
    assert found.model.license.name == "sai-nc-community"
    assert (found.model.downloads, found.model.creator, found.version.id) == (588989, "test_author", recorded["sha"])


def test_the_base_model_and_the_trigger_are_those_of_the_card(site: SmallSite, hub: Hub) -> None:
    publish(site, {"pixel.safetensors": lora()})
    found = hub.find(f"hf:{REPO}")
    assert found.model.base_models == ("black-forest-labs/FLUX.1-dev",)
    assert found.model.type == "LORA"
    assert found.version is not None
    assert found.version.trigger_words == ("pxl art",)


def test_a_download_is_pinned_to_the_commit_and_verified(site: SmallSite, hub: Hub, tmp_path: Path) -> None:
    publish(site, {"pytorch_lora_weights.safetensors": lora(), "README.md": b"text"})
    done = deliver(hub, hub.resolve(f"hf:{REPO}"), Transfer(tmp_path / "out"))[0]
    assert (done.path.name, done.verified) == ("pixel-lora.safetensors", True)
    assert done.path.read_bytes() == lora()
    assert f"/{REPO}/resolve/{SHA}/pytorch_lora_weights.safetensors" in site.paths()


def test_a_revision_is_asked_for_by_name(site: SmallSite, hub: Hub) -> None:
    publish(site, {"a.safetensors": lora()})
    site.pages[f"/api/models/{REPO}/revision/v2%2Fbeta"] = site.pages[f"/api/models/{REPO}"]
    assert hub.find(f"https://huggingface.co/{REPO}/resolve/v2%2Fbeta/a.safetensors").file is not None


def test_among_several_files_the_one_lora_is_found_by_its_header(site: SmallSite, hub: Hub) -> None:
    whole = checkpoint()
    publish(site, {"big.safetensors": whole, "style.safetensors": lora(), "unet/model.safetensors": whole})
    assert hub.resolve(f"hf:{REPO}").file.id == "style.safetensors"
    ranges = [asked.headers.get("range") for asked in site.asked if asked.path.startswith("/cdn/")]
    assert ranges
    assert all(ranges)  # no file was fetched whole


def test_several_loras_are_a_question_and_one_can_be_named(site: SmallSite, hub: Hub) -> None:
    publish(site, {"epoch-1.safetensors": lora(1), "epoch-2.safetensors": lora(2)})
    with pytest.raises(AmbiguousSpec) as caught:
        hub.resolve(f"hf:{REPO}")
    assert "epoch-1.safetensors" in caught.value.hint
    assert hub.resolve(f"hf:{REPO}", "epoch-2.safetensors").file.id == "epoch-2.safetensors"
    assert hub.resolve(f"hf:{REPO}/epoch-1.safetensors").file.id == "epoch-1.safetensors"
    with pytest.raises(NotFound):
        hub.resolve(f"hf:{REPO}/epoch-3.safetensors")


def test_a_repository_without_a_lora_costs_a_header_and_not_gigabytes(site: SmallSite, hub: Hub) -> None:
    publish(site, {"model.safetensors": checkpoint()})
    with pytest.raises(WrongFile, match="by its files' headers"):
        hub.resolve(f"hf:{REPO}")
    assert hub.resolve(f"hf:{REPO}", "model.safetensors").file.size_bytes == len(checkpoint())


def test_a_repository_of_pickles_is_refused(site: SmallSite, hub: Hub) -> None:
    publish(site, {"style.ckpt": b"\x80\x04"})
    with pytest.raises(UnsafeFile):
        hub.resolve(f"hf:{REPO}")


@pytest.mark.parametrize(
    ("status", "code", "token", "error"),
    [
        (401, "GatedRepo", "", NeedsToken),
        (403, "GatedRepo", "hf_secret", Forbidden),
        (401, "RepoNotFound", "", NotFound),
        (404, "RepoNotFound", "hf_secret", NotFound),
        (404, "RevisionNotFound", "", NotFound),
        (404, "EntryNotFound", "", NotFound),
    ],
)
def test_a_refusal_says_what_to_do(  # noqa: PLR0917
    site: SmallSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, token: str, error: type
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    site.pages[f"/api/models/{REPO}"] = page({"error": "Access to model is restricted."}, status, X_Error_Code=code)
    hub = open_hub(Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.2))
    with pytest.raises(error) as caught:
        hub.find(f"hf:{REPO}")
    assert type(caught.value) is error
    assert caught.value.hint
    assert token == "" or token not in f"{caught.value} {caught.value.hint}"


def test_a_window_that_is_used_up_is_waited_out(site: SmallSite, hub: Hub) -> None:
    site.pages[f"/api/models/{REPO}"] = page({}, 429, RateLimit='"api";r=0;t=400')
    with pytest.raises(RateLimited) as caught:
        hub.find(f"hf:{REPO}")
    assert caught.value.retry_after_s == 401


def test_the_token_goes_to_the_endpoint_and_not_to_what_it_redirects_to(
    site: SmallSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_secret\n")
    publish(site, {"a.safetensors": lora()})
    with SmallSite() as storage:
        storage.pages["/blob"] = Page(lora(), ranged=True)
        site.pages[f"/{REPO}/resolve/{SHA}/a.safetensors"] = Page(b"", 302, {"Location": f"{storage.url}/blob"})
        hub = open_hub(Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.5))
        deliver(hub, hub.resolve(f"hf:{REPO}"), Transfer(tmp_path / "out"))
        assert {asked.headers.get("authorization") for asked in site.asked} == {"Bearer hf_secret"}
        assert storage.asked
        assert not any("authorization" in asked.headers for asked in storage.asked)


def test_the_token_of_the_hub_in_use_does_not_go_to_hugging_face(
    site: SmallSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "civitai_secret")
    publish(site, {"a.safetensors": lora()})
    settings = Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.5)
    open_hub(settings).find(f"hf:{REPO}")
    assert not any("authorization" in asked.headers for asked in site.asked)
    open_hub(settings, "huggingface").find(f"hf:{REPO}")
    assert site.asked[-1].headers["authorization"] == "Bearer civitai_secret"


def test_a_search_asks_for_image_loras_and_goes_on_by_cursor(site: SmallSite, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Page:
        if asked.query.get("cursor"):
            return page(
                [{"id": "a/two", "tags": ["lora"]}, {"id": "a/nsfw", "tags": ["not-for-all-audiences"]}, {"x": 1}]
            )
        link = f'<{site.url}/api/models?cursor=abc%3D&limit=2>; rel="next"'
        return page([{"id": "a/one", "tags": ["lora"]}, {"id": "a/one"}], Link=link)

    site.pages["/api/models"] = answer
    hub = open_hub(Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.5), "huggingface")
    found = hub.search(Query("pixel", base_models=("SDXL 1.0",), limit=5))
    assert [model.id for model in found.models] == ["a/one", "a/two"]
    assert found.next_cursor is None
    first, second = site.asked
    bases = "base_model:adapter:stabilityai/stable-diffusion-xl-base-1.0"
    assert first.query["filter"] == ["lora", "diffusers", bases]
    assert (first.query["search"], second.query["cursor"]) == (["pixel"], ["abc="])


def search_hub(tmp_path: Path) -> Hub:
    folders = Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e")
    return open_hub(Settings(folders, timeout_s=0.5), "huggingface")


def numbered(site: SmallSite, count: int) -> None:
    """A search that has `count` models for each base model, as many a page as asked for, every third not for all."""

    def answer(asked: Asked) -> Page:
        base = asked.query["filter"][-1].rpartition("/")[2]
        start, limit = int(asked.query.get("cursor", ["0"])[0]), int(asked.query["limit"][0])
        tags = [["lora"], ["lora"], ["lora", "not-for-all-audiences"]]
        rows = [
            {"id": f"{base}/{n}", "tags": tags[n % 3], "downloads": n} for n in range(start, min(start + limit, count))
        ]
        more = start + limit < count
        return page(rows, Link=f'<{site.url}/x?cursor={start + limit}>; rel="next"') if more else page(rows)

    site.pages["/api/models"] = answer


def test_what_is_left_out_of_a_page_is_made_up_for_and_nothing_is_lost(site: SmallSite, tmp_path: Path) -> None:
    numbered(site, 30)
    hub, found, cursor = search_hub(tmp_path), [], ""
    for _ in range(10):
        said = hub.search(Query(limit=7, cursor=cursor, base_models=("a/b",)))
        assert len(said.models) <= 7
        found += [model.id for model in said.models]
        cursor = said.next_cursor or ""
        if not cursor:
            break
    assert found == [f"b/{n}" for n in range(30) if n % 3 != 2]


def test_several_base_models_are_alternatives(site: SmallSite, tmp_path: Path) -> None:
    """The hub's filters must all hold, and nothing is for two base models."""
    numbered(site, 6)
    hub, found, cursor = search_hub(tmp_path), set[str](), ""
    for _ in range(10):
        said = hub.search(Query(limit=4, cursor=cursor, base_models=("x/one", "x/two")))
        assert len(said.models) <= 4
        found |= {str(model.id) for model in said.models}
        cursor = said.next_cursor or ""
        if not cursor:
            break
    assert found == {f"{base}/{n}" for base in ("one", "two") for n in (0, 1, 3, 4)}
    assert all(len(asked.query["filter"]) == 3 for asked in site.asked)
    few = hub.search(Query(limit=1, base_models=("x/one", "x/two")))
    rest = hub.search(Query(limit=9, base_models=("x/one", "x/two"), cursor=few.next_cursor or ""))
    assert {str(model.id) for model in (*few.models, *rest.models)} >= {"one/0", "two/0"}
    with pytest.raises(UsageProblem, match="another search"):
        hub.search(Query(cursor=few.next_cursor or ""))


def test_a_search_for_what_it_is_not_searched_for_is_refused(site: SmallSite, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="LoRAs only, not for Checkpoint"):
        search_hub(tmp_path).search(Query(types=("LORA", "Checkpoint")))
    assert not site.asked


@pytest.mark.parametrize("spec", ["hf:", "hf:single", "hf:a/b/../c", "https://huggingface.co/datasets/a/b"])
def test_what_names_no_repository_is_refused(hub: Hub, spec: str) -> None:
    with pytest.raises(BadSpec):
        hub.find(spec)
