"""File names that are safe on every system, whoever chose them.

Names come from uploaders, from HTTP headers and from URLs. Windows' rules apply everywhere, for model folders are shared.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

from hubtool.hubs.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_NAME_BYTES = 200  # of 255: sidecars add their suffixes
SAFETENSORS = ".safetensors"
#: Files of a version that are no weights and cannot run; taken as they are when their hash proves them.
INERT_SUFFIXES = (".zip", ".json", ".yaml", ".yml", ".txt", ".gguf")
_SUFFIXES = (SAFETENSORS, *INERT_SUFFIXES)
_MAX_SUFFIX_BYTES = 16
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[1-9¹²³]|lpt[1-9¹²³])", re.IGNORECASE)
_ILLEGAL = str.maketrans(dict.fromkeys('<>:"|?*', "_"))
_PARAMETER = re.compile(r';\s*([\w!#$%&\'*+\-.^`|~]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^;]*)', re.DOTALL)
_CHARSETS = {"utf-8": "utf-8", "iso-8859-1": "latin-1"}


def safe_name(raw: str) -> str | None:
    """The last component of a name, made legal, at most MAX_NAME_BYTES long; None if nothing usable is left.

    >>> safe_name("../../ab:c?.safetensors"), safe_name("CON.safetensors"), safe_name("..")
    ('ab_c_.safetensors', '_CON.safetensors', None)
    """
    last = re.split(r"[/\\]", raw)[-1]
    last = re.sub(r"^[A-Za-z]:", "", last)  # a drive
    name = unicodedata.normalize("NFC", clean(re.sub(r"[\n\t]", "", last))).translate(_ILLEGAL)
    name = name.strip(" ").rstrip(". ")
    if not name.strip(".") or name.lower() in _SUFFIXES:
        return None
    return _unreserved(_shortened(name))


def is_legal(name: str) -> bool:
    """Whether a file or folder can have this very name on every system.

    >>> is_legal("a=b (1).safetensors"), is_legal("nul:.safetensors"), is_legal("CON"), is_legal("a ")
    (True, False, False, False)
    """
    is_plain = bool(name) and not re.search(r"[\x00-\x1f/\\]", name) and name.translate(_ILLEGAL) == name
    return is_plain and not name.endswith((" ", ".")) and _unreserved(name) == name


def final_name(candidates: Iterable[str], fallback: str, suffixes: tuple[str, ...] = _SUFFIXES) -> str:
    """The first usable candidate, with an extension that says what it is: one of `suffixes`, else `.safetensors`."""
    name = next((name for raw in candidates if (name := safe_name(raw))), None) or fallback
    if name.lower().endswith(suffixes):
        return name
    return _unreserved(_shortened(name + SAFETENSORS))


def numbered(name: str, mark: str) -> str:
    """The name with a mark before its extension, for a second file of that name.

    >>> numbered("style.safetensors", "135931")
    'style_135931.safetensors'
    """
    stem, dot, suffix = name.rpartition(".")
    return _shortened(f"{stem}_{mark}{dot}{suffix}" if dot else f"{name}_{mark}", keep=f"_{mark}{dot}{suffix}")


def header_name(header: str) -> str | None:
    """The file name in a Content-Disposition header (RFC 6266), not yet made safe; None if there is none.

    `filename*` is preferred; one with an unknown charset or bad bytes is passed over. The first of repeated ones counts.
    """
    parameters: dict[str, str] = {}
    for key, value in _PARAMETER.findall(";" + _as_utf8(header).partition(";")[2]):
        parameters.setdefault(key.lower(), value.strip())
    extended = _extended(parameters.get("filename*", ""))
    if extended is not None:
        return extended
    plain = parameters.get("filename")
    if plain is None:
        return None
    if plain.startswith('"'):
        return re.sub(r"\\(.)", r"\1", plain[1:].removesuffix('"'), flags=re.DOTALL)
    return plain


def url_names(url: str) -> list[str]:
    """Names that a storage URL carries: in the disposition that it asks for, then in its path."""
    parts = urlsplit(url)
    asked = [
        value
        for key, value in parse_qsl(parts.query)
        if key in {"response-content-disposition", "b2ContentDisposition"}
    ]
    names = [header_name(value) or "" for value in asked]
    return [*names, unquote(parts.path.rpartition("/")[2])]


def _as_utf8(header: str) -> str:
    """Headers are latin-1 by the letter and often UTF-8 in fact."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _extended(value: str) -> str | None:
    """RFC 5987 `charset'language'percent-encoded`."""
    charset, quote, rest = value.partition("'")
    encoding = _CHARSETS.get(charset.strip().lower())
    if not quote or encoding is None:
        return None
    try:
        return unquote_to_bytes(rest.partition("'")[2]).decode(encoding)
    except UnicodeDecodeError:
        return None


def _shortened(name: str, keep: str = "") -> str:
    """Cut in the stem, at a character's border, so that `keep` (default: the extension) stays."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    if not keep:
        _, dot, suffix = name.rpartition(".")
        keep = dot + suffix if len(suffix.encode()) <= _MAX_SUFFIX_BYTES else ""
    room = MAX_NAME_BYTES - len(keep.encode())
    return name.encode()[:room].decode("utf-8", "ignore").rstrip(". ") + keep


def is_reserved(name: str) -> bool:
    """Whether Windows takes a file of this name for a device.

    >>> is_reserved("con.safetensors"), is_reserved("concert.safetensors")
    (True, False)
    """
    return bool(_RESERVED.fullmatch(name.partition(".")[0].rstrip()))


def _unreserved(name: str) -> str:
    """Windows' device names count with any extension, and with blanks before it."""
    stem, dot, rest = name.partition(".")
    return f"_{stem.rstrip()}{dot}{rest}" if _RESERVED.fullmatch(stem.rstrip()) else name
