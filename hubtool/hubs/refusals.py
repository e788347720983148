"""From a hub's refusal to the error that says what to do about it.

Civitai answers errors as `{"error": text}`, `{"message": text}`, both, `{"error": {zod error}}`, a bare list of zod issues, and
behind Cloudflare as HTML; storage hosts answer S3's XML. Which status means what: docs/hubs.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import (
    BadAnswer,
    BrowserNeeded,
    EarlyAccess,
    Forbidden,
    HubProblem,
    NeedsToken,
    NotFound,
    RateLimited,
)
from hubtool.hubs.retry import TryAgain, busy, wished_wait_s
from hubtool.hubs.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN_CHARACTERS = 300
#: 429 answers that no waiting of ours will change (civitai src/pages/api/v1/models/index.ts, download/models/[…].ts).
_LASTING_429 = ("too many pages", "unusual amount of downloading")
_BUSY = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with a status of 400 or more (or an error dressed as 200)."""

    status: int
    body: bytes  # its beginning
    headers: Mapping[str, str]  # names in lower case
    url: str  # without secrets
    had_token: bool = False

    @property
    def table(self) -> Mapping[str, object]:
        """The JSON object of the body, empty if there is none."""
        value = _json(self.body)
        return value if isinstance(value, dict) else {}

    @property
    def says(self) -> str:
        """The body's own words in one line, or nothing."""
        return one_line(_words(self.body))[:_SHOWN_CHARACTERS].strip()


def problem_of(refusal: Refusal) -> HubProblem | TryAgain:
    """The error to raise; a TryAgain if it may pass."""
    status = refusal.status
    words = refusal.says or "no reason given"
    message = f"{_host(refusal.url)} answered {status}: {words}" + ("" if words.endswith((".", "!", "?")) else ".")
    if status >= 500 or (status in _BUSY and not _lasts(words)):
        return busy(status, message, refusal.url, wished_wait_s(refusal.headers))
    if status == 404 and "no-store" in refusal.headers.get("cache-control", ""):
        # Civitai's storage resolver failed for now; a real 404 may be cached
        return TryAgain(NotFound(message, url=refusal.url), weight=2)
    make = _BY_CODE.get(refusal.headers.get("x-error-code", "")) or _BY_STATUS.get(status)
    return make(refusal, message) if make else HubProblem(message, url=refusal.url, hint="The hub refused the request.")


def _unauthorised(refusal: Refusal, message: str) -> HubProblem:
    if "disabled downloads" in refusal.says:
        return Forbidden(message, url=refusal.url, hint="The creator allows use on the site only.")
    if refusal.had_token:
        return NeedsToken(message, url=refusal.url, hint="The API key was not accepted: check or renew it.")
    return NeedsToken(message, url=refusal.url)


def _forbidden(refusal: Refusal, message: str) -> HubProblem:
    table = refusal.table
    if str(table.get("error", "")).strip().lower() == "early access":
        deadline = table.get("deadline")
        return EarlyAccess(
            message, url=refusal.url, deadline=one_line(deadline)[:40] if isinstance(deadline, str) else ""
        )
    if _is_page(refusal.body):  # the hub itself answers in JSON
        hint = "A firewall in front of the hub refuses; try again later, or from another network."
        return BadAnswer(message, url=refusal.url, hint=hint)
    if str(table.get("value", "")).startswith(("hotlink", "file_rate_limited_captcha")):  # pixeldrain
        return BrowserNeeded(message, url=refusal.url)
    return Forbidden(message, url=refusal.url)


def _gone(refusal: Refusal, message: str) -> HubProblem:
    return NotFound(message, url=refusal.url, hint="It was archived by its creator; look for another version.")


def _missing(refusal: Refusal, message: str) -> HubProblem:
    return NotFound(message, url=refusal.url)


def _region(refusal: Refusal, message: str) -> HubProblem:
    return Forbidden(message, url=refusal.url, hint="The hub blocks the region that you connect from.")


def _quota(refusal: Refusal, message: str) -> HubProblem:
    return RateLimited(message, url=refusal.url)


def _gated(refusal: Refusal, message: str) -> HubProblem:
    """Hugging Face: the author hands the files out to those who accept conditions, or asked and were let in."""
    if refusal.had_token:
        hint = "Your account has no access yet: open the model's page, accept its conditions, and wait to be let in."
        return Forbidden(message, url=refusal.url, hint=hint)
    hint = "Accept the conditions on the model's page, then run `hubtool login huggingface` or set HF_TOKEN."
    return NeedsToken(message, url=refusal.url, hint=hint)


def _absent(refusal: Refusal, message: str) -> HubProblem:
    """Hugging Face says 401 for repositories that do not exist, so that private ones cannot be told apart."""
    hint = "Check the spelling; a private repository needs HF_TOKEN."
    return NotFound(message, url=refusal.url, hint=None if refusal.had_token else hint)


_BY_CODE = {"GatedRepo": _gated, "RepoNotFound": _absent, "RevisionNotFound": _missing, "EntryNotFound": _missing}
_BY_STATUS = {401: _unauthorised, 403: _forbidden, 404: _missing, 410: _gone, 429: _quota, 451: _region}


def _is_page(body: bytes) -> bool:
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html"))


def _lasts(words: str) -> bool:
    return any(phrase in words for phrase in _LASTING_429)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] or "The hub"


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(body: bytes) -> str:
    """What an error body says, whichever of its shapes it has."""
    value = _json(body)
    if value is not None:
        return _said(value)
    text = body.decode("utf-8", "replace")
    for pattern in (r"<title>(.*?)</title>", r"<Message>(.*?)</Message>", r"<Code>(.*?)</Code>"):
        match = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
        if match:
            return match[1]
    return "" if text.lstrip().startswith("<") else text


def _said(value: object, depth: int = 8) -> str:
    """The human words inside an error object: `message` before `error`, the first of a list of issues."""
    if depth == 0 or value is None:
        return ""
    if isinstance(value, str):
        inner = _json(value.encode("utf-8", "replace")) if value.lstrip().startswith(("[", "{")) else None
        return _said(inner, depth - 1) if inner is not None else value
    if isinstance(value, list):
        return _said(value[0], depth - 1) if value else ""
    if isinstance(value, dict):
        parts = [_said(value.get(key), depth - 1) for key in ("error", "message")]
        return " – ".join(dict.fromkeys(part for part in parts if part))
    return ""
