"""A hub for measuring downloads: nginx hands out the bytes, a small process of its own answers like Civitai and Hugging Face.

    python benchmarks/hub_server.py FOLDER [RATE]

serves every `*.safetensors` file in FOLDER, number k in the order of names as model 1000+k, version 2000+k, and all of them
as the repository `bench/files`. With a RATE such as 20m each connection gets no more than that. Prints one JSON line:
{"api": URL, "storage": URL}. Ends when stdin does.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "bench/files"
_NGINX = """
{user}
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    client_body_temp_path {work}/a; proxy_temp_path {work}/b; fastcgi_temp_path {work}/c;
    uwsgi_temp_path {work}/d; scgi_temp_path {work}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{ root {folder}; limit_rate {rate}; }}
    }}
}}
"""


class Shelf:
    """The files, with what a hub says about them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.safetensors"))
        self.sha256 = {path.name: _sha256(path) for path in self.files}
        self.api = self.storage = ""

    def version(self, index: int) -> dict[str, object]:
        path = self.files[index]
        url = f"{self.api}/api/download/models/{2000 + index}"
        file = {
            "id": 3000 + index,
            "name": path.name,
            "type": "Model",
            "sizeKB": path.stat().st_size / 1024,
            "metadata": {"format": "SafeTensor"},
            "hashes": {"SHA256": self.sha256[path.name].upper()},
            "pickleScanResult": "Success",
            "virusScanResult": "Success",
            "downloadUrl": url,
            "primary": True,
        }
        return {
            "id": 2000 + index,
            "modelId": 1000 + index,
            "name": "v1",
            "baseModel": "SD 1.5",
            "publishedAt": "2025-01-01T00:00:00.000Z",
            "availability": "Public",
            "trainedWords": [],
            "images": [],
            "stats": {},
            "files": [file],
            "downloadUrl": url,
            "model": {"name": path.stem, "type": "LORA"},
        }

    def model(self, index: int) -> dict[str, object]:
        name = self.files[index].stem
        versions = [self.version(index)]
        creator = {"username": "bench"}
        return {
            "id": 1000 + index,
            "name": name,
            "type": "LORA",
            "tags": [],
            "creator": creator,
            "modelVersions": versions,
        }

    def repository(self) -> dict[str, object]:
        siblings = [
            {
                "rfilename": path.name,
                "size": path.stat().st_size,
                "lfs": {"sha256": self.sha256[path.name], "size": path.stat().st_size, "pointerSize": 134},
            }
            for path in self.files
        ]
        return {
            "id": REPOSITORY,
            "modelId": REPOSITORY,
            "sha": COMMIT,
            "private": False,
            "tags": ["lora"],
            "siblings": siblings,
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def do_GET(self) -> None:
        shelf, path = self.shelf, unquote(urlsplit(self.path).path)
        number = re.search(r"/(\d+)$", path)
        index = int(number[1]) % 1000 if number else -1
        if path.startswith("/api/download/models/"):
            self._send(307, b"", {"Location": f"{shelf.storage}/{shelf.files[index].name}?sig=1"})
        elif path.startswith("/api/v1/models/"):
            self._json(shelf.model(index))
        elif path.startswith("/api/v1/model-versions/"):
            self._json(shelf.version(index))
        elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self._json(
                [
                    {
                        "type": "file",
                        "path": row["rfilename"],
                        "oid": COMMIT,
                        "size": row["size"],
                        "lfs": row["lfs"] | {"oid": row["lfs"]["sha256"]},
                    }
                    for row in shelf.repository()["siblings"]
                ]
            )
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            self._json(shelf.repository())
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            name = path.rpartition("/")[2]
            size = (shelf.files[0].parent / name).stat().st_size
            self._send(
                302,
                b"",
                {
                    "Location": f"{shelf.storage}/{name}",
                    "X-Repo-Commit": COMMIT,
                    "X-Linked-Size": str(size),
                    "X-Linked-ETag": f'"{shelf.sha256[name]}"',
                    "ETag": f'"{shelf.sha256[name]}"',
                },
            )
        else:
            self._send(404, b'{"error":"Not found"}', {})

    do_HEAD = do_GET  # noqa: N815  # the name that http.server looks for

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(folder: Path, rate: str = "0") -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/bin") or sys.exit("nginx is not installed")
    shelf = _Handler.shelf = Shelf(folder)
    server = _Server(("127.0.0.1", 0), _Handler)
    port = _free_port()
    shelf.api, shelf.storage = f"http://127.0.0.1:{server.server_address[1]}", f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as work:
        config = Path(work, "nginx.conf")
        # as root, nginx would hand its work to somebody who cannot read our folders
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config.write_text(_NGINX.format(user=user, work=work, port=port, folder=folder.resolve(), rate=rate))
        process = subprocess.Popen([nginx, "-c", str(config), "-p", work])
        try:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(json.dumps({"api": shelf.api, "storage": shelf.storage}), flush=True)
            sys.stdin.read()
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
