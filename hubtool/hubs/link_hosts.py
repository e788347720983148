"""What an address in a list of links leads to: a file, a model's page, something that only a browser gets, or nothing of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hubtool.hubs.addresses import origin
from hubtool.hubs.places import CIVITAI_ORIGINS, NUMBERED_SITES, repository_site

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = (".safetensors",)
ARCHIVES = (".zip",)
#: Kinds of files that are recognised and not fetched, and why.
_REFUSED: Mapping[str, str] = {
    ".7z": "7z archives are not unpacked: fetch it with a browser, unpack it, and use `hubtool install FILE`",
    ".rar": "rar archives are not unpacked: fetch it with a browser, unpack it, and use `hubtool install FILE`",
    ".ckpt": "a pickle, which can run code when loaded",
    ".pt": "a pickle, which can run code when loaded",
    ".pth": "a pickle, which can run code when loaded",
    ".bin": "a pickle, which can run code when loaded",
    ".gguf": "a quantised model, no LoRA",
}
#: Hosts whose files need their own program or a person in front of a browser.
_BROWSER: Mapping[str, str] = {
    "mega.nz": "MEGA encrypts its files: open the link in a browser or with its own program",
    "mega.co.nz": "MEGA encrypts its files: open the link in a browser or with its own program",
    "gofile.io": "gofile hands its files to browsers only",
    "drive.google.com": "Google Drive asks a person to confirm: open the link in a browser",
    "docs.google.com": "a Google document: open it in a browser",
    "mediafire.com": "MediaFire hands its files to browsers only",
    "1fichier.com": "1fichier hands its files to browsers only",
    "dropbox.com": "Dropbox shows a page first: open the link in a browser",
    "1drv.ms": "OneDrive shows a page first: open the link in a browser",
    "onedrive.live.com": "OneDrive shows a page first: open the link in a browser",
    "disk.yandex.ru": "Yandex Disk shows a page first: open the link in a browser",
    "cdn.discordapp.com": "Discord's links expire within a day",
    "media.discordapp.net": "Discord's links expire within a day",
    "framacalc.org": "a table: open it in a browser",
    "tensor.art": "Tensor.Art has no public downloads: look for the model on CivArchive",
    "seaart.ai": "SeaArt has no public downloads: look for the model on CivArchive",
    "liblib.art": "LibLib has no public downloads: look for the model on CivArchive",
}
_EXPIRED: Mapping[str, str] = {"litter.catbox.moe": "litterbox deletes its files after three days at the latest"}
#: Hosts of pages of links: a page there, as far as it is no file, may be another list.
_LISTS = frozenset(("rentry.org", "rentry.co", "github.com", "gitlab.com", "gitgud.io"))
_ANOTHER_LIST = "perhaps another list of links: read it with `hubtool list-links`"
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif", ".mp4", ".webm"))
_TEXTS = frozenset((".txt", ".md", ".json", ".csv", ".yaml", ".html"))
_TEXT, _NO_FILE = "a text", "no file of a model"
_PROGRAMS = frozenset((".ps1", ".bat", ".cmd", ".sh", ".py", ".exe", ".js", ".msi"))
_PIXELDRAIN = re.compile(r"/(?:u|api/file)/([A-Za-z0-9]{4,32})(?:/|$)")
_MODEL_PAGE = re.compile(r"/(?:api/download/models|model-versions|models)/\d+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an address is taken for, and why it is not fetched."""

    kind: str  # file, archive, page, manual (a browser gets it), expired, skipped
    reason: str = ""
    stem: str = ""  # the last part of its path without extension


def judge(url: str) -> Judgement:
    """What an address is taken for.

    >>> judge("https://files.catbox.moe/ab12cd.safetensors").kind, judge("https://mega.nz/file/x#y").kind
    ('file', 'manual')
    """
    try:
        parts, own = urlsplit(url), origin(url)
    except ValueError:
        return Judgement("skipped", "no address")
    host, path = (parts.hostname or "").removeprefix("www."), PurePosixPath(unquote(parts.path))
    kind, reason = _by_host(host, own, parts.path)
    if not kind:
        kind, reason = _by_suffix(path.suffix.lower())
        is_list = reason in {_NO_FILE, _TEXT} and host in _LISTS and len(path.parts) > 1
        reason = _ANOTHER_LIST if is_list else reason
    return Judgement(kind, reason, path.name.partition(".")[0] or host)


def pixeldrain_id(url: str) -> str:
    """The id of a file on pixeldrain, or nothing.

    >>> pixeldrain_id("https://pixeldrain.com/u/AbCd1234")
    'AbCd1234'
    """
    parts = urlsplit(url)
    match = _PIXELDRAIN.match(parts.path) if parts.hostname in {"pixeldrain.com", "www.pixeldrain.com"} else None
    return match[1] if match else ""


def _by_host(host: str, own: str, path: str) -> tuple[str, str]:
    for table, kind in ((_EXPIRED, "expired"), (_BROWSER, "manual")):
        for name, reason in table.items():
            if host == name or host.endswith(f".{name}"):
                return kind, reason
    if host == "pixeldrain.com":
        return ("file", "") if _PIXELDRAIN.match(path) else ("manual", "a list on pixeldrain: open it in a browser")
    if own in CIVITAI_ORIGINS or own in NUMBERED_SITES:
        return ("page", "") if _MODEL_PAGE.search(path) else ("skipped", "a page that offers no model")
    if repository_site(own) and path.count("/") >= 2 and not path.startswith(("/datasets/", "/spaces/", "/docs/")):
        return "page", ""
    return "", ""


def _by_suffix(suffix: str) -> tuple[str, str]:
    if suffix in FILES:
        return "file", ""
    if suffix in ARCHIVES:
        return "archive", ""
    if suffix in _REFUSED:
        return "manual", _REFUSED[suffix]
    for kinds, reason in ((_PICTURES, "a picture"), (_TEXTS, _TEXT), (_PROGRAMS, "a program: it is never run")):
        if suffix in kinds:
            return "skipped", reason
    return "skipped", _NO_FILE
