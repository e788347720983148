"""The storage's half of the hub: signed addresses of files, with ranges as RFC 9110 §13–14 has them, and pictures.

Like the real storage it refuses a request that carries the token, one whose signature is wrong, and HEAD.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

from hubtool.hubs.sample.catalogue import offers, pictures
from hubtool.hubs.sample.exchange import Answer
from hubtool.hubs.sample.made import made
from hubtool.hubs.sample.picture import png

if TYPE_CHECKING:
    from hubtool.hubs.sample.catalogue import Offer
    from hubtool.hubs.sample.exchange import Request

LAST_MODIFIED = "Sat, 20 Jun 2026 12:00:00 GMT"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def signed_path(offer: Offer) -> str:
    """Where the storage has a file: path and query."""
    return f"/files/{offer.file.id}/{quote(offer.file.name)}?signature={_signature(offer)}"


def answer(request: Request) -> Answer:
    """The storage's answer to a request."""
    if "authorization" in request.headers:
        return _refusal(400, "InvalidRequest", "Missing x-amz-content-sha256")
    if request.method != "GET":
        return _refusal(403, "SignatureDoesNotMatch", "The signature is for another method")
    stored = re.fullmatch(r"/(?:images/(\d{1,10})\.png|files/(\d{1,10})/[^/]+)", request.path)
    picture, file = stored.groups() if stored else (None, None)
    if picture and int(picture) in pictures():
        return Answer(200, _drawn(int(picture)), {"Content-Type": "image/png"})
    offer = next((offer for offer in offers() if str(offer.file.id) == file), None)
    return _file(offer, request) if offer else _refusal(404, "NoSuchKey", "The specified key does not exist.")


def _signature(offer: Offer) -> str:
    """Not a secret; it only has to be the right one."""
    return sha256(f"sample {offer.file.id}".encode()).hexdigest()[:24]


@lru_cache(maxsize=32)
def _drawn(id: int) -> bytes:
    return png(pictures()[id])


def _refusal(status: int, code: str, message: str) -> Answer:
    """S3's error document."""
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, text.encode(), {"Content-Type": "application/xml"})


def _file(offer: Offer, request: Request) -> Answer:
    """The whole file, or the one range that is asked for while the file is still the asker's."""
    if request.parameters.get("signature") != [_signature(offer)]:
        return _refusal(403, "SignatureDoesNotMatch", "The signature is wrong")
    asked = request.headers
    body, etag = made(offer).body, f'"{made(offer).hashes["SHA256"].lower()}"'
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{offer.file.name}"',
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": LAST_MODIFIED,
    }
    wanted = _RANGE.fullmatch(asked.get("range", "").replace(" ", ""))
    if wanted is None or wanted[0] == "bytes=-" or asked.get("if-range", etag) not in {etag, LAST_MODIFIED}:
        return Answer(200, body, headers)
    start, stop = _span(wanted[1], wanted[2], len(body))
    if start >= min(stop, len(body)):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(body)}"})
    placed = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"}
    return Answer(206, memoryview(body)[start:stop], placed)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """[start, stop) of a range; without a first byte, it is so many from the end."""
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size
