"""A site on loopback that answers what it is told, with ranges, and remembers who asked for what with which header."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from contract.certificates import server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


@dataclass(frozen=True)
class Page:
    """One answer."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranged: bool = False  # honours Range


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""


def page(value: object, status: int = 200, **headers: str) -> Page:
    """A JSON answer; `x_error_code` is the header X-Error-Code."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Page(json.dumps(value).encode(), status, {"Content-Type": "application/json", **names})


class SmallSite:
    """`pages` maps a path to its answer, or to a function of the request; `secure` serves it over TLS."""

    def __init__(self, address: str = "127.0.0.1", *, secure: bool = False) -> None:
        self.pages: dict[str, Page | Callable[[Asked], Page]] = {}
        self.asked: list[Asked] = []
        self._server = (_Server6 if ":" in address else _Server)((address, 0), _Handler)
        self._server.site = self
        self.port = int(self._server.server_address[1])
        if secure:
            self._server.socket = server_context().wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        host = f"[{address}]" if ":" in address else address
        self.url = f"http{'s' if secure else ''}://{host}:{self.port}"

    def __enter__(self) -> SmallSite:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    site: SmallSite

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news here."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, parts.path, parse_qs(parts.query), headers, body)
        site = self.server.site
        site.asked.append(asked)
        found = site.pages.get(parts.path, Page(b'{"error":"Not found"}', 404))
        answer = found if isinstance(found, Page) else found(asked)
        with contextlib.suppress(OSError):
            self._send(answer)

    do_POST = do_GET  # noqa: N815  # the name that the base class calls

    def _send(self, answer: Page) -> None:
        body, status, extra = answer.body, answer.status, {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if answer.ranged and asked:
            start, stop = int(asked[1]), int(asked[2] or len(body) - 1)
            extra = {"Content-Range": f"bytes {start}-{min(stop, len(body) - 1)}/{len(body)}"}
            body, status = body[start : stop + 1], 206
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | answer.headers | extra).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
