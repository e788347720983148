import socket

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.errors import UnsafeAddress
from hubtool.hubs.addresses import (
    Reach,
    literal_reach,
    next_address,
    origin,
    public_url,
    reach_of_host,
    refuse_inside,
)

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
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0x7f.1/x",
        "https://0177.0.0.1/x",
        "https://127.1/x",
        "https://127.0.0.1./x",
        "https://\uff11\uff12\uff17.0.0.1/x",
        "https://127\u30020\u30020\u30021/x",
        "https://127\uff0e0\uff0e0\uff0e1/x",
        "https://LOCALHOST/x",
        "https://localhost./x",
        "https://loc\uff41lhost/x",
        "https://%31%32%37.0.0.1/x",
        "https://cdn.example.org%00.evil.example/x",
        "https://cdn.example.org\\.evil.example/x",
        "https://cdn.example.org\\@127.0.0.1/x",
        "https://[::]/x",
        "https://[::127.0.0.1]/x",
        "https://[::ffff:0:127.0.0.1]/x",
        "https://[64:ff9b::7f00:1]/x",
        "https://[64:ff9b:1::a00:1]/x",
        "https://[2002:7f00:1::]/x",
        "https://[fec0::1]/x",
        "https://[fe80::1%25eth0]/x",
        "https://[ff02::1]/x",
        "https://100.100.100.200/x",
        "https://0/x",
        "https://0.0.0.1/x",
        "https://255.255.255.255/x",
        "//127.0.0.1/x",
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
        (HUB, "https:///x", "https://civitai.com/x"),
        (HUB, "https:127.0.0.1/x", "https://civitai.com/api/download/models/127.0.0.1/x"),
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


def test_a_public_name_with_an_inner_address_too_is_public_as_a_hub_and_inner_as_a_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else its owner could allow himself to lead us inside, by his own records."""

    def both(*_: object, **__: object) -> list[object]:
        return [(2, 1, 6, "", (address, 0)) for address in ("1.1.1.1", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(UnsafeAddress):
        next_address("http://hub.example/", "http://127.0.0.1/x", "http://hub.example")
    assert reach_of_host("hub.example") is Reach.LOCAL


def test_what_was_seen_of_a_hub_counts_and_not_what_its_name_says_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", 0))])
    refuse_inside("127.0.0.1", Reach.LOCAL, "http://hub.example")  # nothing was seen: its name says that it is here
    with pytest.raises(UnsafeAddress):
        refuse_inside("127.0.0.1", Reach.LOCAL, "http://hub.example", Reach.PUBLIC)


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


PIECES = [
    *("https", "://", "//", "/", "\\", "@", ":", "127.0.0.1", "127", "0", "0x7f", ".", "1", "localhost", "LOCALHOST"),
    *("civitai.com", "evil.example", "[", "]", "::1", "::ffff:", "%", "%2f", "%00", "%5c", "?", "#", "\t", " ", ":443"),
    *(
        "\u3002",
        "\uff0e",
        "\uff11",
        "\xad",
        "\u200b",
        "\u2024",
        "\u212a",
        "\u24db",
        "\uff0f",
        "\uff20",
        "xn--",
        "..",
        "|",
    ),
    *("10.0.0.1", "2130706433", "169.254.169.254", "8080", "'", "^", "{", "<", "~", "_", "*", ";"),
]


@given(st.sampled_from(["https://", "//", "https:/", "HTTPS://", ""]), st.lists(st.sampled_from(PIECES), max_size=7))
def test_the_http_library_reads_no_address_otherwise_than_we_judged_it(start: str, pieces: list[str]) -> None:
    """Two readers that differ are how a token goes astray: what passes leads where we think, and nowhere inside."""
    try:
        target = next_address(HUB, start + "".join(pieces), HUB)
        read = httpx.URL(target)
    except (UnsafeAddress, httpx.InvalidURL):
        return
    host = read.raw_host.decode("ascii")
    assert (read.scheme, read.userinfo) == ("https", b"")
    assert not literal_reach(host)
    is_civitai = host.rstrip(".") == "civitai.com" and read.port in {None, 443}
    assert (origin(target) == "https://civitai.com") is is_civitai
