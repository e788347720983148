"""Hugging Face's JSON (`/api/models/{repo}?blobs=true`): only the name is required."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from hubtool.hubs.tolerant import Count, Line, Lines, Tolerant, only_objects, sha256_digits

_BASE_TAG = "base_model:"


class Sibling(Tolerant):
    """One file."""

    path: Line = Field("", validation_alias=AliasChoices("rfilename", "path"))
    plain_size: Count = Field(None, validation_alias="size")
    lfs_size: Count = Field(None, validation_alias=AliasPath("lfs", "size"))
    sha256: Annotated[str, BeforeValidator(sha256_digits)] = Field(
        "", validation_alias=AliasChoices(AliasPath("lfs", "sha256"), AliasPath("lfs", "oid"))
    )

    @property
    def size_bytes(self) -> int | None:
        """Of the file itself, not of the pointer that stands for it in git."""
        return self.lfs_size if self.lfs_size is not None else self.plain_size


class Repository(Tolerant):
    """`/api/models/{repo}`, and an entry of `/api/models`."""

    id: str
    sha: Line = ""
    author: Line = ""
    downloads: Count = None
    modified: Line = Field("", validation_alias="lastModified")
    tags: Lines = ()
    gated: Line | bool | None = None  # false, "auto", "manual"
    card_base: Lines = Field((), validation_alias=AliasPath("cardData", "base_model"))
    license_name: Line = Field("", validation_alias=AliasPath("cardData", "license_name"))
    license: Line = Field("", validation_alias=AliasPath("cardData", "license"))
    trigger_words: Lines = Field((), validation_alias=AliasPath("cardData", "instance_prompt"))
    files: Annotated[list[Sibling], BeforeValidator(only_objects)] = Field(
        default_factory=list, validation_alias="siblings"
    )

    @property
    def is_gated(self) -> bool:
        """Whether the author hands the files out to those who accept conditions."""
        return bool(self.gated)

    @property
    def base_models(self) -> tuple[str, ...]:
        """Repositories that the adapter is for: the card's, else those of the tags."""
        if self.card_base:
            return self.card_base
        tagged = (tag[len(_BASE_TAG) :] for tag in self.tags if tag.startswith(_BASE_TAG))
        return tuple(dict.fromkeys(tag.rpartition(":")[2] for tag in tagged))
