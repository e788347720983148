"""Every fault × (fresh, gone on with) × (one connection, four): the right file, or a clean error and nothing half-named."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, VERSION, FaultyHub
from hostile.faults import CONTENT, RIGHT, SCENARIOS, Scenario

from hubtool.errors import HubtoolError
from hubtool.hubs.transfer import Transfer, download

if TYPE_CHECKING:
    from pathlib import Path

#: Errors that say that the bytes are wrong.
SPOILT = {"hash_mismatch", "wrong_file", "unsafe_file"}


def transfer(folder: Path, **options: object) -> Transfer:
    return Transfer(folder / "out", least_bytes=16_384, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "out").iterdir()} if (folder / "out").exists() else set()


def set_up(hub: FaultyHub, scenario: Scenario) -> None:
    hub.always.update(scenario.always)
    queues = {"api": hub.on_api, "download": hub.on_download, "storage": hub.on_storage}
    for kind, faults in scenario.first.items():
        queues[kind].extend(faults)
    hub.single_use = scenario.single_use
    for hop in range(scenario.hops):
        target = f"/hop/{hop + 1}" if hop + 1 < scenario.hops else f"{hub.storage}/files/x?sig=1"
        hub.answers[f"/hop/{hop}"] = (307, {"Location": target}, b"")
    if scenario.hops:
        hub.answers[f"/api/download/models/{VERSION}"] = (307, {"Location": "/hop/0"}, b"")


def interrupt(hub: FaultyHub, folder: Path, connections: int) -> None:
    """Leave what a run leaves that was killed in the middle."""
    opened = hub.open(folder / "home", connections=connections)
    client, wanted = opened.client, opened.resolve(str(MODEL))

    def report(done: int, _: int | None) -> None:
        if done >= 65_536 and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(client, wanted, transfer(folder, watch=lambda _: nullcontext(report)))
    assert any(name.endswith(".part") for name in names(folder))


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_a_download_under_a_fault_ends_as_it_should(
    scenario: Scenario, resumed: bool, connections: int, tmp_path: Path
) -> None:
    with FaultyHub(CONTENT) as hub:
        if resumed:
            interrupt(hub, tmp_path, connections)
        hub.file, begun = scenario.file, len(hub.requests("storage"))
        set_up(hub, scenario)
        ended = outcome(hub, tmp_path, connections, scenario.timeout_s)
        assert ended in ({scenario.ends} if isinstance(scenario.ends, str) else set(scenario.ends))
        assert len(hub.requests("storage")) - begun <= 60
    left = names(tmp_path)
    assert not [name for name in left if name.endswith(".lock")]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hubtool")]
    if ended not in {RIGHT, "unverified"}:
        assert all(name.startswith(".hubtool-") for name in left), "something half-named was left"
        is_kept = any(name.endswith(".part") for name in left)
        assert is_kept or not resumed or ended in SPOILT, "what was fetched before was thrown away"
        assert not is_kept or resumed or ended not in SPOILT, "wrong bytes were kept"


def outcome(hub: FaultyHub, folder: Path, connections: int, timeout_s: float) -> str:
    """`right`, `unverified`, or the code of the error, after looking at what it says and what is there."""
    client = hub.open(folder / "home", timeout_s, connections=connections)
    try:
        done = download(client.client, client.resolve(str(MODEL)), transfer(folder))
    except HubtoolError as error:
        said = f"{error} {error.hint} {getattr(error, 'url', '')}"
        is_sentence = str(error).endswith((".", "!", "?")) or ": " in str(error)
        leaks = "sig=" in said or "secret" in said
        return error.code if is_sentence and not leaks else said
    assert done.path.read_bytes() == hub.content
    assert done.path.resolve().parent == (folder / "out").resolve()
    others = names(folder) - {done.path.name}
    assert not others or (hub.file and all(name.startswith(".hubtool-") for name in others)), "left over"
    return RIGHT if done.verified else "unverified"
