"""A Civitai-style hub and its storage on two loopback ports, which misbehave just as a test asks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hubtool.hubs.opening import open_hub
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from hubtool.hubs.hub import Hub

MODEL, VERSION, FILE = 1001, 2001, 3001
NAME = "style.safetensors"


@dataclass(frozen=True)
class Fault:
    """How one answer differs from the right one."""

    status: int = 0
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)  # added or replaced
    without: tuple[str, ...] = ()  # headers left out
    cut: int | None = None  # the connection is reset after so many bytes of the body
    pause_s: float = 0.0  # silence before the body's second half
    drip_s: float = 0.0  # one byte, then so much silence
    head_drip_s: float = 0.0  # the same in the header
    head_pause_s: float = 0.0  # silence before the header
    ignore_range: bool = False
    ignore_if_range: bool = False
    shift: int = 0  # a partial body begins so many bytes late
    lie: int = 0  # a partial answer begins so many bytes late, and says so
    total: int = 0  # so many bytes more than there are, in Content-Range
    ranges_only: bool = False  # acts on requests with a Range header only
    closes: bool = False  # `cut` ends the connection in an orderly way
    chunked: str = ""  # "whole", "cut" (no last chunk) or "bad" (a senseless chunk size)
    lines: bytes = b""  # further header lines as they are
    before: bytes = b""  # sent before the answer
    raw: bytes = b""  # sent instead of it
    http: str = "1.1"
    multipart: bool = False


@dataclass(frozen=True)
class Seen:
    """One request."""

    port: str  # api or storage
    path: str
    query: str
    headers: dict[str, str]


def lora(seed: int = 0, size: int = 200_000) -> bytes:
    """A well-formed safetensors file of about `size` bytes, different for each seed."""
    body = random.Random(seed).randbytes(size // 8 * 8)
    key = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    entry = {"dtype": "F16", "shape": [4, len(body) // 8], "data_offsets": [0, len(body)]}
    header = json.dumps({key: entry}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


@functools.lru_cache(maxsize=64)
def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class FaultyHub:
    """Both servers. `on_*` hold the faults of the next requests; an empty queue means right answers (or `always`)."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content = lora() if content is None else content
        self.file: dict[str, object] = {}  # fields of files[0] that replace the right ones
        self.version: dict[str, object] = {}  # likewise of the version
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}  # path → recorded answer
        self.on_api: deque[Fault] = deque()
        self.on_download: deque[Fault] = deque()
        self.on_storage: deque[Fault] = deque()
        self.single_use = False  # a signed address serves one request
        self.used: set[str] = set()
        self.always: dict[str, Fault] = {}  # api, download or storage → fault of every further request
        self.seen: list[Seen] = []
        self._servers = [_Server(("127.0.0.1", 0), _Handler), _Server(("127.0.0.1", 0), _Handler)]
        self.api, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> FaultyHub:
        for server, port in zip(self._servers, ("api", "storage"), strict=True):
            server.hub, server.port = self, port
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def settings(self, home: Path, timeout_s: float = 0.5, **changes: object) -> Settings:
        """Settings of an impatient user of this hub."""
        folders = Directories(home / "c", home / "d", home / "e")
        return replace(Settings(folders, hub=self.api, timeout_s=timeout_s), **changes)

    def open(self, home: Path, timeout_s: float = 0.5, **changes: object) -> Hub:
        return open_hub(self.settings(home, timeout_s, **changes))

    def requests(self, port: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.port == port]

    def model_json(self) -> dict[str, object]:
        return {
            "id": MODEL,
            "name": "A style",
            "type": "LORA",
            "tags": ["style"],
            "modelVersions": [self.version_json()],
        }

    def version_json(self) -> dict[str, object]:
        file = {
            "id": FILE,
            "name": NAME,
            "type": "Model",
            "sizeKB": len(self.content) / 1024,
            "metadata": {"format": "SafeTensor"},
            "hashes": {"SHA256": self.sha256.upper(), "AutoV2": self.sha256[:10].upper()},
            "downloadUrl": f"{self.api}/api/download/models/{VERSION}",
            "primary": True,
        }
        version = {
            "id": VERSION,
            "modelId": MODEL,
            "name": "v1",
            "baseModel": "SD 1.5",
            "publishedAt": "2025-01-01T00:00:00.000Z",
            "model": {"name": "A style", "type": "LORA"},
            "files": [file | self.file],
        }
        return version | self.version


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    hub: FaultyHub
    port: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        hub = self.server.hub
        seen = Seen(self.server.port, parts.path, parts.query, {k.lower(): v for k, v in self.headers.items()})
        hub.seen.append(seen)
        self.close_connection = True
        if seen.port == "storage" and hub.single_use:
            if seen.query in hub.used:
                self._send(Fault(), 403, {}, b"<Error><Code>AccessDenied</Code></Error>")
                return
            hub.used.add(seen.query)
        with contextlib.suppress(OSError):
            if seen.port == "storage":
                self._storage(self._fault("storage", hub.on_storage))
            else:
                self._api(parts.path)

    def _fault(self, kind: str, queue: deque[Fault]) -> Fault:
        fault = queue.popleft() if queue else self.server.hub.always.get(kind, Fault())
        return Fault() if fault.ranges_only and "Range" not in self.headers else fault

    def _api(self, path: str) -> None:
        hub = self.server.hub
        if path in hub.answers:
            status, headers, body = hub.answers[path]
            self._send(Fault(), status, headers, body)
        elif path.startswith("/files/"):  # storage on the hub's own origin
            self._storage(self._fault("storage", hub.on_storage))
        elif path.startswith("/api/download/models/"):
            fault = self._fault("download", hub.on_download)
            target = f"{hub.storage}/files/{NAME}?sig={len(hub.seen)}"
            self._send(fault, 307, {"Location": target}, b"")
        else:
            bodies = {
                f"/api/v1/models/{MODEL}": hub.model_json(),
                f"/api/v1/model-versions/{VERSION}": hub.version_json(),
            }
            bodies[f"/api/v1/model-versions/by-hash/{hub.sha256.upper()}"] = hub.version_json()
            found = bodies.get(path)
            body = json.dumps(found or {"error": "Not found"}).encode()
            fault = self._fault("api", hub.on_api)
            self._send(fault, 200 if found else 404, {"Content-Type": "application/json"}, body)

    def _storage(self, fault: Fault) -> None:
        content = self.server.hub.content if fault.body is None else fault.body
        etag = fault.headers.get("ETag", _etag(content))
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        fits = fault.ignore_if_range or self.headers.get("If-Range", etag) == etag
        if not asked or not fits or fault.ignore_range or fault.status:
            self._send(fault, 200, headers, content)
            return
        start = max(0, int(asked[1]) + fault.lie)
        if start >= len(content):
            self._send(fault, 416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        end = min(len(content), int(asked[2] or len(content)) + 1)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content) + fault.total}"
        body = (content + bytes(fault.shift))[start + fault.shift : end + fault.shift]
        if fault.multipart:
            body = (
                b"--B\r\nContent-Range: "
                + headers.pop("Content-Range").encode()
                + b"\r\n\r\n"
                + body
                + b"\r\n--B--\r\n"
            )
            headers["Content-Type"] = "multipart/byteranges; boundary=B"
        self._send(fault, 206, headers, body)

    def _send(self, fault: Fault, status: int, headers: dict[str, str], body: bytes) -> None:
        if fault.raw:
            self.wfile.write(fault.raw)
            return
        body = fault.body if fault.body is not None and status != 206 else body
        wanted = {"Content-Length": str(len(body)), "Connection": "close"} | headers | fault.headers
        if fault.chunked:
            del wanted["Content-Length"]
            wanted["Transfer-Encoding"] = "chunked"
            body = (
                b"%x\r\n" % len(body)
                + body
                + b"\r\n"
                + {"whole": b"0\r\n\r\n", "cut": b"", "bad": b"zz\r\n"}[fault.chunked]
            )
        lines = [f"HTTP/{fault.http} {fault.status or status} Whatever"]
        lines += [f"{name}: {value}" for name, value in wanted.items() if name not in fault.without]
        time.sleep(fault.head_pause_s)
        self._write(
            fault.before + "\r\n".join(lines).encode("latin-1") + b"\r\n" + fault.lines + b"\r\n", fault.head_drip_s
        )
        if fault.cut is not None:
            self._write(body[: fault.cut])
            self._hang_up(orderly=fault.closes)
            return
        if fault.pause_s:
            self._write(body[: len(body) // 2])
            time.sleep(fault.pause_s)
            body = body[len(body) // 2 :]
        self._write(body, fault.drip_s)

    def _hang_up(self, *, orderly: bool) -> None:
        if not orderly:
            time.sleep(0.02)  # what was sent must arrive before the reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _write(self, data: bytes, drip_s: float = 0.0) -> None:
        if not drip_s:
            self.wfile.write(data)
            return
        for byte in data:
            self.wfile.write(bytes([byte]))
            time.sleep(drip_s)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
