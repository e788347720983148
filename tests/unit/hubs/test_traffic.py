import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from hubtool.errors import NetworkFailure
from hubtool.hubs.addresses import Reach, reach_of_address
from hubtool.hubs.redaction import redacted
from hubtool.hubs.retry import TryAgain
from hubtool.hubs.traffic import FAILURES_IN_A_ROW, Traffic


def waits(traffic: Traffic, count: int, host: str = "hub.example") -> list[float]:
    """How long each of `count` requests at the same moment has to wait."""
    found: list[float] = []
    for _ in range(count):
        traffic.admit(host, paced=True, wait=found.append)
    return found


def test_an_api_is_asked_a_few_times_at_once_and_then_at_its_pace() -> None:
    found = waits(Traffic(requests_s=10, burst=3), 6)
    assert found[:3] == [0, 0, 0]
    assert found[3:] == pytest.approx([0.1, 0.2, 0.3], abs=0.05)


def test_all_workers_share_one_pace_and_hosts_do_not() -> None:
    traffic, found = Traffic(requests_s=10, burst=1), []
    workers = [threading.Thread(target=lambda: found.extend(waits(traffic, 1))) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert max(found) == pytest.approx(0.4, abs=0.1)
    assert waits(traffic, 1, "other.example") == [0]


@pytest.mark.parametrize(
    "header",
    [
        {"retry-after": "3000"},
        {"retry-after": format_datetime(datetime.now(timezone.utc) + timedelta(seconds=3000), usegmt=True)},
        {"ratelimit": '"api";r=0;t=2999'},
    ],
    ids=["seconds", "a date", "a window"],
)
def test_a_429_silences_every_worker_for_as_long_as_it_says(header: dict[str, str]) -> None:
    traffic = Traffic()
    traffic.answered("hub.example", 429, header)
    with pytest.raises(TryAgain) as caught:
        traffic.admit("hub.example", paced=False)
    assert 2000 < (caught.value.after_s or 0) <= 3000  # the date was written when the tests were collected
    traffic.admit("other.example", paced=False)


def test_a_host_that_fails_is_left_alone_and_tried_again_later() -> None:
    traffic = Traffic(rest_s=0.0)
    for _ in range(FAILURES_IN_A_ROW):
        traffic.failed("hub.example")
    traffic.admit("hub.example", paced=False)  # rested
    tired = Traffic(rest_s=60)
    for _ in range(FAILURES_IN_A_ROW - 1):
        tired.answered("hub.example", 503, {})
    tired.admit("hub.example", paced=False)
    tired.answered("hub.example", 404, {})  # an answer is an answer
    for _ in range(FAILURES_IN_A_ROW - 1):
        tired.failed("hub.example")
    tired.admit("hub.example", paced=False)
    tired.failed("hub.example")
    with pytest.raises(NetworkFailure, match="left alone"):
        tired.admit("hub.example", paced=False)


@pytest.mark.parametrize(
    "address",
    [
        "::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "fe80::1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
    ],
)
def test_every_spelling_of_this_machine_is_noticed(address: str) -> None:
    assert reach_of_address(address) is Reach.LOCAL


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1", "198.18.0.1"]
)
def test_every_private_network_is_noticed(address: str) -> None:
    assert reach_of_address(address) is Reach.PRIVATE


def test_logs_of_the_http_library_lose_what_is_secret() -> None:
    headers = "(b'Location', b'https://s/a?sig=abc'), (b'A', b'1')"
    line = f"receive_response_headers.complete return_value=(b'HTTP/1.1', 307, b'x', [{headers}])"
    assert "sig=abc" not in redacted(line)
    assert "(b'A', b'1')" in redacted(line)
    assert "abc" not in redacted("GET http://127.0.0.1:1/a?token=abc")
    assert "abc" not in redacted("CONNECT http://u:abc@proxy:3128")
    assert "abc" not in redacted("[(b'Proxy-Authorization', b'Basic abc')]")
