"""Several files at a time: order, bounds, and what is said about them."""

from __future__ import annotations

import io
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, VERSION, FaultyHub, lora
from rich.console import Console
from rich.progress import Progress

from hubtool.cli._progress import Bars
from hubtool.hubs.batch import Wish, download_all
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings, bytes_a_second, with_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Watched:
    """Notes the order in which files begin, and how many are on their way at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def watch(self, name: str) -> Iterator[Callable[[int, int | None], None]]:
        with self._lock:
            self.begun.append(name)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        yield lambda _done, _total: None
        with self._lock:
            self.now -= 1


def _file(number: int, size_kb: float) -> dict[str, object]:
    name = f"s{number}.safetensors"
    return {"id": 100 + number, "name": name, "sizeKB": size_kb + number / 1024, "primary": not number}


@pytest.fixture
def hub() -> Iterator[FaultyHub]:
    """One version with five files of the same bytes; the hub says that they differ in size by a little."""
    with FaultyHub(lora(0, 50_000)) as running:
        record = running.version_json()["files"][0]
        sizes = [3, 1, 4, 0, 2]
        running.version = {"files": [record | _file(size, record["sizeKB"]) for size in sizes]}
        yield running


def fetch_all(hub: FaultyHub, folder: Path, jobs: int, **wish: bool) -> tuple[Watched, list[str]]:
    watched = Watched()
    transfer = Transfer(folder / "out", watch=watched.watch)
    outcomes = download_all(hub.open(folder / "home"), [str(MODEL)], Wish(all_files=True, **wish), transfer, jobs)
    assert not [outcome.error for outcome in outcomes if outcome.error]
    return watched, [outcome.resolved.file.name for outcome in outcomes if outcome.resolved]


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_files_of_a_version_come_a_bounded_number_at_a_time(hub: FaultyHub, tmp_path: Path, jobs: int) -> None:
    watched, _ = fetch_all(hub, tmp_path, jobs)
    assert watched.most == jobs
    assert len(watched.begun) == 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_smallest_is_first_if_asked_for_and_the_answers_keep_their_order(
    hub: FaultyHub, tmp_path: Path, jobs: int
) -> None:
    plain = fetch_all(hub, tmp_path / "a", jobs)[1]
    watched, names = fetch_all(hub, tmp_path / "b", jobs, smallest_first=True)
    assert names == plain
    assert set(watched.begun[:2]) == {"s0.safetensors", "s1.safetensors"}
    assert "s4.safetensors" in watched.begun[-2:]


def test_a_spec_that_leads_nowhere_does_not_stop_the_others(hub: FaultyHub, tmp_path: Path) -> None:
    specs = ["999", f"v:{VERSION}", "998"]
    outcomes = download_all(hub.open(tmp_path), specs, Wish(), Transfer(tmp_path / "out"), 3)
    assert [(outcome.spec, outcome.error is None) for outcome in outcomes] == [
        ("999", False),
        (f"v:{VERSION}", True),
        ("998", False),
    ]


def test_bars_of_finished_files_go_away_and_one_counts_all() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bars = Bars(progress)
    with bars.watch("a") as first, bars.watch("b") as second:
        first(10, 100)
        second(20, 50)
        assert len(progress.tasks) == 3
    (whole,) = progress.tasks
    assert (whole.completed, whole.total, whole.description) == (30, 150, "2 of 2 files begun")


@pytest.mark.parametrize(
    ("text", "value"), [("10M", 10 << 20), ("500k", 512_000), ("1.5MiB/s", 1572864), ("none", None)]
)
def test_a_rate_is_read_as_people_write_it(text: str, value: int | None) -> None:
    assert bytes_a_second(text) == value
    settings = with_value(Settings(Directories(*[None] * 3)), "limit_rate", text)  # type: ignore[arg-type]  # not used
    assert settings.limit_bytes_s == value


@pytest.mark.parametrize("text", ["fast", "", "10", "-5M", "1e9", "M", "1.2.3M"])
def test_what_is_no_rate_is_refused(run, text: str) -> None:
    assert run("config", "set", "--", "limit_rate", text).code == 2


@pytest.mark.parametrize("text", ["0", "17", "many", "-1"])
def test_what_is_no_number_of_connections_is_refused(run, text: str) -> None:
    assert run("config", "set", "--", "connections", text).code == 2


@pytest.mark.parametrize("option", [("--connections", "0"), ("--limit-rate", "fast")])
@pytest.mark.parametrize("command", ["download", "install"])
def test_wrong_options_are_a_usage_problem_in_a_sentence(run, command: str, option: tuple[str, str]) -> None:
    ended = run(command, "1", *option)
    assert ended.code == 2
    assert option[1] in ended.err


def test_the_settings_are_kept_and_shown(run) -> None:
    assert run("config", "set", "limit_rate", "2M").code == 0
    assert run("config", "set", "connections", "3").code == 0
    assert "2097152" in run("config", "get", "limit_rate").out
    assert "3" in run("config", "get", "connections").out
    assert run("config", "set", "connections", "auto").code == 0
    assert "auto" in run("config", "get", "connections").out
    assert run("config", "set", "limit_rate", "quick").code == 2
