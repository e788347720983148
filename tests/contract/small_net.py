"""A small network on loopback: names that lead to servers of a test, and a proxy that knows names of its own."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    import pytest

_REAL = socket.getaddrinfo
Place = tuple[str, int]  # address, port


def names(patch: pytest.MonkeyPatch, table: dict[str, Place | str]) -> None:
    """Let the resolver answer by `table`: a name leads to a server's address and port, or to a bare address.

    Numbers and `localhost` are left to the real one; every other name is unknown.
    """

    def look_up(host: str | bytes | None, port: object, *arguments: object, **keywords: object) -> list[object]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        found = table.get(name)
        if found is None:
            if name != "localhost" and re.search(r"[g-z]", name):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return list(_REAL(host, port, *arguments, **keywords))  # type: ignore[arg-type]
        address, to = found if isinstance(found, tuple) else (found, port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        place = (address, to, 0, 0) if ":" in address else (address, to)
        return [(family, socket.SOCK_STREAM, 6, "", place)]

    patch.setattr(socket, "getaddrinfo", look_up)


class SmallProxy:
    """Speaks CONNECT and whole addresses; `table` is where it thinks hosts are. `asked` holds its request lines."""

    def __init__(self, table: dict[str, Place] | None = None, refuse: bytes = b"") -> None:
        self.table, self.refuse = table or {}, refuse
        self.asked: list[str] = []
        self.headers: list[str] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> SmallProxy:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    proxy: SmallProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news here."""


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        proxy = self.server.proxy
        line = self.rfile.readline().decode("latin-1").strip()
        proxy.asked.append(line)
        head = b""
        while (header := self.rfile.readline()) not in {b"\r\n", b""}:
            head += header
        proxy.headers.append(head.decode("latin-1"))
        if proxy.refuse:
            self.wfile.write(proxy.refuse)
            return
        method, target, _ = line.split(" ")
        host = re.sub(r"^\w+://", "", target).partition("/")[0]
        place = proxy.table.get(host.partition(":")[0])
        if place is None:
            self.wfile.write(b"HTTP/1.1 502 Unknown Host\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(place) as onward:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                onward.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + head + b"\r\n")
            _both_ways(self.connection, onward)


class SmallSocks:
    """A SOCKS 5 proxy without passwords; `table` is where it thinks hosts are, `asked` the hosts that it heard of."""

    def __init__(self, table: dict[str, Place]) -> None:
        self.table, self.asked = table, list[str]()
        self._server = _SocksServer(("127.0.0.1", 0), _Socks)
        self._server.socks = self
        self.place = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> SmallSocks:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


class _SocksServer(_Server):
    socks: SmallSocks


class _Socks(socketserver.StreamRequestHandler):
    server: _SocksServer

    def handle(self) -> None:
        self.rfile.read(self.rfile.read(2)[1])  # the methods it offers
        self.wfile.write(b"\x05\x00")
        kind = self.rfile.read(4)[3]
        host = self.rfile.read(self.rfile.read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(self.rfile.read(4))
        self.rfile.read(2)
        self.server.socks.asked.append(host)
        place = self.server.socks.table.get(host)
        self.wfile.write(bytes([5, 0 if place else 4, 0, 1, 0, 0, 0, 0, 0, 0]))
        if place:
            with socket.create_connection(place) as onward:
                _both_ways(self.connection, onward)


def _both_ways(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            for ready in select.select([one, other], [], [], 10)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                (other if ready is one else one).sendall(data)
