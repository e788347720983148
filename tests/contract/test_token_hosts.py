"""Who hears a token: Civitai's real names over TLS, all led to one server of ours, whose log says who was told what."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from contract.certificates import authority_file
from contract.faulty_hub import lora
from contract.small_net import names
from contract.small_site import Page, SmallSite, page

from hubtool.errors import HubtoolError, NotFound, UnsafeAddress, UsageProblem
from hubtool.hubs.accounts import who_am_i
from hubtool.hubs.delivery import deliver
from hubtool.hubs.hub import Query
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "hubtok_SECRET123"
HEARD = f"Bearer {SECRET}"
HOSTS = ("civitai.red", "civitai.com", "b2.civitai.com", "evilcivitai.com", "civitai.com.evil.example", "evil.example")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallSite]:
    """Civitai and everybody else."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", authority_file())
    monkeypatch.setenv("CIVITAI_TOKEN", SECRET)
    digest = hashlib.sha256(lora()).hexdigest()
    file = {"id": 3, "name": "a.safetensors", "sizeKB": len(lora()) / 1024, "hashes": {"SHA256": digest}}
    with SmallSite(secure=True) as running:
        names(monkeypatch, {**dict.fromkeys(HOSTS, ("127.0.0.1", running.port)), "localhost": "127.0.0.1"})
        running.pages["/api/v1/models/1"] = page({"id": 1, "modelVersions": [{"id": 2, "files": [file]}]})
        running.pages["/file"] = Page(lora(), ranged=True)
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), fallback=(), timeout_s=0.4)


def heard(site: SmallSite) -> set[tuple[str, str]]:
    """Host and path of every request that carried the token, in whatever place."""
    return {(asked.headers["host"], asked.path) for asked in site.asked if SECRET in str(asked)}


@pytest.mark.parametrize(
    "location",
    [
        "https://b2.civitai.com/file",
        "https://evilcivitai.com/file",
        "https://civitai.com.evil.example/file",
        "https://civitai.com:{port}/file",
        "https://civitai.red/file",
        "//civitai.com/file",
        "/file",
    ],
    ids=["a subdomain", "a look-alike", "a look-alike below", "another port", "itself", "its sister", "relative"],
)
def test_a_redirect_is_followed_without_the_token(
    site: SmallSite, settings: Settings, tmp_path: Path, location: str
) -> None:
    target = location.format(port=site.port)
    site.pages["/api/download/models/2"] = Page(b"", 307, {"Location": target})
    hub = open_hub(settings)
    assert deliver(hub, hub.resolve("1"), Transfer(tmp_path / "out"))[0].verified
    assert heard(site) == {("civitai.red", "/api/v1/models/1"), ("civitai.red", "/api/download/models/2")}
    assert any(asked.path == "/file" for asked in site.asked)


@pytest.mark.parametrize("location", ["http://civitai.com/file", "http://civitai.red/file", "ftp://civitai.com/file"])
def test_a_redirect_to_plain_http_is_not_followed_at_all(
    site: SmallSite, settings: Settings, tmp_path: Path, location: str
) -> None:
    site.pages["/api/download/models/2"] = Page(b"", 307, {"Location": location})
    hub = open_hub(settings)
    with pytest.raises(UnsafeAddress):
        deliver(hub, hub.resolve("1"), Transfer(tmp_path / "out"))
    assert not any(asked.path == "/file" for asked in site.asked)


@pytest.mark.parametrize("host", ["civitai.com", "evil.example", "civitai.com.evil.example"])
def test_a_next_page_is_asked_of_the_hub_itself(site: SmallSite, settings: Settings, host: str) -> None:
    first = {"items": [], "metadata": {"nextPage": f"https://{host}/api/v1/models?cursor=9&token={SECRET}"}}
    answers = iter([page(first), page({"items": [{"id": 7}], "metadata": {}})])
    site.pages["/api/v1/models"] = lambda _: next(answers)
    assert [model.id for model in open_hub(settings).search(Query()).models] == [7]
    assert {asked.headers["host"] for asked in site.asked} == {"civitai.red"}
    assert site.asked[1].query["cursor"] == ["9"]
    assert "token" not in site.asked[1].query


