"""How many connections a file gets, found out by measuring; and a limit that many share."""

from __future__ import annotations

import threading
import time

import pytest

from hubtool.hubs.rate import Rate
from hubtool.hubs.tempo import MOST, Figures, Tempo
from hubtool.hubs.traffic import Traffic

GB = 1 << 30


def settled(tempo: Tempo, rates: dict[int, float], total: int = 10 * GB) -> int:
    """Run a transfer whose speed depends on the number of connections until nothing is measured any more."""
    done, now = 0.0, 100.0
    while not tempo.is_settled and done < total:
        now += 0.1
        done += rates[tempo.connections] * 0.1
        tempo.wish(Figures(now, int(done), total - int(done)))
    return tempo.connections


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param({1: 20e6, 2: 40e6, 4: 80e6}, MOST, id="each stream is capped"),
        pytest.param({1: 20e6, 2: 20e6, 4: 20e6}, 1, id="the line is full"),
        pytest.param({1: 20e6, 2: 24e6, 4: 60e6}, 1, id="a fifth more is not enough"),
        pytest.param({1: 20e6, 2: 30e6, 4: 33e6}, 2, id="two pay, four do not"),
    ],
)
def test_connections_are_kept_that_bring_a_quarter_more(rates: dict[int, float], expected: int) -> None:
    assert settled(Tempo(), rates) == expected


def test_a_file_that_is_nearly_there_gets_no_help() -> None:
    assert settled(Tempo(), {1: 20e6}, total=100_000_000) == 1


def test_the_users_number_and_what_was_learnt_are_not_measured() -> None:
    assert (Tempo(fixed=7).connections, Tempo(fixed=7).is_settled) == (7, True)
    assert (Tempo(learnt=4).connections, Tempo(learnt=4).is_settled) == (4, True)


def test_a_host_that_complained_or_sends_several_files_gets_one_connection_each() -> None:
    traffic = Traffic()
    assert traffic.connections("a") is None
    traffic.learn("a", 4)
    assert traffic.connections("a") == 4
    with traffic.carrying("a"), traffic.carrying("a"):
        assert traffic.connections("a") == 1
    assert traffic.connections("a") == 4
    traffic.answered("a", 429, {})
    assert traffic.connections("a") == 1
    traffic.answered("b", 503, {})
    assert traffic.connections("b") == 1


def test_a_limit_holds_for_all_who_share_it() -> None:
    rate, began = Rate(1_000_000), time.monotonic()

    def fetch() -> None:
        for _ in range(10):
            time.sleep(rate.taken(20_000))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.5 < time.monotonic() - began < 3  # 800 kB, of which a quarter of a second's worth is free


def test_without_a_figure_nobody_waits() -> None:
    assert Rate().taken(1 << 40) == 0
