import pytest

from hubtool.errors import UnsafeAddress
from hubtool.hubs.addresses import Reach, literal_reach, next_address, origin, public_url, reach_of_host

HUB = "https://civitai.com/api/download/models/1"


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "javascript:alert(1)",
        "http://cdn.example.org/x",
        "https://user:pass@cdn.example.org/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://printer.localhost/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/x",
        "https://10.0.0.8/x",
        "https://192.168.1.1/x",
        "https://[fd00::1]/x",
        "https://cdn.example.org/x\x1b[2J",
        "https://cdn.example.org/x\r\nSet-Cookie: a",
        "https://[bad/x",
        "https://cdn.example.org:99999/x",
    ],
)
def test_a_public_hub_cannot_send_us_there(location: str) -> None:
    with pytest.raises(UnsafeAddress):
        next_address(HUB, location, HUB)


@pytest.mark.parametrize(
    ("base", "location", "target"),
    [
        (HUB, "https://cdn.example.org/x?sig=1", "https://cdn.example.org/x?sig=1"),
        (HUB, "/login", "https://civitai.com/login"),
        (HUB, "//cdn.example.org/a b", "https://cdn.example.org/a%20b"),
        ("http://127.0.0.1:1/x", "http://127.0.0.2:1/y", "http://127.0.0.2:1/y"),
    ],
)
def test_what_may_be_followed_is_made_absolute(base: str, location: str, target: str) -> None:
    assert next_address(base, location, base) == target


def test_a_hub_on_the_network_may_name_the_network_but_not_this_machine() -> None:
    hub = "http://192.168.1.5/"
    assert next_address(hub, "http://192.168.1.9/x", hub)
    with pytest.raises(UnsafeAddress):
        next_address(hub, "http://127.0.0.1/x", hub)


def test_the_reach_of_a_name_is_that_of_its_innermost_address() -> None:
    assert reach_of_host("localhost") is Reach.LOCAL
    assert reach_of_host("no-such-host.invalid") is Reach.PUBLIC
    assert literal_reach("example.org") is None
    assert literal_reach("100.64.0.1") is Reach.PRIVATE


def test_origins_are_compared_in_one_spelling() -> None:
    assert origin("HTTP://LocalHost.:80/x") == origin("http://localhost/y") == "http://localhost"
    assert origin("https://[::1]:8443/x") == "https://[::1]:8443"


def test_what_is_shown_of_an_address_has_no_secret() -> None:
    assert public_url("https://me:pw@h/x?token=abc#frag") == "https://h/x"
    assert public_url("https://[bad") == ""