def test_one_account_serves_civitais_hosts_and_nobody_elses(site: SmallSite, settings: Settings) -> None:
    del site.pages["/api/v1/models/1"]
    with pytest.raises(NotFound):
        open_hub(settings).find("m:1")
    assert [(asked.headers["host"], asked.headers.get("authorization")) for asked in site.asked] == [
        ("civitai.red", HEARD),
        ("civitai.com", HEARD),
    ]
    for address in ("https://evilcivitai.com", "https://b2.civitai.com", "https://civitai.com.evil.example"):
        with pytest.raises(NotFound):
            open_hub(settings, address).find("m:1")
    assert len(heard(site)) == 2


def test_a_picture_is_fetched_without_the_token(site: SmallSite, settings: Settings) -> None:
    client = open_hub(settings).client
    for host in ("civitai.red", "evil.example"):
        assert client.get_bytes(f"https://{host}/file", 1 << 20) == lora()
    assert not heard(site)


@pytest.mark.parametrize("address", ["http://evil.example", "http://1.1.1.1:8080", "http://civitai.com"])
def test_a_token_is_not_sent_over_plain_http_beyond_this_network(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    names(monkeypatch, {"evil.example": "1.1.1.1", "civitai.com": "1.1.1.1"})
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    with pytest.raises(UsageProblem, match="HUBTOOL_TOKEN is not sent over plain http") as caught:
        open_hub(settings, address)
    assert SECRET not in f"{caught.value}{caught.value.hint}"


def test_on_this_network_a_named_hub_hears_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {"nas.lan": "192.168.1.5"})
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    for address in ("http://nas.lan:8080", "http://192.168.1.5", "http://127.0.0.1:9", "http://localhost:9"):
        assert open_hub(settings, address).client.site.token == SECRET


@pytest.mark.parametrize(
    ("mirror", "hears"),
    [("https://civitai.com/api/download/models/2", True), ("https://evilcivitai.com/api/download/models/2", False)],
)
def test_an_archives_mirror_hears_the_login_of_its_own_host(
    site: SmallSite, settings: Settings, tmp_path: Path, mirror: str, *, hears: bool
) -> None:
    digest = hashlib.sha256(lora()).hexdigest()
    site.pages[f"/api/sha256/{digest}"] = page({"files": [{"sha256": digest, "name": "a", "downloadUrl": mirror}]})
    site.pages["/api/download/models/2"] = Page(b"", 307, {"Location": "https://b2.civitai.com/file"})
    hub = open_hub(replace(settings, hubs={"civarchive": "https://evil.example"}), "civarchive")
    assert deliver(hub, hub.resolve(f"sha256:{digest}"), Transfer(tmp_path / "out"))[0].verified
    assert heard(site) == ({("civitai.com", "/api/download/models/2")} if hears else set())


def test_a_hub_that_echoes_the_token_is_kept_without_it(site: SmallSite, settings: Settings) -> None:
    echo = {"id": 5, "name": f"for {SECRET}", "url": f"https://civitai.com/?token={SECRET}", "modelVersions": []}
    site.pages["/api/v1/models/5"] = page(echo)
    model = open_hub(settings).model(5)
    assert SECRET not in f"{model} {model.raw}"
    kept = open_hub(settings).client.answers.latest("https://civitai.red/api/v1/models/5")
    assert kept is not None
    assert SECRET.encode() not in kept.body


def test_a_login_that_the_hub_redirects_elsewhere_is_no_login(site: SmallSite, settings: Settings) -> None:
    site.pages["/api/v1/me"] = Page(b"", 307, {"Location": "https://evil.example/api/v1/me"})
    with pytest.raises(HubtoolError):
        who_am_i(settings, "civitai")
    assert heard(site) == {("civitai.red", "/api/v1/me")}
