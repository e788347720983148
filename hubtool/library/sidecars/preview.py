"""`<name>.preview.<ext>`: the picture that every UI shows on the card.

A1111 looks for png, jpg, jpeg, webp and gif in no defined order, so there must never be two; any picture that is
already there (with or without `.preview`) is kept. ComfyUI's managers, Stability Matrix and SwarmUI find the same name;
InvokeAI only finds `<name>.<ext>`.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hubtool.errors import HubProblem
from hubtool.formats.atomic import atomic_output

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".gif")
MAX_BYTES = 32 << 20
ATTEMPTS = 3  # a hub lists up to ten pictures; some are gone


def existing_preview(model: Path, infixes: Sequence[str] = ("", ".preview")) -> Path | None:
    """The picture that a UI which knows these infixes would show for this model, if there is one."""
    places = (model.with_name(model.stem + infix + extension) for extension in EXTENSIONS for infix in infixes)
    return next((place for place in places if place.is_file()), None)


def fetch_preview(
    model: Path,
    urls: Iterable[str],
    fetch: Callable[[str, int], bytes],
    infix: str = ".preview",
    shown: Collection[str] = EXTENSIONS,
) -> Path | None:
    """Give the model the first picture that can be had and that the UI shows, else the first that can be had, if any.

    `fetch(url, limit)` returns the body, or raises a `HubProblem`; a missing picture is no failure, for the model is
    whole without it.

    Raises:
        StorageProblem: the picture cannot be written.
    """
    second = b""
    for url in itertools.islice(urls, ATTEMPTS):
        try:
            body = fetch(url, MAX_BYTES)
        except HubProblem:
            continue
        extension = picture_extension(body)
        if extension in shown:
            return write_preview(model, body, infix)
        second = second or (body if extension else b"")
    return write_preview(model, second, infix)


def write_preview(model: Path, body: bytes, infix: str = ".preview") -> Path | None:
    """Write a picture beside the model under the extension that its bytes ask for; None if it is no picture."""
    extension = picture_extension(body)
    if extension is None:
        return None
    path = model.with_name(f"{model.stem}{infix}{extension}")
    with atomic_output(path, force=True) as out:
        out.write(body)
    return path


def picture_extension(body: bytes) -> str | None:
    """By the first bytes, whatever the URL says (hubs serve WebP and even videos under .jpeg).

    >>> picture_extension(b"RIFF....WEBPVP8 ")
    '.webp'
    """
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if body.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return ".gif"
    return ".webp" if body[:4] == b"RIFF" and body[8:12] == b"WEBP" else None
