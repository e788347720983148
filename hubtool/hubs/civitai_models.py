"""Civitai's JSON as it really comes: only ids are required, every other field may be missing, null or of another type.

Recorded bodies from 2023 to 2026 are in fixtures/responses/civitai. Enumerations are open; unknown fields are ignored.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field

from hubtool.hubs.tolerant import (
    Count,
    Flag,
    Hashes,
    Level,
    Line,
    Lines,
    Prose,
    RequiredId,
    SizeKb,
    Tolerant,
    Words,
    as_object,
    only_objects,
    with_ids,
)


def _uses(value: object) -> object:
    """Commercial use as a text (2023), a list, or Postgres' `{Image,Rent}`."""
    values = value if isinstance(value, list) else [value]
    texts = (entry for entry in values if isinstance(entry, str))
    return tuple(dict.fromkeys(use for text in texts for use in re.findall(r"\w+", text)))


class FileMetadata(Tolerant):
    """`files[].metadata`."""

    format: Line = ""


class File(Tolerant):
    """`files[]`."""

    id: RequiredId
    name: Line = ""
    type: Line = ""
    size_bytes: SizeKb = Field(None, validation_alias="sizeKB")
    metadata: Annotated[FileMetadata, BeforeValidator(as_object)] = FileMetadata()
    hashes: Hashes = Field(default_factory=dict)
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
    trigger_words: Words = Field((), validation_alias="trainedWords")
    description: Prose = ""
    usage_control: Line = Field("", validation_alias="usageControl")
    stats: Annotated[Stats, BeforeValidator(as_object)] = Stats()
    files: Annotated[list[File], BeforeValidator(with_ids)] = Field(default_factory=list)
    images: Annotated[list[Image], BeforeValidator(only_objects)] = Field(default_factory=list)
    model: Annotated[VersionModel, BeforeValidator(as_object)] = VersionModel()


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
    stats: Annotated[Stats, BeforeValidator(as_object)] = Stats()
    allow_no_credit: Flag = Field(None, validation_alias="allowNoCredit")
    allow_commercial_use: Annotated[tuple[str, ...], BeforeValidator(_uses)] = Field(
        (), validation_alias="allowCommercialUse"
    )
    allow_derivatives: Flag = Field(None, validation_alias="allowDerivatives")
    allow_different_license: Flag = Field(None, validation_alias="allowDifferentLicense")
    versions: Annotated[list[Version], BeforeValidator(with_ids)] = Field(
        default_factory=list, validation_alias="modelVersions"
    )


class PageMetadata(Tolerant):
    """`metadata` of a page of results."""

    next_cursor: Line = Field("", validation_alias="nextCursor")
    next_page: Line = Field("", validation_alias="nextPage")


class Page(Tolerant):
    """GET /models."""

    items: Annotated[list[Model], BeforeValidator(with_ids)] = Field(default_factory=list)
    metadata: Annotated[PageMetadata, BeforeValidator(as_object)] = PageMetadata()
