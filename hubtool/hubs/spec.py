"""SPEC: every way in which a person names a thing on a hub.

| written | means |
|---|---|
| `120096`, `m:120096` | a model |
| `120096@135931` | a version of it |
| `v:135931` | a version |
| `https://civitai.com/models/120096?modelVersionId=135931` | as it says; also `/model-versions/N` and both below `/api/v1` |
| `https://civitai.com/api/download/models/135931?fileId=7` | a file of a version |
| `urn:air:sdxl:lora:civitai:120096@135931`, `civitai:120096@135931` | AIR, wiki "AIR – Uniform Resource Names" |
| `sha256:HEX`, `autov1:` `autov2:` `autov3:` `blake3:` `crc32:` | the file with that hash |
| `https://…/style.safetensors` | a file anywhere |
| `./style.safetensors` | a file here, looked up by its hash |
| `hf:owner/repo[@rev][/file]`, `https://huggingface.co/owner/repo…` | a repository of Hugging Face, or a file of it |
| `ms:owner/repo[@rev][/file]`, `https://modelscope.cn/models/owner/repo…` | the same on ModelScope |
| `civarchive:120096@135931`, `arcenciel:77` | a model of those hubs; their pages' addresses too |
| `list:ADDRESS-OR-FILE`, `list:ADDRESS-OR-FILE#LABEL` | every file that a list of links offers, or the one with this label |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from hubtool.errors import BadSpec, StorageProblem
from hubtool.hubs.addresses import Reach, literal_reach, origin
from hubtool.hubs.places import CIVITAI_ORIGINS, NUMBERED_SITES, repository_site
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO
    from urllib.parse import SplitResult

HASH_DIGITS = {"sha256": 64, "autov1": 8, "autov2": 10, "autov3": 12, "blake3": 64, "crc32": 8}
MAX_LIST = 16 << 20  # characters of a file of SPECs
MAX_ID = 2**31 - 1  # Civitai's ids are 32-bit integers
_REPOSITORY = re.compile(r"(?P<name>[\w.\-]+/[\w.\-]+)(?:@(?P<revision>[^/@\s]+))?(?:/(?P<path>[^\s].*))?", re.ASCII)
_REPOSITORY_PREFIXES = {"hf": "huggingface", "ms": "modelscope"}
_AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?:(?P<ecosystem>[\w\-/]+):)?(?:(?P<type>[\w\-/]+):)?(?P<source>civitai|huggingface|modelscope|civarchive|arcenciel):"
    r"(?P<id>[\w\-/.]+?)(?:@(?P<version>[\w\-/]+))?(?:\+(?P<file>\d+))?(?:\.(?P<format>\w+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ByModel:
    """A model, perhaps one version and file of it; `bare` if it was only a number, `hub` if it says whose number."""

    model_id: int
    version_id: int | None = None
    file_id: str = ""
    bare: bool = False
    hub: str = ""


@dataclass(frozen=True, slots=True)
class ByVersion:
    """A version whose model is not named."""

    version_id: int
    file_id: str = ""


@dataclass(frozen=True, slots=True)
class ByHash:
    """A file by a hash of the kind `kind`, lower-case hex."""

    kind: str
    hexadecimal: str


@dataclass(frozen=True, slots=True)
class ByUrl:
    """A file by its address."""

    url: str


@dataclass(frozen=True, slots=True)
class ByPath:
    """A file on this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class ByRepository:
    """A repository of files, perhaps a revision and one file of it."""

    hub: str  # huggingface, modelscope
    name: str  # owner/repo
    revision: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class ByEntry:
    """Entries of a list of links: one by its label, or all of them."""

    source: str  # an address or a file
    label: str = ""


Spec = ByModel | ByVersion | ByHash | ByUrl | ByPath | ByRepository | ByEntry


