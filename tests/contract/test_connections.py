"""What the client looks at below HTTP: who is at the other end of a connection, and how to end it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, Fault, FaultyHub

from hubtool.errors import HubProblem, NetworkFailure, NotFound, UnsafeAddress
from hubtool.hubs.addresses import Reach
from hubtool.hubs.client import USER_AGENT, Client
from hubtool.hubs.question import Site
from hubtool.hubs.retry import TryAgain
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyHub]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with FaultyHub() as running:
        yield running


def public_client(server: FaultyHub, home: Path) -> Client:
    """The client of a hub on the public network."""
    return Client(Site("https://192.0.2.1", frozenset()), server.settings(home))


def test_a_name_that_leads_inside_is_noticed_before_anything_is_sent(server: FaultyHub, tmp_path: Path) -> None:
    client = public_client(server, tmp_path)
    with pytest.raises(UnsafeAddress), client.open(f"{server.storage}/x", {}, client.site.base):
        pass
    assert not server.seen


def test_a_name_that_changes_its_address_in_between_leads_nowhere_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub was met at a public place; that its name, and what it names, later resolve to this machine opens no door."""
    from contract.small_net import names
    from contract.small_site import Page, SmallSite

    with SmallSite() as site, SmallSite() as inner:
        inner.pages["/x"] = Page(b"inner")
        names(monkeypatch, {"hub.example": ("127.0.0.1", site.port), "cdn.example": ("127.0.0.1", inner.port)})
        settings = Settings(Directories(tmp_path, tmp_path, tmp_path), timeout_s=0.3)
        client = Client(Site("http://hub.example", frozenset()), settings)
        client._seen["hub.example"] = Reach.PUBLIC  # loopback stands in for where it was met
        for location in ("http://cdn.example/x", f"http://127.0.0.1:{inner.port}/x"):
            site.pages["/go"] = Page(b"", 302, {"Location": location})
            with pytest.raises(UnsafeAddress), client.open("http://hub.example/go", {}, "http://hub.example"):
                pass
        assert not inner.asked


def test_a_picture_that_a_hub_names_is_fetched_without_the_token(
    server: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    server.answers["/picture"] = (200, {}, b"\xff\xd8\xff")
    client = server.open(tmp_path).client
    assert client.get_bytes(f"{server.api}/picture", 1 << 20) == b"\xff\xd8\xff"
    assert "authorization" not in server.seen[0].headers
    with pytest.raises(HubProblem):
        client.get_bytes(f"{server.api}/picture", 2)
    with pytest.raises(UnsafeAddress):
        client.get_bytes("file:///etc/passwd", 1 << 20)


def test_the_user_agent_is_not_a_browsers(server: FaultyHub, tmp_path: Path) -> None:
    server.open(tmp_path).model(MODEL)
    sent = server.seen[0].headers["user-agent"]
    assert sent == USER_AGENT
    assert sent.startswith("hubtool/")
    assert not any(word in sent.lower() for word in ("mozilla", "chrome", "safari", "firefox", "opera", "edge"))


def test_nobody_there_is_a_network_failure_after_a_few_tries(tmp_path: Path) -> None:
    with FaultyHub() as gone:
        settings = gone.settings(tmp_path, timeout_s=0.1)
    with pytest.raises(NetworkFailure, match="cannot be reached"):
        Client(Site(gone.api, frozenset()), settings).get_json("/api/v1/models/1")


def test_what_is_no_http_is_reported_without_quoting_it(server: FaultyHub, tmp_path: Path) -> None:
    server.always["download"] = Fault(headers={"Location": "http://127.0.0.1/\x0b?signature=abc"})
    client = server.open(tmp_path, timeout_s=0.1).client
    with pytest.raises(TryAgain) as caught, client.open(f"{server.api}/api/download/models/2001", {}, server.api):
        pass
    assert "abc" not in str(caught.value.problem)


def test_one_workers_429_holds_back_the_others(server: FaultyHub, tmp_path: Path) -> None:
    server.on_api.append(Fault(status=429, headers={"Retry-After": "1"}))
    hub = server.open(tmp_path, timeout_s=0.1)
    began = time.monotonic()
    first = threading.Thread(target=hub.model, args=(MODEL,))
    first.start()
    while not server.seen:
        time.sleep(0.01)
    time.sleep(0.1)
    hub.model(MODEL)
    assert time.monotonic() - began >= 0.9
    first.join()


def test_abort_ends_a_transfer_that_waits_for_bytes(server: FaultyHub, tmp_path: Path) -> None:
    server.always["api"] = Fault(pause_s=5)
    hub = server.open(tmp_path, timeout_s=20)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            hub.model(MODEL)
        except HubProblem as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    while not server.seen:
        time.sleep(0.01)
    time.sleep(0.1)
    began = time.monotonic()
    hub.client.abort()
    worker.join()
    assert time.monotonic() - began < 2
    assert len(failures) == 1


def test_a_trickling_error_is_not_read_to_its_end(server: FaultyHub, tmp_path: Path) -> None:
    server.always["api"] = Fault(status=404, drip_s=0.05, body=b"No model" + b" " * 10_000)
    began = time.monotonic()
    with pytest.raises(NotFound):
        server.open(tmp_path, timeout_s=0.3).model(MODEL)
    assert time.monotonic() - began < 3
