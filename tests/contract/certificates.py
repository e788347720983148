"""A certificate authority of one test run, for every name that a test gives to this machine; no key of it is kept anywhere."""

from __future__ import annotations

import ssl
import tempfile
from functools import lru_cache
from pathlib import Path

import trustme

_NAMES = (
    "localhost", "127.0.0.1", "::1", "civitai.com", "*.civitai.com", "civitai.red", "civitai.green", "evilcivitai.com",
    "civitai.com.evil.example", "hub.example", "storage.example", "inner.example", "evil.example", "huggingface.co",
)  # fmt: skip


@lru_cache(maxsize=1)
def _authority() -> trustme.CA:
    return trustme.CA()


@lru_cache(maxsize=1)
def server_context() -> ssl.SSLContext:
    """What a server of those names speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(*_NAMES).configure_cert(context)
    return context


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="hubtool-authority-")


def authority_file() -> str:
    """A file for `SSL_CERT_FILE`."""
    path = Path(_folder().name) / "ca.pem"
    if not path.exists():
        _authority().cert_pem.write_to_path(str(path))
    return str(path)
