"""Civitai's JSON as it really comes: only ids are required, every other field may be missing, null or of another type.

Recorded bodies from 2023 to 2026 are in fixtures/responses/civitai. Enumerations are open; unknown fields are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

from hubtool.hubs.text import clean, one_line

_HEX = re.compile(r"[0-9a-f]{8,64}")
_LORA_TAG = re.compile(r"<lora:[^>]*>", re.IGNORECASE)
_IMAGE_LEVELS = {"none": 1, "soft": 2, "mature": 4, "x": 8, "blocked": 32}


def _number(value: object) -> object:
    """Numbers also as text; anything else, and what is not finite, is None."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # anything may come; what float refuses is no number
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _count(value: object) -> object:
    found = _number(value)
    return int(found) if isinstance(found, float) else None


def _size(value: object) -> object:
    """`sizeKB` is bytes / 1024 as a float, and exact; 0 stands for unknown."""
    found = _number(value)
    return (round(found * 1024) or None) if isinstance(found, float) and found >= 0 else None


def _flag(value: object) -> object:
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _line(value: object) -> object:
    return one_line(str(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def _prose(value: object) -> object:
    return clean(value) if isinstance(value, str) else ""


def _lines(value: object) -> object:
    """A list of short texts; a single text stands for a list of one; no empty ones, none twice."""
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(line for entry in values if (line := _line(entry))))


def _words(value: object) -> object:
    """Trigger words without the `<lora:…>` tags that some creators paste into them: those would apply it twice."""
    values = value if isinstance(value, list) else [value]
    lines = (_line(_LORA_TAG.sub(" ", entry)) for entry in values if isinstance(entry, str))
    return tuple(dict.fromkeys(word for line in lines if (word := str(line).strip(" ,"))))


def _uses(value: object) -> object:
    """Commercial use as a text (2023), a list, or Postgres' `{Image,Rent}`."""
    values = value if isinstance(value, list) else [value]
    texts = (entry for entry in values if isinstance(entry, str))
    return tuple(dict.fromkeys(use for text in texts for use in re.findall(r"\w+", text)))


def _hashes(value: object) -> object:
    tables = value if isinstance(value, list) else [value]
    pairs = [pair for table in tables if isinstance(table, Mapping) for pair in table.items()]
    lower = {str(kind).lower(): str(digits).strip().lower() for kind, digits in pairs}
    # a value that is cut short (documentation does so) identifies nothing
    return {k: v for k, v in lower.items() if _HEX.fullmatch(v) and (k not in {"sha256", "blake3"} or len(v) == 64)}


def _level(value: object) -> object:
    """A bit mask; the images of 2023 have words."""
    if isinstance(value, str) and value.lower() in _IMAGE_LEVELS:
        return _IMAGE_LEVELS[value.lower()]
    return max(0, int(found)) if isinstance(found := _number(value), float) else 0


def _identified(value: object) -> object:
    """The entries of a list that have a usable id."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(_count(entry.get("id")), int)]


def _objects(value: object) -> object:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _object(value: object) -> object:
    return value if isinstance(value, Mapping) else {}


Count = Annotated[int | None, BeforeValidator(_count)]
Flag = Annotated[bool | None, BeforeValidator(_flag)]
Line = Annotated[str, BeforeValidator(_line)]
Prose = Annotated[str, BeforeValidator(_prose)]
Lines = Annotated[tuple[str, ...], BeforeValidator(_lines)]
Level = Annotated[int, BeforeValidator(_level)]
RequiredId = Annotated[int, BeforeValidator(_count)]


class Tolerant(BaseModel):
    """Ignores what it does not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class FileMetadata(Tolerant):
    """`files[].metadata`."""

    format: Line = ""


class File(Tolerant):
    """`files[]`."""

    id: RequiredId
    name: Line = ""
    type: Line = ""
    size_bytes: Annotated[int | None, BeforeValidator(_size)] = Field(None, validation_alias="sizeKB")
    metadata: Annotated[FileMetadata, BeforeValidator(_object)] = FileMetadata()
    hashes: Annotated[dict[str, str], BeforeValidator(_hashes)] = {}
    pickle_scan: Line = Field("", validation_alias="pickleScanResult")
    virus_scan: Line = Field("", validation_alias="virusScanResult")
    scanned_at: Line = Field("", validation_alias="scannedAt")
    url: Line = Field("", validation_alias="downloadUrl")
    primary: Flag = None


class Image(Tolerant):
    """`images[]`."""

    url: Line = ""
    nsfw_level: Level = Field(0, validation_alias="nsfwLevel")
    nsfw: Level = 0  # 2023: None, Soft, Mature, X
    type: Line = "image"
    width: Count = None
    height: Count = None


class Stats(Tolerant):
    """`stats`; creators may hide theirs."""

    downloads: Count = Field(None, validation_alias="downloadCount")
    thumbs_up: Count = Field(None, validation_alias="thumbsUpCount")


class VersionModel(Tolerant):
    """`model` inside a version."""

    name: Line = ""
    type: Line = ""
    nsfw: Flag = None
    mode: Line = ""


class Version(Tolerant):
    """GET /model-versions/{id}, and `modelVersions[]`."""

    id: RequiredId
    model_id: Count = Field(None, validation_alias="modelId")
    name: Line = ""
    base_model: Line = Field("", validation_alias="baseModel")
    published_at: Line = Field("", validation_alias="publishedAt")
    created_at: Line = Field("", validation_alias="createdAt")
    trigger_words: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field((), validation_alias="trainedWords")
    description: Prose = ""
    usage_control: Line = Field("", validation_alias="usageControl")
    stats: Annotated[Stats, BeforeValidator(_object)] = Stats()
    files: Annotated[list[File], BeforeValidator(_identified)] = []
    images: Annotated[list[Image], BeforeValidator(_objects)] = []
    model: Annotated[VersionModel, BeforeValidator(_object)] = VersionModel()


class Model(Tolerant):
    """GET /models/{id}, and `items[]`."""

    id: RequiredId
    name: Line = ""
    description: Prose = ""
    type: Line = ""
    nsfw: Flag = None
    nsfw_level: Level = Field(0, validation_alias="nsfwLevel")
    tags: Lines = ()
    mode: Line = ""
    creator: Line = Field("", validation_alias=AliasPath("creator", "username"))
    stats: Annotated[Stats, BeforeValidator(_object)] = Stats()
    allow_no_credit: Flag = Field(None, validation_alias="allowNoCredit")
    allow_commercial_use: Annotated[tuple[str, ...], BeforeValidator(_uses)] = Field(
        (), validation_alias="allowCommercialUse"
    )
    allow_derivatives: Flag = Field(None, validation_alias="allowDerivatives")
    allow_different_license: Flag = Field(None, validation_alias="allowDifferentLicense")
    versions: Annotated[list[Version], BeforeValidator(_identified)] = Field([], validation_alias="modelVersions")


class PageMetadata(Tolerant):
    """`metadata` of a page of results."""

    next_cursor: Line = Field("", validation_alias="nextCursor")
    next_page: Line = Field("", validation_alias="nextPage")


class Page(Tolerant):
    """GET /models."""

    items: Annotated[list[Model], BeforeValidator(_identified)] = []
    metadata: Annotated[PageMetadata, BeforeValidator(_object)] = PageMetadata()
