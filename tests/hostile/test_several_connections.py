"""Several connections for one file: what they ask for, when they are used, and what they must never cause."""

from __future__ import annotations

import re
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, NAME, Fault, FaultyHub, lora

from hubtool.hubs.transfer import Transfer, download

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubtool.hubs.hub import Downloaded

CONTENT = lora(5, 12_000_000)


@pytest.fixture
def hub() -> Iterator[FaultyHub]:
    with FaultyHub(CONTENT) as running:
        yield running


def fetch(hub: FaultyHub, folder: Path, connections: int | None, **settings: object) -> Downloaded:
    opened = hub.open(folder / "home", 2.0, connections=connections, **settings)
    return download(opened.client, opened.resolve(str(MODEL)), Transfer(folder / "out"))


def ranges(hub: FaultyHub) -> list[tuple[int, int]]:
    asked = [
        re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", "bytes=0-")) for seen in hub.requests("storage")
    ]
    return [(int(match[1]), int(match[2] or len(CONTENT) - 1)) for match in asked if match]


def test_the_address_is_resolved_once_and_every_byte_is_asked_for_about_once(hub: FaultyHub, tmp_path: Path) -> None:
    hub.always["storage"] = Fault(pause_s=0.05)
    done = fetch(hub, tmp_path, 4)
    assert done.path.read_bytes() == CONTENT
    assert len([seen for seen in hub.requests("api") if "/download/" in seen.path]) == 1
    assert len({seen.query for seen in hub.requests("storage")}) == 1
    bounded = [end - start + 1 for start, end in ranges(hub) if start]
    assert len(bounded) >= 3
    assert sum(bounded) < 1.5 * len(CONTENT)
    assert all("if-range" in seen.headers for seen in hub.requests("storage")[1:])


def test_no_more_connections_than_named_are_open_at_once(hub: FaultyHub, tmp_path: Path) -> None:
    helpers: set[int] = set()

    def count(_done: int, _total: int | None) -> None:
        helpers.add(sum(thread.name == "hubtool-helper" for thread in threading.enumerate()))

    opened = hub.open(tmp_path / "home", 2.0, connections=3, limit_bytes_s=24_000_000)
    transfer = Transfer(tmp_path / "out", watch=lambda _: nullcontext(count))
    download(opened.client, opened.resolve(str(MODEL)), transfer)
    assert max(helpers) == 2


def test_unasked_a_file_comes_over_one_connection(hub: FaultyHub, tmp_path: Path) -> None:
    fetch(hub, tmp_path, None)
    assert len(hub.requests("storage")) == 1


@pytest.mark.parametrize("record", [{"hashes": {}}, {"hashes": {"CRC32": "00000000"}}], ids=["no hash", "a weak hash"])
def test_without_a_published_sha256_nothing_could_prove_the_pieces_so_there_is_one_connection(
    hub: FaultyHub, tmp_path: Path, record: dict[str, object]
) -> None:
    hub.file = record
    opened = hub.open(tmp_path / "home", connections=4)
    download(opened.client, opened.resolve(str(MODEL)), Transfer(tmp_path / "out", verify=False))
    assert len(hub.requests("storage")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(without=("ETag",)), id="no ETag"),
        pytest.param(Fault(headers={"ETag": 'W/"weak"'}), id="a weak one"),
        pytest.param(Fault(without=("Accept-Ranges",)), id="no ranges"),
        pytest.param(Fault(without=("Content-Length",)), id="no length"),
    ],
)
def test_where_pieces_cannot_be_told_to_belong_together_there_is_one_connection(
    hub: FaultyHub, tmp_path: Path, fault: Fault
) -> None:
    hub.always["storage"] = fault
    assert fetch(hub, tmp_path, 4).verified
    assert len(hub.requests("storage")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=429, headers={"Retry-After": "30"}, ranges_only=True), id="429"),
        pytest.param(Fault(status=503, ranges_only=True), id="503"),
        pytest.param(Fault(status=403, ranges_only=True), id="403"),
        pytest.param(Fault(ignore_range=True, ranges_only=True), id="200 for a range"),
        pytest.param(Fault(headers={"ETag": '"other"'}, ignore_if_range=True, ranges_only=True), id="another ETag"),
        pytest.param(Fault(total=1, ranges_only=True), id="another total"),
        pytest.param(Fault(raw=b"nonsense\r\n\r\n", ranges_only=True), id="nonsense"),
        pytest.param(Fault(cut=0, ranges_only=True), id="resets"),
    ],
)
def test_a_server_that_wants_one_connection_gets_one_and_the_file_comes_all_the_same(
    hub: FaultyHub, tmp_path: Path, fault: Fault
) -> None:
    hub.always["storage"] = fault
    began = time.monotonic()
    done = fetch(hub, tmp_path, 4, limit_bytes_s=24_000_000)  # slow enough for helpers to be heard
    assert (done.verified, done.path.read_bytes()) == (True, CONTENT)
    assert time.monotonic() - began < 10
    assert len(hub.requests("storage")) <= 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]


def test_the_limit_on_the_rate_holds_for_all_connections_together(hub: FaultyHub, tmp_path: Path) -> None:
    began = time.monotonic()
    fetch(hub, tmp_path, 4, limit_bytes_s=12_000_000)
    assert 0.6 < time.monotonic() - began < 8


def test_the_token_goes_to_no_helper(hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    hub.always["storage"] = Fault(pause_s=0.05)
    fetch(hub, tmp_path, 4)
    assert len(hub.requests("storage")) > 3
    assert not any("authorization" in seen.headers for seen in hub.requests("storage"))
