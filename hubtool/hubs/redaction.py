"""Keeps secrets out of the logs that the HTTP library writes by itself: signatures in addresses, and what redirects carry.

Our own messages never hold any; this is for those who turn on logging at its most talkative.
"""

from __future__ import annotations

import logging
import re

_LOGGERS = ("httpx", *(f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")))
_SECRET_HEADER = re.compile(
    r"(b?['\"](?:(?:proxy-)?authorization|cookie|set-cookie|location)['\"],\s*b?)(['\"]).*?\2(?=[,)\]])", re.IGNORECASE
)
_QUERY = re.compile(r"((?:https?://|/)[^\s?'\"]*)\?[^\s'\"]*")
_LOGIN = re.compile(r"(\w+://)[^\s/@'\"]+@")


def redacted(text: str) -> str:
    """The text without queries, logins and the values of headers that hold secrets.

    >>> redacted('HTTP Request: GET https://u:p@storage.example/a?X-Amz-Signature=abc "HTTP/1.1 200 OK"')
    'HTTP Request: GET https://[…]@storage.example/a?[…] "HTTP/1.1 200 OK"'
    """
    return _LOGIN.sub(r"\1[…]@", _QUERY.sub(r"\1?[…]", _SECRET_HEADER.sub(r"\1\2[…]\2", text)))


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; it is always let through."""
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


_REDACTION = _Redaction()


def redact_logs() -> None:
    """Rewrite what the HTTP library logs from now on; calling it again changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_REDACTION)
