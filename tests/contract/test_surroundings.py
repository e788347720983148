"""Proxies, certificates and IPv6 as the environment has them, and that none of them opens a way inside."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from contract.certificates import authority_file
from contract.faulty_hub import MODEL, FaultyHub, lora
from contract.small_net import SmallProxy, SmallSocks, names
from contract.small_site import Page, SmallSite, page

from hubtool.errors import MissingExtra, NetworkFailure, UnsafeAddress, UsageProblem
from hubtool.hubs.delivery import deliver
from hubtool.hubs.opening import open_hub
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HUB = "https://hub.example"
SECRET = "hubtok_SECRET123"
DOWNLOAD = "/api/download/models/2"


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallSite]:
    """A hub and its storage behind https, with a certificate of our own authority."""
    monkeypatch.setenv("SSL_CERT_FILE", authority_file())
    with SmallSite(secure=True) as running:
        serve(running, "https://storage.example/file?sig=abc")
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), hub=HUB, timeout_s=0.5)


def serve(site: SmallSite, location: str) -> None:
    """Model 1 with one file, whose download leads to `location`."""
    digest = hashlib.sha256(lora()).hexdigest()
    file = {"id": 3, "name": "a.safetensors", "sizeKB": len(lora()) / 1024, "hashes": {"SHA256": digest}}
    site.pages["/api/v1/models/1"] = page({"id": 1, "modelVersions": [{"id": 2, "files": [file]}]})
    site.pages[DOWNLOAD] = Page(b"", 307, {"Location": location})
    site.pages["/file"] = Page(lora(), ranged=True)


def fetch(settings: Settings, folder: Path, spec: str = "1") -> bool:
    hub = open_hub(settings)
    return deliver(hub, hub.resolve(spec), Transfer(folder))[0].verified


def tokens(site: SmallSite) -> set[tuple[str, str]]:
    """Which hosts heard which Authorization."""
    return {(asked.headers["host"], asked.headers.get("authorization", "")) for asked in site.asked}


# ---------------------------------------------------------------- proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_download_goes_through_the_proxy_and_the_token_to_the_hub_alone(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    names(monkeypatch, {})  # only the proxy can look names up
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    here = ("127.0.0.1", site.port)
    with SmallProxy({"hub.example": here, "storage.example": here}) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        assert fetch(settings, tmp_path / "out")
    assert set(proxy.asked) == {"CONNECT hub.example:443 HTTP/1.1", "CONNECT storage.example:443 HTTP/1.1"}
    assert tokens(site) == {("hub.example", f"Bearer {SECRET}"), ("storage.example", "")}
    assert SECRET not in "".join(proxy.headers)


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/file",
        "https://10.0.0.1/file",
        "https://2130706433/file",
        "https://0x7f.1/file",
        "https://[::ffff:127.0.0.1]/file",
        "https://127\u30020\u30020\u30021/file",
        "https://127%2e0.0.1/file",
        "https://inner.example/file",
        "https://localhost/file",
    ],
)
def test_no_answer_leads_inside_behind_a_proxy_either(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    """Neither numbers nor names that our own resolver sends inside: the proxy never hears of them."""
    names(monkeypatch, {"inner.example": "192.168.7.7"})
    serve(site, location.encode().decode("latin-1"))  # as it is on the wire
    with SmallProxy({"hub.example": ("127.0.0.1", site.port)}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(UnsafeAddress):
            fetch(settings, tmp_path / "out")
    assert set(proxy.asked) == {"CONNECT hub.example:443 HTTP/1.1"}


def test_what_no_proxy_exempts_is_looked_at_as_without_a_proxy(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmallSite(secure=True) as inner, SmallProxy({"hub.example": ("127.0.0.1", site.port)}) as proxy:
        names(monkeypatch, {"inner.example": ("127.0.0.1", inner.port)})
        serve(site, "https://inner.example/file")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "inner.example")
        with pytest.raises(UnsafeAddress, match="this machine"):
            fetch(settings, tmp_path / "out")
        assert not inner.asked


def test_a_hub_that_no_proxy_exempts_is_asked_directly(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, {"hub.example": ("127.0.0.1", site.port), "storage.example": ("127.0.0.1", site.port)})
    with SmallProxy() as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", ".example,hub.example")
        assert fetch(settings, tmp_path / "out")
    assert not proxy.asked


def test_plain_http_is_forwarded_by_its_own_proxy(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, {})
    with SmallSite() as site, SmallProxy({"hub.example": ("127.0.0.1", site.port)}) as proxy:
        serve(site, "http://hub.example/file")
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        assert fetch(replace(settings, hub="http://hub.example"), tmp_path / "out")
    assert proxy.asked[0] == "GET http://hub.example/api/v1/models/1 HTTP/1.1"


def test_this_machine_is_asked_without_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with FaultyHub() as server:
        assert server.open(tmp_path).model(MODEL).id == MODEL


def test_a_proxy_that_is_away_or_refuses_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, {})
    quick = replace(settings, timeout_s=0.05)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@127.0.0.1:9")
    with pytest.raises(NetworkFailure, match=r"The proxy 127\.0\.0\.1:9 cannot be reached") as caught:
        open_hub(quick).model(1)
    assert "HTTPS_PROXY" in caught.value.hint
    assert "word" not in f"{caught.value}{caught.value.hint}"
    with SmallProxy(refuse=b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(NetworkFailure, match="refuses: 407 Proxy Authentication Required"):
            open_hub(quick).model(1)


@pytest.mark.parametrize("value", ["ftp://user:word@proxy.example", "http://user:word@[::1", "http://u:word@h:x"])
def test_what_is_no_proxy_is_said_without_its_password(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(UsageProblem, match="ALL_PROXY") as caught:
        open_hub(settings).model(1)
    assert "word" not in str(caught.value)


def test_a_socks_proxy_says_what_it_needs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match="SOCKS") as caught:
        open_hub(settings).model(1)
    assert "hubtool[socks]" in caught.value.hint


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_download_goes_through_a_socks_proxy(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    pytest.importorskip("socksio")
    names(monkeypatch, {"inner.example": "10.0.0.1"})
    here = ("127.0.0.1", site.port)
    with SmallSocks({"hub.example": here, "storage.example": here, "inner.example": here}) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://{proxy.place}")
        assert fetch(settings, tmp_path / "out")
        serve(site, "https://inner.example/file")
        with pytest.raises(UnsafeAddress):
            fetch(settings, tmp_path / "two")
    assert set(proxy.asked) == {"hub.example", "storage.example"}


# ---------------------------------------------------------------- certificates


def test_an_unknown_authority_is_not_trusted_and_nothing_is_sent(
    site: SmallSite, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names(monkeypatch, {"hub.example": ("127.0.0.1", site.port), "other.test": ("127.0.0.1", site.port)})
    with pytest.raises(NetworkFailure, match=r"certificate of other\.test cannot be trusted"):
        open_hub(settings, "https://other.test").model(1)
    assert open_hub(settings).model(1).id == 1
    asked = len(site.asked)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NetworkFailure, match="cannot be trusted") as caught:
        open_hub(settings).model(1)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert len(site.asked) == asked


def test_a_file_of_certificates_that_is_none_is_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    for place in (tmp_path / "nowhere.pem", empty):
        monkeypatch.setenv("SSL_CERT_FILE", str(place))
        with pytest.raises(UsageProblem, match="SSL_CERT_FILE"):
            open_hub(settings).model(1)


# ---------------------------------------------------------------- IPv6


def test_a_hub_on_ipv6_alone_is_downloaded_from(settings: Settings, tmp_path: Path) -> None:
    with SmallSite("::1") as site:
        serve(site, f"{site.url}/file")
        assert fetch(replace(settings, hub=site.url), tmp_path / "out")
        assert {asked.headers["host"] for asked in site.asked} == {f"[::1]:{site.port}"}


def test_a_name_with_an_ipv6_address_alone_is_reached(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority_file())
    with SmallSite("::1", secure=True) as site:
        names(monkeypatch, {"hub.example": ("::1", site.port), "storage.example": ("::1", site.port)})
        serve(site, "https://storage.example/file")
        assert fetch(settings, tmp_path / "out")