def parse(text: str, hub_base: str = "") -> Spec:
    """What a SPEC means; `hub_base` is the base URL of the hub in use, whose pages count as Civitai's do.

    >>> parse("120096@135931")
    ByModel(model_id=120096, version_id=135931, file_id='', bare=False, hub='')
    >>> parse("urn:air:sdxl:lora:civitai:120096@135931")
    ByModel(model_id=120096, version_id=135931, file_id='', bare=False, hub='')

    Raises:
        BadSpec: it follows no known form.
    """
    text = text.strip()
    for form in (_entry, _numbers, _hash, _link, _repository, _air, _path):
        found = form(text, hub_base)
        if found is not None:
            return found
    raise BadSpec(f"This names nothing on a hub: {text[:200] or 'an empty SPEC'}")


def expand(specs: Sequence[str], stdin: TextIO) -> list[str]:
    """The SPECs with `-` (one a line from stdin) and `@FILE` (one a line from a file) replaced by what they hold.

    Empty lines and those that begin with `#` are skipped.

    Raises:
        StorageProblem: a list cannot be read.
        BadSpec: it is no text.
    """
    found: list[str] = []
    for spec in specs:
        if spec == "-":
            found += _lines(spec, lambda: stdin.read(MAX_LIST + 1))
        elif spec.startswith("@") and len(spec) > 1:
            found += _lines(spec, lambda path=Path(spec[1:]): _beginning(path))  # type: ignore[misc]  # bound now
        else:
            found.append(spec)
    return found


