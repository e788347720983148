"""Which addresses may be contacted, and how to show one without its secrets.

The user may name any hub. What a hub's answer names (a redirect, a picture, a download link) must not lead further inside
than the hub itself is: a public hub cannot send us to this machine or this network, a hub on this machine can.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
import unicodedata
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from hubtool.errors import UnsafeAddress

_SECRET = re.compile(
    r"token|key|sig|auth|secret|pass|expires|policy|credential|session|^x-|^s[eprv]$|^st$|^response-", re.IGNORECASE
)
_LONG = 48  # a value of so many characters is a signature under another name
DEFAULT_PORTS = {"http": 80, "https": 443}
#: IPv6 networks whose last 32 bits are an IPv4 address.
_CARRIERS = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::/96",  # IPv4-compatible, RFC 4291
            "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
            "64:ff9b::/96",  # NAT64, RFC 6052
            "64:ff9b:1::/48",  # NAT64 of one network, RFC 8215
        ),
    )
)
#: Networks without public hosts that some versions of Python's `is_global` take for public.
_INNER = tuple(map(ipaddress.ip_network, ("fec0::/10", "3fff::/20", "5f00::/16", "100.64.0.0/10", "192.88.99.0/24")))
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}", re.ASCII)
_NO_HOST = re.compile(r"[\s%\\<>\"'^`{|}@,;]")


class Reach(enum.IntEnum):
    """How far inside an address lies; an answer may lead to the same or a smaller reach."""

    PUBLIC = 0
    PRIVATE = 1  # this network
    LOCAL = 2  # this machine, link-local, and whatever is no ordinary unicast address


def reach_of_address(address: str) -> Reach:
    """The reach of a numeric address.

    >>> reach_of_address("127.0.0.1").name, reach_of_address("10.1.2.3").name, reach_of_address("1.1.1.1").name
    ('LOCAL', 'PRIVATE', 'PUBLIC')
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if _is_local(ip):
        return Reach.LOCAL
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _within(ip) or ip
    if _is_local(ip):
        return Reach.LOCAL
    is_inner = any(ip in network for network in _INNER if network.version == ip.version)
    return Reach.PUBLIC if ip.is_global and not is_inner else Reach.PRIVATE


def _is_local(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast


def _within(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, compatible, 6to4, Teredo, or through a NAT64 gateway."""
    if any(ip in network for network in _CARRIERS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def reach_of_host(host: str) -> Reach:
    """The reach of a host, by the innermost of its addresses; a name that cannot be looked up counts as public."""
    return max(_reaches(host), default=Reach.PUBLIC)


def _reach_of_named(host: str) -> Reach:
    """The reach of a host that the user named, by its outermost address: a public hub with an inner address too is public."""
    return min(_reaches(host), default=Reach.PUBLIC)


def _reaches(host: str) -> list[Reach]:
    known = literal_reach(host)
    if known is not None:
        return [known]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [reach_of_address(str(row[4][0])) for row in found]


def literal_reach(host: str) -> Reach | None:
    """The reach of a host written as a number, in whatever spelling, or `localhost`; None for other names.

    >>> [literal_reach(host) for host in ("2130706433", "0x7f.1", "127\u30020\u30020\u30021", "example.org")]
    [<Reach.LOCAL: 2>, <Reach.LOCAL: 2>, <Reach.LOCAL: 2>, None]
    """
    # names are written with other digits and full stops too, which the resolver or a proxy takes for the plain ones
    plain = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower().rstrip(".")
    if plain == "localhost" or plain.endswith(".localhost"):
        return Reach.LOCAL
    try:
        return reach_of_address(plain)
    except ValueError:
        pass
    if not _NUMERIC.fullmatch(plain):
        return None
    try:
        return reach_of_address(socket.inet_ntoa(socket.inet_aton(plain)))
    except OSError:
        return None


def next_address(base: str, location: str, named: str) -> str:
    """The absolute URL that an answer from `base` names; `named` is the address that the user gave.

    Raises:
        UnsafeAddress: another scheme than http(s), https left for http, a login inside the URL, control characters,
            or a numeric address further inside than `named`. (Names are checked when they are connected to.)
    """
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in location):
        raise UnsafeAddress("The hub's answer holds an address with control characters in it.", url=public_url(base))
    try:
        target = urljoin(base, location.strip().replace(" ", "%20"))
        parts = urlsplit(target)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UnsafeAddress("The hub's answer holds an address that is none.", url=public_url(base)) from error
    if parts.scheme not in DEFAULT_PORTS or not host:
        raise UnsafeAddress(f"The hub's answer leads to a {parts.scheme or 'nameless'} address, which is not followed.")
    if _NO_HOST.search(host):
        raise UnsafeAddress("The hub's answer holds an address that is none.", url=public_url(base))
    if parts.username is not None or parts.password is not None:
        raise UnsafeAddress(f"The hub's answer leads to {public_url(target)} with a login inside the address.")
    if parts.scheme == "http" and urlsplit(base).scheme == "https":
        raise UnsafeAddress(f"The hub's answer leads from https to plain http: {public_url(target)}")
    refuse_inside(host, literal_reach(host), named)
    return target


def refuse_inside(host: str, reach: Reach | None, named: str, seen: Reach | None = None) -> None:
    """Raise if a host lies further inside than the address that the user named, unless it is that very host.

    `seen` is where the named host was really met: what its name resolves to now may be meant for this very question.

    Raises:
        UnsafeAddress: it does.
    """
    named_host = urlsplit(named).hostname or ""
    if not reach or host == named_host or reach <= (_reach_of_named(named_host) if seen is None else seen):
        return
    where = "this machine" if reach is Reach.LOCAL else "the private network"
    raise UnsafeAddress(f"An answer from {named_host} leads to {where}: {host}")


def origin(url: str) -> str:
    """Scheme, host and port, spelt one way.

    >>> origin("HTTPS://Civitai.com:443/models/1")
    'https://civitai.com'
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    port = parts.port
    suffix = "" if port is None or port == DEFAULT_PORTS.get(parts.scheme) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def origin_if_any(url: str) -> str:
    """As `origin`; nothing for what is no address. What hubs answer may be anything.

    >>> origin_if_any("https://["), origin_if_any("https://a.example/x")
    ('', 'https://a.example')
    """
    try:
        return origin(url)
    except ValueError:
        return ""


def shareable(spec: str) -> str:
    """What a user typed, without login, token or signature if it is an address; the rest of its query stays.

    >>> shareable("https://me:pass@civitai.com/api/download/models/5?type=Model&token=abc"), shareable("v:5")
    ('https://civitai.com/api/download/models/5?type=Model', 'v:5')
    """
    if "://" not in spec:
        return spec
    try:
        parts = urlsplit(spec)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return public_url(spec)
    kept = [(key, value) for key, value in pairs if not _SECRET.search(key) and len(value) < _LONG]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, urlencode(kept), ""))


def public_url(url: str) -> str:
    """The URL without query, fragment and login, where signatures and tokens are.

    >>> public_url("https://me:pass@storage.example/a.safetensors?X-Amz-Signature=abc")
    'https://storage.example/a.safetensors'
    """
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return ""
