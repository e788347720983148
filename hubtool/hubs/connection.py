"""One connection, watched through the trace events of httpx: who is at its other end, and a way to hang up.

httpx's own timeouts are per read: a server that sends one byte of its header a minute never trips them, and a name that
resolves to an inner address is connected to before anyone has looked. Both are settled here.

Behind a proxy the other end is the proxy, and who that connects to is not seen. What a hub's answer names is then looked up
here as well, before the proxy hears of it: a name that leads inside by our own resolver is refused; one that only the
proxy can resolve is left to it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from hubtool.errors import NetworkFailure
from hubtool.hubs.addresses import reach_of_address, reach_of_host, refuse_inside
from hubtool.hubs.retry import TryAgain

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from hubtool.hubs.addresses import Reach


class _Stream(Protocol):
    def get_extra_info(self, info: str) -> object: ...

    def close(self) -> None: ...


class Connection:
    """The trace callback of one request."""

    def __init__(self, host: str, named: str, seen: MutableMapping[str, Reach], header_s: float) -> None:
        """`host` is as it is connected to, `named` the address that the user gave; `seen` holds where hosts were really met.

        `header_s` bounds the wait for the answer's header.
        """
        self._host, self._named, self._seen, self._header_s = host, named, seen, header_s
        self._named_host = urlsplit(named).hostname or ""
        self.thread = threading.get_ident()  # whose it is
        self._ended = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self.proxy = ""  # who is really connected to, if it is not the host

    def __call__(self, event: str, info: Mapping[str, object]) -> None:
        """Take one trace event.

        Raises:
            UnsafeAddress: the host turned out to lie further inside than allowed; nothing was sent to it.
        """
        if event.endswith(".connect_tcp.started"):
            self._connecting(str(info.get("host", "")), info.get("port"))
        elif event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._connected(info["return_value"])  # type: ignore[arg-type]  # the event's documented payload
        elif event.endswith(".receive_response_headers.started"):
            self._stop_timer()  # a proxy's answer to CONNECT has a header too
            self._timer = threading.Timer(self._header_s, self.hang_up)
            self._timer.daemon = True
            self._timer.start()
        elif event.endswith((".receive_response_headers.complete", ".receive_response_headers.failed")):
            self._stop_timer()

    def _connecting(self, host: str, port: object) -> None:
        if host.lower() == self._host.lower():
            return
        self.proxy = f"{host}:{port}"
        if self._host != self._named_host:
            refuse_inside(self._host, reach_of_host(self._host), self._named)

    def _connected(self, stream: _Stream) -> None:
        found = stream.get_extra_info("socket")
        self._socket = found if isinstance(found, socket.socket) else None
        try:
            self._refuse_late()
            self._look_at(stream.get_extra_info("server_addr"))
        except OSError as error:  # gone already, before its other end could be looked at
            stream.close()
            raise TryAgain(NetworkFailure(f"The connection to {self._host} broke: {error.strerror}.")) from error
        except BaseException:
            stream.close()
            raise

    def _look_at(self, peer: object) -> None:
        """Refuse an other end that lies too far inside; behind a proxy it is the proxy, which says nothing."""
        if self.proxy or not isinstance(peer, tuple):
            return
        reach = reach_of_address(str(peer[0]))
        if self._host == self._named_host:
            self._seen.setdefault(self._host, reach)
        refuse_inside(self._host, reach, self._named, self._seen.get(self._named_host))

    def _refuse_late(self) -> None:
        """Raise if this connection was ended before it was made."""
        if self._ended:
            raise NetworkFailure("The transfer was interrupted.")

    def hang_up(self) -> None:
        """End the connection under a reader that is blocked in it, from another thread."""
        self._ended = True
        self._stop_timer()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # not SSLSocket.shutdown, which would take the TLS object away from the reading thread
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