def _beginning(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        return file.read(MAX_LIST + 1)


def _lines(name: str, read: Callable[[], str]) -> list[str]:
    try:
        text = read()
    except OSError as error:
        raise StorageProblem(name, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise BadSpec(f"{name} is no UTF-8 text.") from error
    if len(text) > MAX_LIST:
        raise BadSpec(f"{name} has more than {MAX_LIST >> 20} million characters: that is no list of SPECs.")
    stripped = [line.strip() for line in text.splitlines()]
    return [line for line in stripped if line and not line.startswith("#")]


# ---------------------------------------------------------------- forms: (text, hub base) → Spec, or None if it is another


def _numbers(text: str, _: str) -> Spec | None:
    match = re.fullmatch(r"(?:(m|v):)?(\d{1,19})(?:@(\d{1,19}))?", text, re.ASCII | re.IGNORECASE)
    if not match:
        return None
    prefix, first, second = match[1], int(match[2]), match[3]
    if (prefix or "").lower() == "v":
        if second:
            raise BadSpec(f"A version has no version of its own: {text}")
        return ByVersion(first)
    return ByModel(first, int(second) if second else None, bare=not prefix and not second)


def _hash(text: str, _: str) -> Spec | None:
    kind, colon, digits = text.partition(":")
    kind = kind.lower()
    if not colon or kind not in HASH_DIGITS:
        return None
    if not re.fullmatch(rf"[0-9a-f]{{{HASH_DIGITS[kind]}}}", digits.lower()):
        raise BadSpec(f"A hash of kind {kind} has {HASH_DIGITS[kind]} hexadecimal digits: {digits[:80]}")
    return ByHash(kind, digits.lower())


def _link(text: str, hub_base: str) -> Spec | None:
    if "://" not in text:
        return None
    try:
        parts, host = urlsplit(text), origin(text)
    except ValueError as error:
        raise BadSpec(f"This is no address: {text[:200]}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadSpec(f"Only http and https addresses can be fetched: {text[:200]}")
    is_own = bool(hub_base) and host == origin(hub_base)
    found = _known_page(host, parts, is_own=is_own)
    if found is not None:
        return found
    if parts.scheme == "http" and not is_own and literal_reach(parts.hostname) is not Reach.LOCAL:
        raise BadSpec(f"Only https addresses are fetched: {host}{parts.path}"[:300])
    return ByUrl(text)


def _known_page(host: str, parts: SplitResult, *, is_own: bool) -> Spec | None:
    """What a page of a hub that we know shows."""
    site = repository_site(host)
    if site:
        return _repository_page(site, parts.path)
    if not (is_own or host in CIVITAI_ORIGINS or host in NUMBERED_SITES):
        return None
    found = _page(parts.path, parse_qs(parts.query))
    if found is None and (host in CIVITAI_ORIGINS or host in NUMBERED_SITES):
        raise BadSpec(f"This page of {parts.hostname} shows no model: {parts.path[:200]}")
    hub = NUMBERED_SITES.get(host, "")
    return replace(found, hub=hub) if hub and isinstance(found, ByModel) else found


def _repository_page(site: str, path: str) -> Spec:
    """`/owner/repo`, `/owner/repo/tree/REV`, `/owner/repo/blob|resolve|raw/REV/FILE`; ModelScope's begin with `/models`."""
    parts = [unquote(part) for part in path.strip("/").removeprefix("models/").split("/")]
    if len(parts) < 2 or not all(parts[:2]) or parts[0] in {"datasets", "spaces", "collections", "docs", "papers"}:
        raise BadSpec(f"This page of {site} is no repository: {path[:200]}", hint="Name it as OWNER/REPO.")
    name, rest = "/".join(parts[:2]), parts[2:]
    if len(rest) > 1 and rest[0] in {"tree", "blob", "resolve", "raw", "file"}:
        skipped = 2 if rest[:2] == ["file", "view"] else 1
        return ByRepository(site, name, "".join(rest[skipped : skipped + 1]), "/".join(rest[skipped + 1 :]))
    return ByRepository(site, name)


def _page(path: str, query: dict[str, list[str]]) -> Spec | None:
    """A page or API address of a Civitai site."""
    version = query.get("modelVersionId", [""])[0]
    file = query.get("fileId", [""])[0]
    match = re.search(r"/(api/download/models|model-versions|models)/(\d{1,19})(?:/|$)", path, re.ASCII)
    if not match:
        return None
    number = int(match[2])
    if match[1] != "models":
        return ByVersion(number, file if file.isdigit() else "")
    return ByModel(number, int(version) if re.fullmatch(r"\d{1,19}", version, re.ASCII) else None)


def _repository(text: str, _: str) -> Spec | None:
    prefix, colon, rest = text.partition(":")
    if not colon or prefix.lower() not in _REPOSITORY_PREFIXES:
        return None
    match = _REPOSITORY.fullmatch(rest)
    if not match or ".." in rest.split("/"):
        raise BadSpec(f"This names no repository: {text[:200]}", hint=f"Write {prefix}:OWNER/REPO[@REVISION][/FILE].")
    return ByRepository(
        _REPOSITORY_PREFIXES[prefix.lower()], match["name"], match["revision"] or "", match["path"] or ""
    )


def _entry(text: str, _: str) -> Spec | None:
    prefix, colon, rest = text.partition(":")
    if not colon or prefix.lower() != "list":
        return None
    source, _, label = rest.partition("#")
    if not source:
        raise BadSpec("This names no list of links.", hint="Write list:ADDRESS-OR-FILE or list:ADDRESS-OR-FILE#LABEL.")
    return ByEntry(source, label)


def _air(text: str, _: str) -> Spec | None:
    match = _AIR.fullmatch(text)
    if not match:
        if text.lower().startswith(("urn:", "air:")):
            raise BadSpec(f"This AIR is not understood: {text[:200]}", hint="Known sources: civitai, huggingface.")
        return None
    source = match["source"].lower()
    if source in _REPOSITORY_PREFIXES.values():
        return ByRepository(source, match["id"], match["version"] or "")
    numbers = [match["id"], match["version"] or "0"]
    if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
        raise BadSpec(f"An AIR of Civitai has numbers for model and version: {text[:200]}")
    hub = "" if source == "civitai" else source
    return ByModel(int(numbers[0]), int(numbers[1]) or None, match["file"] or "", hub=hub)


def _path(text: str, _: str) -> Spec | None:
    looks_so = "/" in text or "\\" in text or text.lower().endswith((".safetensors", ".ckpt", ".pt", ".zip"))
    return ByPath(from_home(text)) if looks_so and "\0" not in text else None
