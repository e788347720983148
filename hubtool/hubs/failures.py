"""The HTTP library's exceptions as ours; none may carry an address, which can be signed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpcore
import httpx

from hubtool.errors import BadAnswer, HubProblem, NetworkFailure
from hubtool.hubs.addresses import public_url
from hubtool.hubs.decoding import BadEncoding
from hubtool.hubs.retry import TryAgain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.hubs.connection import Connection

_PROXY_HINT = "Check the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, or add the host to NO_PROXY."


@contextlib.contextmanager
def translated(url: str, line: Connection | None = None) -> Iterator[None]:
    """Turn httpx's exceptions into ours; `line` knows whether a proxy lies in between.

    Raises:
        TryAgain: it may pass. HubProblem: it will not.
    """
    try:
        yield
    except httpx.ProxyError as error:  # what it says is the proxy's own status line
        place = line.proxy if line and line.proxy else "The proxy"
        said = str(error)[:200] or type(error).__name__
        problem = NetworkFailure(f"The proxy {place} refuses: {said}.", url=public_url(url), hint=_PROXY_HINT)
        raise TryAgain(problem, weight=2) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _unreached(url, line, error) from error
    except httpx.TransportError as error:
        raise TryAgain(_broken(url, error), weight=_weight(error)) from error
    except httpcore.TimeoutException as error:  # of a body that is read from the connection itself
        raise TryAgain(NetworkFailure(f"{_host(url)} fell silent.", url=public_url(url))) from error
    except httpcore.NetworkError as error:
        raise TryAgain(
            NetworkFailure(f"The connection to {_host(url)} broke: {error}.", url=public_url(url))
        ) from error
    except (httpx.DecodingError, BadEncoding) as error:
        raise BadAnswer(f"{_host(url)} answered with damaged compression.", url=public_url(url)) from error
    except (httpx.InvalidURL, httpx.StreamError) as error:
        raise HubProblem(f"{_host(url)} cannot be asked: {type(error).__name__}.", url=public_url(url)) from error


def _unreached(url: str, line: Connection | None, error: httpx.TransportError) -> TryAgain | NetworkFailure:
    place = f"The proxy {line.proxy}" if line and line.proxy else _host(url)
    hint = _PROXY_HINT if line and line.proxy else None
    if isinstance(error, httpx.ConnectTimeout):
        return TryAgain(NetworkFailure(f"{place} fell silent.", url=public_url(url), hint=hint))
    if "CERTIFICATE" in str(error).upper():
        hint = "If it is signed by an authority of your own, name its certificate in SSL_CERT_FILE."
        return NetworkFailure(f"The certificate of {_host(url)} cannot be trusted.", url=public_url(url), hint=hint)
    return TryAgain(NetworkFailure(f"{place} cannot be reached: {error}.", url=public_url(url), hint=hint), weight=2)


def _broken(url: str, error: httpx.TransportError) -> NetworkFailure:
    host = _host(url)
    if isinstance(error, httpx.TimeoutException):
        return NetworkFailure(f"{host} fell silent.", url=public_url(url))
    if isinstance(error, httpx.RemoteProtocolError):
        what = "ended the connection too early" if _is_early(error) else "does not answer in proper HTTP"
        return NetworkFailure(f"{host} {what}.", url=public_url(url))
    return NetworkFailure(f"The connection to {host} broke: {error}.", url=public_url(url))


def _weight(error: httpx.TransportError) -> int:
    return 2 if isinstance(error, httpx.RemoteProtocolError) and not _is_early(error) else 1


def _is_early(error: httpx.RemoteProtocolError) -> bool:
    """Whether the connection just ended; the text of other violations quotes the header, which may hold a signed address."""
    return str(error).startswith(("peer closed", "Server disconnected"))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return "The host"
