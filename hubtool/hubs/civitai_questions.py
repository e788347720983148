"""What Civitai's API answers besides models: names, pictures, terms of a version, and many hashes at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, BeforeValidator, Field

from hubtool.errors import HubProblem
from hubtool.hubs.hub import Match, PreviewImage
from hubtool.hubs.tolerant import (
    Count,
    Flag,
    Level,
    Line,
    Lines,
    RequiredId,
    Tolerant,
    as_count,
    as_object,
    only_objects,
    read,
    record,
    sha256_digits,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hubtool.hubs.client import Client

API = "/api/v1"
HASHES_AT_ONCE = 10_000  # more is refused
VERSIONS_AT_ONCE = 100  # likewise, of whole versions
MAX_PICTURES = 200  # of one page
MAX_PAGES = 10


class Enumerations(Tolerant):
    """`GET /enums`."""

    all_base_models: Lines = Field((), validation_alias="BaseModel")
    active_base_models: Lines = Field((), validation_alias="ActiveBaseModel")
    model_types: Lines = Field((), validation_alias="ModelType")

    @property
    def base_models(self) -> tuple[str, ...]:
        """Those that pages offer, and those that are only still filtered by."""
        return tuple(dict.fromkeys(self.all_base_models + self.active_base_models))


class _Named(Tolerant):
    name: Line = Field("", validation_alias=AliasChoices("name", "username"))


class _Names(Tolerant):
    """`GET /tags`, `GET /creators`."""

    items: Annotated[list[_Named], BeforeValidator(only_objects)] = Field(default_factory=list)


class _Image(Tolerant):
    url: Line = ""
    browsing_level: Level = Field(0, validation_alias="browsingLevel")
    nsfw_level: Level = Field(0, validation_alias="nsfwLevel")  # a word here
    type: Line = "image"
    width: Count = None
    height: Count = None


class _ImageCursor(Tolerant):
    next_cursor: Line = Field("", validation_alias="nextCursor")


class _Images(Tolerant):
    """`GET /images`."""

    items: Annotated[list[_Image], BeforeValidator(only_objects)] = Field(default_factory=list)
    metadata: Annotated[_ImageCursor, BeforeValidator(as_object)] = _ImageCursor()


class _Mini(Tolerant):
    """`GET /model-versions/mini/{id}`."""

    requires_login: Flag = Field(None, validation_alias="requireAuth")
    checks_permission: Flag = Field(None, validation_alias="checkPermission")
    free_from: Line = Field("", validation_alias="earlyAccessEndsAt")
    availability: Line = ""


class _Match(Tolerant):
    """An entry of `POST /model-versions/by-hash/ids`."""

    version_id: RequiredId = Field(validation_alias="modelVersionId")
    model_id: Count = Field(None, validation_alias="modelId")
    hash: Annotated[str, BeforeValidator(sha256_digits)] = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What one needs in order to download a version; None where the hub does not say."""

    requires_login: bool | None = None
    checks_permission: bool | None = None  # private, or paid for
    free_from: str = ""  # ISO 8601: until then it is early access
    availability: str = ""  # Public, Unsearchable, Private, EarlyAccess

    @property
    def is_private(self) -> bool:
        """Whether only those get it whom the creator let in."""
        return bool(self.checks_permission) and self.availability == "Private"

    @property
    def is_paid(self) -> bool:
        """Whether it has to be bought, and no day is named on which it becomes free."""
        return bool(self.checks_permission) and self.availability == "EarlyAccess" and not self.free_from

    @property
    def is_early(self) -> bool:
        """Whether the time of early access is not over."""
        try:
            ends = datetime.fromisoformat(self.free_from.replace("Z", "+00:00"))
        except ValueError:
            return False
        return ends > datetime.now(ends.tzinfo or timezone.utc).replace(tzinfo=ends.tzinfo)


def enumerations(client: Client) -> Enumerations:
    """Every name that the hub can filter by; empty if it does not say."""
    try:
        return read(Enumerations, client.get_json(f"{API}/enums"), client.site.base)
    except HubProblem:
        return Enumerations()


def names_like(client: Client, kind: str, text: str) -> list[str]:
    """Tags or creators (`kind`) whose names hold a text; none if the hub does not say."""
    try:
        said = read(_Names, client.get_json(f"{API}/{kind}", [("query", text), ("limit", "20")]), client.site.base)
    except HubProblem:
        return []
    return [item.name for item in said.items if item.name]


def pictures(client: Client, version_id: int, allowed: int, limit: int) -> list[PreviewImage]:
    """Pictures and videos that people made with a version, no more explicit than the bits of `allowed`.

    Raises:
        HubProblem: the hub refuses.
    """
    found: dict[str, PreviewImage] = {}
    cursor, seen = "", {""}
    for _ in range(MAX_PAGES):
        parameters = [("modelVersionId", str(version_id)), ("limit", str(min(MAX_PICTURES, max(limit, 1))))]
        parameters += [("nsfw", "X" if allowed & ~7 else "Mature" if allowed & 4 else "Soft")]
        parameters += [("cursor", cursor)] if cursor else []
        page = read(_Images, client.get_json(f"{API}/images", parameters), client.site.base)
        for item in page.items:
            level = item.browsing_level or item.nsfw_level
            if item.url and level & ~allowed == 0:
                found.setdefault(item.url, PreviewImage(item.url, level, item.type, item.width, item.height))
        cursor = page.metadata.next_cursor
        if not cursor or cursor in seen or len(found) >= limit:
            break
        seen.add(cursor)
    return list(found.values())[:limit]


def terms(client: Client, version_id: int) -> Terms:
    """What one needs for a version; nothing is known where the hub does not say."""
    try:
        said = read(_Mini, client.get_json(f"{API}/model-versions/mini/{version_id}"), client.site.base)
    except HubProblem:
        return Terms()
    return Terms(said.requires_login, said.checks_permission, said.free_from, said.availability)


def matches(client: Client, digests: Sequence[str]) -> Iterator[Match]:
    """Which versions have files with these SHA-256s; one may have several, one that is unknown has none.

    Raises:
        HubProblem: the hub refuses.
    """
    for row in _by_hash(client, f"{API}/model-versions/by-hash/ids", digests, HASHES_AT_ONCE):
        if isinstance(as_count(row.get("modelVersionId")), int):
            found = read(_Match, row, client.site.base)
            if found.hash and found.model_id:
                yield Match(found.hash, found.model_id, found.version_id)


def versions_with(client: Client, digests: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """The versions that have files with these SHA-256s, as the hub answers for each; in no order, some perhaps left out.

    Raises:
        HubProblem: the hub refuses.
    """
    for row in _by_hash(client, f"{API}/model-versions/by-hash", digests, VERSIONS_AT_ONCE):
        if isinstance(as_count(row.get("id")), int):
            yield row


def _by_hash(client: Client, path: str, digests: Sequence[str], at_once: int) -> Iterator[Mapping[str, object]]:
    for start in range(0, len(digests), at_once):
        answer = client.post_json(path, [digest.upper() for digest in digests[start : start + at_once]])
        rows = answer if isinstance(answer, list) else record(answer, client.site.base).get("items")
        yield from only_objects(rows)
