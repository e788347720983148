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
| `hf:owner/repo[@rev][/file]`, `https://huggingface.co/…` | Hugging Face |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from hubtool.errors import BadSpec, StorageProblem
from hubtool.hubs.addresses import Reach, literal_reach, origin
from hubtool.hubs.tokens import CIVITAI_ORIGINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TextIO

HASH_DIGITS = {"sha256": 64, "autov1": 8, "autov2": 10, "autov3": 12, "blake3": 64, "crc32": 8}
MAX_ID = 2**31 - 1  # Civitai's ids are 32-bit integers
_HUGGING_FACE = {"https://huggingface.co", "https://hf.co", "https://www.huggingface.co"}
_AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?:(?P<ecosystem>[\w\-/]+):)?(?:(?P<type>[\w\-/]+):)?(?P<source>civitai|huggingface):"
    r"(?P<id>[\w\-/.]+?)(?:@(?P<version>[\w\-/]+))?(?:\+(?P<file>\d+))?(?:\.(?P<format>\w+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ByModel:
    """A model, perhaps one version and file of it; `bare` if it was only a number."""

    model_id: int
    version_id: int | None = None
    file_id: str = ""
    bare: bool = False


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
    """Something on Hugging Face."""

    name: str


Spec = ByModel | ByVersion | ByHash | ByUrl | ByPath | ByRepository


def parse(text: str, hub_base: str = "") -> Spec:
    """What a SPEC means; `hub_base` is the base URL of the hub in use, whose pages count as Civitai's do.

    >>> parse("120096@135931")
    ByModel(model_id=120096, version_id=135931, file_id='', bare=False)
    >>> parse("urn:air:sdxl:lora:civitai:120096@135931")
    ByModel(model_id=120096, version_id=135931, file_id='', bare=False)

    Raises:
        BadSpec: it follows no known form.
    """
    text = text.strip()
    for form in (_numbers, _hash, _link, _repository, _air, _path):
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
            found += _lines(spec, stdin.readlines)
        elif spec.startswith("@") and len(spec) > 1:
            path = Path(spec[1:])
            found += _lines(spec, lambda path=path: path.read_text("utf-8-sig").splitlines())  # type: ignore[misc]  # bound now
        else:
            found.append(spec)
    return found


def _lines(name: str, read: Callable[[], Iterable[str]]) -> list[str]:
    try:
        stripped = [line.strip() for line in read()]
    except OSError as error:
        raise StorageProblem(name, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise BadSpec(f"{name} is no UTF-8 text.") from error
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
    if is_own or host in CIVITAI_ORIGINS:
        found = _page(parts.path, parse_qs(parts.query))
        if found is not None:
            return found
    if host in _HUGGING_FACE and "/resolve/" not in parts.path:
        return ByRepository(parts.path.strip("/"))
    if parts.scheme == "http" and not is_own and literal_reach(parts.hostname) is not Reach.LOCAL:
        raise BadSpec(f"Only https addresses are fetched: {host}{parts.path}"[:300])
    return ByUrl(text)


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
    return ByRepository(text[3:]) if text.lower().startswith("hf:") else None


def _air(text: str, _: str) -> Spec | None:
    match = _AIR.fullmatch(text)
    if not match:
        if text.lower().startswith(("urn:", "air:")):
            raise BadSpec(f"This AIR is not understood: {text[:200]}", hint="Known sources: civitai, huggingface.")
        return None
    if match["source"].lower() == "huggingface":
        return ByRepository(match["id"])
    numbers = [match["id"], match["version"] or "0"]
    if not all(number.isascii() and number.isdigit() and len(number) < 20 for number in numbers):
        raise BadSpec(f"An AIR of Civitai has numbers for model and version: {text[:200]}")
    return ByModel(int(numbers[0]), int(numbers[1]) or None, match["file"] or "")


def _path(text: str, _: str) -> Spec | None:
    looks_so = "/" in text or "\\" in text or text.lower().endswith((".safetensors", ".ckpt", ".pt", ".zip"))
    return ByPath(Path(text).expanduser()) if looks_so and "\0" not in text else None
