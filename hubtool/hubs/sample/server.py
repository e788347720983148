"""The sample hub over real HTTP: the site on one loopback port, its storage on another."""

from __future__ import annotations

import contextlib
import sys
import threading
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from hubtool.hubs.sample import api, storage
from hubtool.hubs.sample.exchange import Request, json_answer
from hubtool.hubs.sample.records import Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubtool.hubs.sample.exchange import Answer

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 1 << 20  # of a request; 10,000 hashes take 670 KB
_POLL_S = 0.05  # how long stopping takes at most
_IDLE_S = 30.0  # after which a connection that says nothing is closed


@lru_cache(maxsize=1)
def serve() -> str:
    """The address of this process's sample hub, which is started by the first call and lives as long as the process."""
    return _start()[0].api


@contextlib.contextmanager
def running_sample_hub() -> Iterator[Origins]:
    """A sample hub of one's own, stopped at the end of the block."""
    origins, servers = _start()
    try:
        yield origins
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _start() -> tuple[Origins, tuple[_Server, _Server]]:
    """Two servers on free ports; their threads do not keep the process alive."""
    site, store = _Server(), _Server()
    origins = Origins(site.address, store.address)
    site.respond = lambda request: api.answer(request, origins)
    store.respond = storage.answer
    for server in (site, store):
        threading.Thread(target=server.serve_forever, args=(_POLL_S,), name="sample hub", daemon=True).start()
    return origins, (site, store)


class _Server(ThreadingHTTPServer):
    """One of the two."""

    daemon_threads = True
    respond: Callable[[Request], Answer]

    def __init__(self) -> None:
        super().__init__((_HOST, 0), _Handler)

    @property
    def address(self) -> str:
        """Scheme, host and port."""
        return f"http://{_HOST}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that went away."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # passed on as they came


class _Handler(BaseHTTPRequestHandler):
    """Turns bytes into a Request and an Answer into bytes."""

    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    disable_nagle_algorithm = True  # header and body are two writes
    server: _Server

    def _exchange(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            self._send(json_answer({"error": "Request too large"}, 413))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(int(length)))
        self._send(self.server.respond(request))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_POST = do_HEAD = _exchange  # noqa: N815  # the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the command that asks."""
