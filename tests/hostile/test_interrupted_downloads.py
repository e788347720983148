"""The real command, ended from outside, or with a disk, a folder or a clock that does not play along."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, NAME, VERSION, Fault, FaultyHub, lora
from support.command import HUBTOOL

from hubtool.errors import DiskFull, StorageProblem
from hubtool.hubs.transfer import Transfer, download

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = lora(3, 6_000_000)
SLOWLY = ("--limit-rate", "1M")
CONNECTIONS = pytest.mark.parametrize("connections", [1, 4])
on_posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and owners of POSIX")


@pytest.fixture
def hub() -> Iterator[FaultyHub]:
    with FaultyHub(CONTENT) as running:
        yield running


def command(hub: FaultyHub, folder: Path, *arguments: object) -> list[str]:
    return [str(HUBTOOL), "download", f"v:{VERSION}", "--hub", hub.api, "-o", str(folder), *map(str, arguments)]


def begun(hub: FaultyHub, folder: Path, *arguments: object, **popen: object) -> subprocess.Popen[bytes]:
    """A download in a process of its own, of which a fair part is on disk by now."""
    process = subprocess.Popen(
        command(hub, folder, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        **popen,
    )
    deadline = time.monotonic() + 30
    # what is on disk, not how far it reaches: further connections write ahead of a hole
    while not (parts := list(folder.glob("*.part"))) or 512 * parts[0].stat().st_blocks < 400_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def finish(hub: FaultyHub, folder: Path, *arguments: object) -> dict[str, object]:
    done = subprocess.run(
        command(hub, folder, *arguments, "--json"), capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return json.loads(done.stdout)["results"][0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@on_posix
@CONNECTIONS
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_part_releases_the_lock_and_the_next_run_goes_on(
    hub: FaultyHub, tmp_path: Path, number: int, code: int, connections: int
) -> None:
    process = begun(hub, tmp_path, *SLOWLY, "--connections", connections)
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, b"Traceback" in said) == (code, False)
    assert time.monotonic() - began < 5
    assert not [name for name in names(tmp_path) if name.endswith((".lock", ".safetensors"))]
    row = finish(hub, tmp_path)
    assert int(str(row["resumed_from"])) > 300_000
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert names(tmp_path) == [NAME]


@on_posix
@CONNECTIONS
def test_a_limit_on_file_sizes_is_a_full_disk_and_what_came_is_kept(
    hub: FaultyHub, tmp_path: Path, connections: int
) -> None:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    done = subprocess.run(
        command(hub, tmp_path, "--connections", connections, "--json"),
        preexec_fn=limited, capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    error = json.loads(done.stdout)["results"][0]["error"]
    assert (done.returncode, error["code"]) == (1, "disk_full")
    assert {name.rpartition(".")[2] for name in names(tmp_path)} <= {"part", "pieces", "state"}
    row = finish(hub, tmp_path)
    assert (row["status"], int(str(row["resumed_from"])) > 1_000_000) == ("downloaded", True)
    assert names(tmp_path) == [NAME]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes root to become somebody else")
def test_a_folder_that_somebody_else_owns_is_named_in_a_sentence(hub: FaultyHub, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir(mode=0o555)
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    script = "import os, sys; os.setgid(65534); os.setuid(65534); from hubtool.cli import main; main(sys.argv[1:])"
    arguments = command(hub, folder, "--json")[1:]
    done = subprocess.run(
        [HUBTOOL.with_name("python"), "-c", script, *arguments],
        capture_output=True, check=False, env={"HUBTOOL_HOME": str(home), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    if not done.stdout:
        pytest.skip("another user cannot even read the program here")
    error = json.loads(done.stdout)["results"][0]["error"]
    assert (done.returncode, error["code"]) == (1, "storage")
    assert ".hubtool-" in error["message"] or "out" in error["message"]


def test_two_processes_that_want_one_file_fetch_it_once(hub: FaultyHub, tmp_path: Path) -> None:
    first = begun(hub, tmp_path, "--limit-rate", "4M")
    asked = len(hub.requests("storage"))
    row = finish(hub, tmp_path)
    first.communicate(timeout=30)
    assert (first.returncode, row["status"]) == (0, "present")
    assert len(hub.requests("storage")) == asked
    assert names(tmp_path) == [NAME]


@CONNECTIONS
def test_after_a_kill_the_next_run_goes_on_with_another_number_of_connections(
    hub: FaultyHub, tmp_path: Path, connections: int
) -> None:
    process = begun(hub, tmp_path, *SLOWLY, "--connections", connections)
    process.kill()
    process.communicate()
    row = finish(hub, tmp_path, "--connections", 5 - connections)
    assert int(str(row["resumed_from"])) > 300_000
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert names(tmp_path) == [NAME]


# ---------------------------------------------------------------- other programs, and the clock


def fetch(hub: FaultyHub, folder: Path, meanwhile: Callable[[], None], connections: int = 1) -> Path:
    """Download, and do something else once when half a megabyte is there."""
    pending = [meanwhile]

    def report(done: int, _: int | None) -> None:
        if done > 500_000 and pending:
            pending.pop()()

    opened = hub.open(folder / "home", connections=connections)
    transfer = Transfer(folder / "out", watch=lambda _: nullcontext(report))
    return download(opened.client, opened.resolve(str(MODEL)), transfer).path


def part_of(folder: Path) -> Path:
    return next((folder / "out").glob("*.part"))


@CONNECTIONS
def test_a_part_that_another_program_replaces_is_not_published(
    hub: FaultyHub, tmp_path: Path, connections: int
) -> None:
    def exchange() -> None:
        part = part_of(tmp_path)
        part.unlink()
        part.write_bytes(b"something else")

    with pytest.raises(StorageProblem, match="replaced it"):
        fetch(hub, tmp_path, exchange, connections)
    assert not (tmp_path / "out" / NAME).exists()


def test_a_part_that_another_program_removes_is_an_error_not_a_missing_file(hub: FaultyHub, tmp_path: Path) -> None:
    with pytest.raises(StorageProblem):
        fetch(hub, tmp_path, lambda: part_of(tmp_path).unlink())


def test_a_file_that_takes_the_name_meanwhile_is_not_overwritten(hub: FaultyHub, tmp_path: Path) -> None:
    path = fetch(hub, tmp_path, lambda: (tmp_path / "out" / NAME).write_bytes(b"mine") and None)
    assert path.name == f"style_{VERSION}.safetensors"
    assert (tmp_path / "out" / NAME).read_bytes() == b"mine"


def test_a_part_that_another_program_cuts_short_is_not_published(hub: FaultyHub, tmp_path: Path) -> None:
    with pytest.raises(StorageProblem, match="shorter"):
        fetch(hub, tmp_path, lambda: os.truncate(part_of(tmp_path), 100_000))
    assert not (tmp_path / "out" / NAME).exists()


def test_a_part_that_was_published_and_not_removed_is_left_alone_by_a_fresh_start(
    hub: FaultyHub, tmp_path: Path
) -> None:
    """What a kill between the last two steps leaves: the part is the final file under another name."""
    hub.file = {"hashes": {}}  # without a hash the file at its place is not recognised before the download
    final = fetch(hub, tmp_path, lambda: None)
    client = hub.open(tmp_path / "home")
    wanted = client.resolve(str(MODEL))
    with pytest.raises(KeyboardInterrupt):
        download(client.client, wanted, Transfer(tmp_path / "two", watch=lambda _: nullcontext(interrupting)))
    part = tmp_path / "out" / next((tmp_path / "two").glob("*.part")).name
    os.link(final, part)
    hub.always["storage"] = Fault(status=403)
    with pytest.raises(Exception, match="403"):
        download(client.client, wanted, Transfer(tmp_path / "out", resume=False))
    assert final.read_bytes() == CONTENT


def interrupting(_done: int, _total: int | None) -> None:
    raise KeyboardInterrupt


def test_what_a_killed_run_left_beside_the_finished_file_is_removed(hub: FaultyHub, tmp_path: Path) -> None:
    final = fetch(hub, tmp_path, lambda: None)
    client = hub.open(tmp_path / "home")
    with pytest.raises(KeyboardInterrupt):
        download(
            client.client,
            client.resolve(str(MODEL)),
            Transfer(tmp_path / "two", watch=lambda _: nullcontext(interrupting)),
        )
    for left in (tmp_path / "two").iterdir():
        left.rename(tmp_path / "out" / left.name)
    done = download(client.client, client.resolve(str(MODEL)), Transfer(tmp_path / "out"))
    assert (done.status, names(tmp_path / "out")) == ("present", [final.name])


@CONNECTIONS
def test_a_clock_that_jumps_changes_nothing(
    hub: FaultyHub, tmp_path: Path, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(1, 1_000_000))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** (turn := next(jumps)) * turn * 86_400)
    hub.on_storage.extend([Fault(cut=700_000)] * 3)
    path = fetch(hub, tmp_path, lambda: None, connections)
    assert path.read_bytes() == CONTENT


@on_posix
@CONNECTIONS
def test_a_small_file_system_that_fills_up_is_reported_and_no_thread_is_left(
    hub: FaultyHub, tmp_path: Path, connections: int
) -> None:
    small = tmp_path / "out"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", small], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        hub.file = {"sizeKB": None}
        hub.always["storage"] = Fault(without=("Content-Length",))  # so that the room cannot be reckoned beforehand
        with pytest.raises(DiskFull):
            fetch(hub, tmp_path, lambda: None, connections)
        assert part_of(tmp_path).stat().st_size > 1_000_000
    finally:
        subprocess.run(["umount", small], check=True)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hubtool")]
