import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from hubtool.errors import NetworkFailure, RateLimited
from hubtool.hubs.retry import GAIN_BYTES, TRIES, Patience, TryAgain, busy, retry_after_s
from hubtool.settings import Directories, Settings


def patience(timeout_s: float = 0.01) -> Patience:
    return Patience(Settings(Directories(Path(), Path(), Path()), timeout_s=timeout_s))


def failure() -> TryAgain:
    return TryAgain(NetworkFailure("broken"))


def test_the_sixth_failure_in_a_row_is_final() -> None:
    budget = patience(1.0)
    budget._unit_s = 0  # no waiting
    for _ in range(TRIES):
        budget.failed(failure())
    with pytest.raises(NetworkFailure, match="broken"):
        budget.failed(failure())


def test_a_mebibyte_of_progress_forgives_earlier_failures() -> None:
    budget = patience(1.0)
    budget._unit_s = 0
    for turn in range(3 * TRIES):
        budget.failed(failure(), (turn + 1) * GAIN_BYTES)


def test_a_transfer_that_does_not_move_is_given_up_however_many_tries_are_left() -> None:
    budget = patience(0.01)  # gives up after 45 ms
    time.sleep(0.06)
    with pytest.raises(NetworkFailure, match="stalled: 100 bytes"):
        budget.progress(100)


def test_waits_that_a_server_asks_for_are_bounded_in_sum() -> None:
    budget = patience()
    with pytest.raises(RateLimited) as caught:
        budget.failed(busy(429, "Too many.", "", 301.0))
    assert caught.value.retry_after_s == 301


def test_a_wait_ends_when_the_run_is_stopped() -> None:
    stop = threading.Event()
    stop.set()
    began = time.monotonic()
    Patience(Settings(Directories(Path(), Path(), Path())), stop=stop).failed(busy(503, "Busy.", "", 200.0))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "9" * 40, "Sun, 99 Foo 2025 00:00:00 GMT"])
def test_a_senseless_retry_after_is_no_wish(header: str | None) -> None:
    assert retry_after_s(header) is None


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s(" 7 ") == 7
    later = datetime.now(timezone.utc) + timedelta(seconds=30)
    assert 25 < (retry_after_s(format_datetime(later, usegmt=True)) or 0) <= 30
    assert retry_after_s("Wed, 01 Jan 2020 00:00:00 GMT") == 0


def test_waits_stay_short_while_every_try_brings_something(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = patience(1.0)  # a unit of 50 ms
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    began = time.monotonic()
    for turn in range(TRIES):
        budget.progress((turn + 1) * 1000)
        budget.failed(failure(), (turn + 1) * 1000)
    assert time.monotonic() - began < 0.5  # 5 × 50 ms, not 50 + 100 + 200 …
