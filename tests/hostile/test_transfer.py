"""Whatever the network and the servers do, the final name holds the right file or nothing."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, NAME, VERSION, Fault, FaultyHub, lora

from hubtool.errors import (
    DiskFull,
    EarlyAccess,
    Forbidden,
    HashMismatch,
    HubProblem,
    NeedsToken,
    NetworkFailure,
    NotFound,
    RateLimited,
    UnsafeAddress,
    UnsafeFile,
    WrongFile,
)
from hubtool.hubs.transfer import Transfer, download

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hubtool.hubs.hub import Downloaded

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>" * 20
RESET_ONCE = Fault(cut=65_536)


@pytest.fixture
def hub() -> Iterator[FaultyHub]:
    with FaultyHub() as running:
        yield running


def fetch(hub: FaultyHub, folder: Path, **options: object) -> Downloaded:
    client = hub.open(folder / "home")
    return download(client.client, client.resolve(str(MODEL)), Transfer(folder / "out", **options))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir()) if (folder / "out").exists() else []


def assert_right(hub: FaultyHub, folder: Path, done: Downloaded) -> None:
    assert done.path.read_bytes() == hub.content
    assert (done.sha256, done.size_bytes, done.verified) == (hub.sha256, len(hub.content), True)
    assert files(folder) == [done.path.name]


# ---------------------------------------------------------------- survived


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([], id="none"),
        pytest.param([RESET_ONCE], id="reset once"),
        pytest.param([Fault(cut=30_000)] * 5, id="five resets with progress"),
        pytest.param([Fault(cut=0)] * 2, id="reset before the first byte"),
        pytest.param([Fault(cut=-1)], id="one byte short"),
        pytest.param([Fault(pause_s=1.5)], id="a silence longer than the timeout"),
        pytest.param([RESET_ONCE, Fault(ignore_range=True)], id="200 for a range"),
        pytest.param([RESET_ONCE, Fault(shift=512)], id="bytes shifted under a right header"),
        pytest.param([RESET_ONCE, Fault(headers={"Content-Range": "bytes 1-9/10"})], id="another range than asked"),
        pytest.param([RESET_ONCE, Fault(headers={"Content-Range": "bytes 65536-9/299"})], id="another total"),
        pytest.param([RESET_ONCE, Fault(without=("Content-Range",))], id="206 without Content-Range"),
        pytest.param([RESET_ONCE, Fault(status=416)], id="416 for a range that exists"),
        pytest.param([Fault(status=503)] * 2, id="503 twice"),
        pytest.param([Fault(status=429, headers={"Retry-After": "soon"})], id="429 with a senseless Retry-After"),
        pytest.param(
            [RESET_ONCE, Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")], id="lease expired"
        ),
        pytest.param([Fault(body=lora(7))], id="another file of the same size once"),
        pytest.param([Fault(headers={"Content-Type": "application/json"})], id="wrong content type"),
        pytest.param([Fault(without=("ETag",), cut=65_536)], id="no validator but a published hash"),
        pytest.param([Fault(headers={"Content-Length": "200999"})], id="a length that is too long"),
        pytest.param([Fault(without=("Content-Length",))], id="no length"),
    ],
)
def test_a_fault_that_passes_ends_in_the_right_file(hub: FaultyHub, tmp_path: Path, faults: list[Fault]) -> None:
    hub.on_storage.extend(faults)
    assert_right(hub, tmp_path, fetch(hub, tmp_path))


def test_a_broken_connection_is_continued_where_it_broke_with_the_same_lease(hub: FaultyHub, tmp_path: Path) -> None:
    hub.on_storage.append(RESET_ONCE)
    fetch(hub, tmp_path)
    first, second = hub.requests("storage")
    assert second.headers["range"] == "bytes=65536-"
    assert second.headers["if-range"].startswith('"')
    assert first.query == second.query


def test_an_expired_lease_is_renewed_and_the_file_continued(hub: FaultyHub, tmp_path: Path) -> None:
    hub.on_storage.extend([RESET_ONCE, Fault(status=403)])
    fetch(hub, tmp_path)
    last = hub.requests("storage")[-1]
    assert last.headers["range"] == "bytes=65536-"
    assert last.query != hub.requests("storage")[0].query


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fault(body=LOGIN), WrongFile, id="a login page"),
        pytest.param(Fault(body=b'{"error":"Something broke"}'), WrongFile, id="a JSON error"),
        pytest.param(Fault(body=b'{"error":"Unauthorized","message":"log in"}'), NeedsToken, id="a JSON login demand"),
        pytest.param(Fault(body=b"version https://git-lfs.github.com/spec/v1\n"), WrongFile, id="an LFS pointer"),
        pytest.param(Fault(body=b"PK\x03\x04" + bytes(60) + b"archive/data.pkl" + bytes(9)), UnsafeFile, id="a pickle"),
        pytest.param(Fault(body=b""), WrongFile, id="nothing"),
        pytest.param(Fault(body=lora(7)), HashMismatch, id="right size, wrong bytes"),
        pytest.param(Fault(body=lora(0, 100_000)), HashMismatch, id="a shorter well-formed file"),
        pytest.param(Fault(body=lora() + b"<html>"), HashMismatch, id="a few bytes more"),
        pytest.param(Fault(body=lora()[:90_000], without=("Content-Length",)), HashMismatch, id="cut without a length"),
        pytest.param(Fault(headers={"Content-Encoding": "gzip"}), WrongFile, id="claims to be gzip"),
        pytest.param(Fault(status=500), NetworkFailure, id="500 for ever"),
        pytest.param(Fault(status=403), NetworkFailure, id="storage refuses for ever"),
        pytest.param(Fault(cut=1000), NetworkFailure, id="reset for ever"),
        pytest.param(
            Fault(status=429, headers={"Retry-After": "315360000"}), RateLimited, id="ten years of Retry-After"
        ),
        pytest.param(Fault(without=("Content-Length",), body=lora() + bytes(1 << 22)), WrongFile, id="endless"),
    ],
)
def test_a_fault_that_stays_leaves_nothing_at_the_final_name(
    hub: FaultyHub, tmp_path: Path, fault: Fault, error: type[HubProblem]
) -> None:
    hub.always["storage"] = fault
    with pytest.raises(error) as caught:
        fetch(hub, tmp_path)
    assert NAME not in files(tmp_path)
    assert "sig=" not in str(caught.value) + caught.value.hint + caught.value.url
    assert len(hub.seen) <= 14


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(Fault(status=401, body=b'{"error":"Unauthorized","message":"log in"}'), NeedsToken, id="login"),
        pytest.param(
            Fault(status=403, body=b'{"error":"Early Access","deadline":"2026-10-11"}'), EarlyAccess, id="paid"
        ),
        pytest.param(Fault(status=404, body=b'{"error":"File not found"}'), NotFound, id="missing"),
        pytest.param(Fault(status=410, body=b'{"error":"Model archived"}'), NotFound, id="archived"),
        pytest.param(Fault(status=451, body=b'{"error":"legal"}'), Forbidden, id="region"),
        pytest.param(Fault(status=429, body=b'{"error":"unusual amount of downloading"}'), RateLimited, id="quota"),
        pytest.param(Fault(headers={"Location": "file:///etc/passwd"}), UnsafeAddress, id="to file:"),
        pytest.param(Fault(headers={"Location": "http://u:p@127.0.0.1:1/"}), UnsafeAddress, id="with a login"),
        pytest.param(Fault(headers={"Location": "/login?returnUrl=/"}), NeedsToken, id="to the login page"),
        pytest.param(Fault(without=("Location",)), HubProblem, id="to nowhere"),
        pytest.param(Fault(headers={"Location": f"/api/download/models/{VERSION}"}), HubProblem, id="in circles"),
    ],
)
def test_the_hubs_own_refusal_is_final_and_typed(
    hub: FaultyHub, tmp_path: Path, fault: Fault, error: type[HubProblem]
) -> None:
    hub.always["download"] = fault
    with pytest.raises(error):
        fetch(hub, tmp_path)
    assert files(tmp_path) == []
    assert len(hub.requests("api")) <= 7


def test_early_access_says_when_it_ends(hub: FaultyHub, tmp_path: Path) -> None:
    hub.always["download"] = Fault(status=403, body=b'{"error":"Early Access","deadline":"2026-10-11T14:30:00.000Z"}')
    with pytest.raises(EarlyAccess) as caught:
        fetch(hub, tmp_path)
    assert caught.value.deadline == "2026-10-11T14:30:00.000Z"
    assert caught.value.deadline in caught.value.hint


def test_a_pickle_is_not_even_asked_for(hub: FaultyHub, tmp_path: Path) -> None:
    hub.file = {"name": "style.pt", "metadata": {"format": "PickleTensor"}}
    with pytest.raises(UnsafeFile):
        fetch(hub, tmp_path)
    assert not hub.requests("storage")


def test_a_file_that_may_be_used_on_the_site_only_is_forbidden(hub: FaultyHub, tmp_path: Path) -> None:
    hub.version = {"usageControl": "Generation"}
    with pytest.raises(Forbidden):
        fetch(hub, tmp_path)


@pytest.mark.parametrize("fault", [Fault(drip_s=0.02), Fault(head_drip_s=0.1)], ids=["in the body", "in the header"])
def test_a_trickle_is_given_up(hub: FaultyHub, tmp_path: Path, fault: Fault) -> None:
    hub.always["storage"] = fault
    client = hub.open(tmp_path / "home", timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(NetworkFailure):
        download(client.client, client.resolve(str(MODEL)), Transfer(tmp_path / "out"))
    assert time.monotonic() - began < 10


def test_a_disk_without_room_is_noticed_before_the_first_byte(hub: FaultyHub, tmp_path: Path) -> None:
    hub.always["storage"] = Fault(headers={"Content-Length": str(1 << 60)})
    hub.file = {"sizeKB": (1 << 60) / 1024}
    with pytest.raises(DiskFull):
        fetch(hub, tmp_path)
    assert files(tmp_path) == []


# ---------------------------------------------------------------- the token


def test_the_token_is_seen_by_the_hub_and_by_nobody_else(
    hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    hub.on_storage.append(RESET_ONCE)
    fetch(hub, tmp_path)
    assert all(seen.headers["authorization"] == "Bearer secret-token" for seen in hub.requests("api"))
    assert not any("authorization" in seen.headers or "token" in seen.query for seen in hub.requests("storage"))


def test_a_redirect_back_to_the_hub_carries_no_token(
    hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    hub.on_download.append(Fault(headers={"Location": f"/api/download/models/{VERSION}?hop=2"}))
    fetch(hub, tmp_path)
    first, second = (seen for seen in hub.requests("api") if "/download/" in seen.path)
    assert "authorization" in first.headers
    assert "authorization" not in second.headers


def test_a_redirects_target_gets_no_token_even_on_the_hubs_own_origin(
    hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    hub.always["download"] = Fault(headers={"Location": f"/files/{NAME}?sig=1"})
    hub.on_storage.append(RESET_ONCE)
    fetch(hub, tmp_path)
    held = [seen for seen in hub.seen if seen.path.startswith("/files/")]
    assert len(held) == 2
    assert not any("authorization" in seen.headers for seen in held)


def test_a_refusal_by_another_page_of_the_hub_is_the_hubs(hub: FaultyHub, tmp_path: Path) -> None:
    hub.always["download"] = Fault(headers={"Location": "/elsewhere"})
    hub.answers["/elsewhere"] = (403, {}, b'{"error":"Early Access"}')
    with pytest.raises(EarlyAccess):
        fetch(hub, tmp_path)


def test_another_hubs_token_is_not_sent(hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUBTOOL_TOKEN", raising=False)
    monkeypatch.setenv("CIVITAI_TOKEN", "secret-token")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(hub, tmp_path)
    assert not any("authorization" in seen.headers for seen in hub.seen)


# ---------------------------------------------------------------- names and neighbours


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../../tmp/evil.safetensors", "evil.safetensors"),
        ("..\\evil.safetensors", "evil.safetensors"),
        ("CON.safetensors", "_CON.safetensors"),
        ("run.exe", "run.exe.safetensors"),
        ("lora.safetensors.json", "lora.safetensors.json.safetensors"),
        ("lora\u202esrosnetefas.exe", "lorasrosnetefas.exe.safetensors"),
        ("", NAME),
        (None, NAME),
        ("..", NAME),
        ("a\nOK verified.safetensors", "a OK verified.safetensors"),
    ],
)
def test_the_hubs_name_cannot_leave_the_folder_or_choose_another_kind(
    hub: FaultyHub, tmp_path: Path, name: str | None, expected: str
) -> None:
    hub.file = {"name": name}
    assert fetch(hub, tmp_path).path == tmp_path / "out" / expected
    assert files(tmp_path) == [expected]


def test_the_storages_name_counts_only_where_the_hub_has_none(hub: FaultyHub, tmp_path: Path) -> None:
    disposition = Fault(headers={"Content-Disposition": 'attachment; filename="other.safetensors"'})
    hub.always["storage"] = disposition
    assert fetch(hub, tmp_path).path.name == NAME
    hub.file = {"name": ""}
    assert fetch(hub, tmp_path / "b").path.name == "other.safetensors"


def test_another_file_of_that_name_is_kept(hub: FaultyHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_text("mine")
    done = fetch(hub, tmp_path)
    assert done.path.name == f"style_{VERSION}.safetensors"
    assert (tmp_path / "out" / NAME).read_text() == "mine"
    assert fetch(hub, tmp_path).status == "present"


def test_a_planted_link_is_not_written_through(hub: FaultyHub, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).symlink_to(target)
    assert fetch(hub, tmp_path).path.name == f"style_{VERSION}.safetensors"
    assert target.read_text() == "mine"


def test_the_same_content_is_not_fetched_twice(hub: FaultyHub, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    before = len(hub.requests("storage"))
    done = fetch(hub, tmp_path)
    assert (done.status, done.verified, len(hub.requests("storage"))) == ("present", True, before)


def test_processes_that_want_one_file_get_one_file(hub: FaultyHub, tmp_path: Path) -> None:
    done: list[Downloaded] = []
    threads = [threading.Thread(target=lambda: done.append(fetch(hub, tmp_path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in done) == ["downloaded"] + ["present"] * 5
    assert files(tmp_path) == [NAME]
    assert len(hub.requests("storage")) == 1


# ---------------------------------------------------------------- promises that are thin


def test_without_a_published_hash_size_and_structure_decide_and_it_is_not_called_verified(
    hub: FaultyHub, tmp_path: Path
) -> None:
    hub.file = {"hashes": {}}
    done = fetch(hub, tmp_path)
    assert (done.verified, done.sha256) == (False, hub.sha256)
    hub.always["storage"] = Fault(body=hub.content[:-8])
    with pytest.raises(HashMismatch):
        fetch(hub, tmp_path / "b")


def test_without_sha256_another_published_hash_verifies(hub: FaultyHub, tmp_path: Path) -> None:
    hub.file = {"hashes": {"AutoV3": hashlib.sha256(hub.content[8 + hub.content[0] :]).hexdigest()[:12].upper()}}
    assert fetch(hub, tmp_path).verified
    hub.file = {"hashes": {"CRC32": "00000000"}}
    with pytest.raises(HashMismatch):
        fetch(hub, tmp_path / "b")


def test_a_wrong_published_hash_can_be_ignored_but_not_by_default(hub: FaultyHub, tmp_path: Path) -> None:
    hub.file = {"hashes": {"SHA256": "0" * 64}}
    with pytest.raises(HashMismatch):
        fetch(hub, tmp_path)
    assert files(tmp_path) == []
    assert fetch(hub, tmp_path, verify=False).verified is False


def test_a_size_that_differs_from_the_hubs_is_refused_before_writing(hub: FaultyHub, tmp_path: Path) -> None:
    hub.file = {"sizeKB": len(hub.content) / 1024 + 4}
    with pytest.raises(HashMismatch):
        fetch(hub, tmp_path)
    assert files(tmp_path) == []


def test_a_damaged_file_whose_hash_is_right_is_refused(tmp_path: Path) -> None:
    with FaultyHub(lora()[:-100]) as hub, pytest.raises(WrongFile):
        fetch(hub, tmp_path)


def test_an_archive_that_was_asked_for_is_stored_as_it_is(tmp_path: Path) -> None:
    with FaultyHub(b"PK\x03\x04" + bytes(600)) as hub:
        hub.file = {"name": "training.zip", "type": "Training Data"}
        client = hub.open(tmp_path)
        done = download(client.client, client.resolve(str(MODEL), "training.zip"), Transfer(tmp_path / "out"))
    assert done.path.name == "training.zip"


# ---------------------------------------------------------------- interrupted


def leave_part(hub: FaultyHub, folder: Path) -> Path:
    """What a run that was killed after 65,536 bytes leaves."""
    hub.on_storage.append(RESET_ONCE)
    client = hub.open(folder / "home")
    wanted = client.resolve(str(MODEL))

    def report(done: int, _: int | None) -> None:
        if done >= 65_536:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(client.client, wanted, Transfer(folder / "out", watch=lambda _: nullcontext(report)))
    return next((folder / "out").glob("*.part"))


def test_ctrl_c_keeps_the_part_and_the_next_run_continues_it(hub: FaultyHub, tmp_path: Path) -> None:
    part = leave_part(hub, tmp_path)
    assert part.stat().st_size == 65_536
    done = fetch(hub, tmp_path)
    assert done.resumed_from == 65_536
    assert_right(hub, tmp_path, done)


def test_no_resume_begins_at_zero(hub: FaultyHub, tmp_path: Path) -> None:
    leave_part(hub, tmp_path)
    done = fetch(hub, tmp_path, resume=False)
    assert done.resumed_from == 0
    assert "range" not in hub.requests("storage")[-1].headers
    assert_right(hub, tmp_path, done)


def test_a_part_with_a_damaged_byte_is_thrown_away_after_the_hash_says_so(hub: FaultyHub, tmp_path: Path) -> None:
    part = leave_part(hub, tmp_path)
    with part.open("r+b") as file:
        file.seek(50_000)
        file.write(b"\0\0\0\0")
    done = fetch(hub, tmp_path)
    assert done.resumed_from == 0
    assert_right(hub, tmp_path, done)


def test_a_part_that_is_already_whole_needs_no_storage(hub: FaultyHub, tmp_path: Path) -> None:
    part = leave_part(hub, tmp_path)
    part.write_bytes(hub.content)
    before = len(hub.requests("storage"))
    done = fetch(hub, tmp_path)
    assert (done.resumed_from, len(hub.requests("storage"))) == (len(hub.content), before)
    assert_right(hub, tmp_path, done)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"etag": 1, "last_modified": "", "total": "x"}'])
def test_an_unreadable_state_is_no_obstacle(hub: FaultyHub, tmp_path: Path, junk: bytes) -> None:
    part = leave_part(hub, tmp_path)
    part.with_suffix(".state").write_bytes(junk)
    assert_right(hub, tmp_path, fetch(hub, tmp_path))


def test_without_hash_a_file_that_changed_on_the_storage_is_begun_anew(hub: FaultyHub, tmp_path: Path) -> None:
    hub.file = {"hashes": {}}
    leave_part(hub, tmp_path)
    hub.content = lora(8)
    done = fetch(hub, tmp_path)
    assert (done.resumed_from, done.path.read_bytes()) == (0, hub.content)


def test_the_part_and_its_state_hold_no_address(
    hub: FaultyHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", "secret-token")
    part = leave_part(hub, tmp_path)
    state = part.with_suffix(".state").read_text()
    assert "sig" not in state
    assert "http" not in state
    assert "secret" not in state


def test_a_limit_on_the_rate_is_kept(tmp_path: Path) -> None:
    with FaultyHub(lora(0, 300_000)) as hub:
        began = time.monotonic()
        client = hub.open(tmp_path / "home", limit_bytes_s=400_000)
        download(client.client, client.resolve(str(MODEL)), Transfer(tmp_path / "out"))
        assert time.monotonic() - began > 0.5


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(hub: FaultyHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(Exception, match="out"):
        fetch(hub, tmp_path)
