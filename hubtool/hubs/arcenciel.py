"""Arc en Ciel (arcenciel.io): a small hub of anime models; published files need no account.

Undocumented API below /api: `/models/search`, `/models/{id}`, `/models/{id}/versions`, and a download address that redirects to
storage. `activationTags` is a list or one text with separators; a version may lie on another host (`externalDownloadUrl`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from hubtool.errors import BadSpec, NotFound
from hubtool.hubs.addresses import origin_if_any
from hubtool.hubs.filters import suits
from hubtool.hubs.hub import Found, Model, RemoteFile, SearchPage, Version, choose_file, newest
from hubtool.hubs.remote import Remote
from hubtool.hubs.spec import ByHash, ByModel
from hubtool.hubs.text import plain_text
from hubtool.hubs.tolerant import (
    Count,
    Flag,
    Line,
    Lines,
    Prose,
    RequiredId,
    SizeKb,
    Tolerant,
    as_lines,
    only_objects,
    read,
    record,
    sha256_digits,
    with_ids,
)

if TYPE_CHECKING:
    from hubtool.hubs.hub import Query
    from hubtool.hubs.spec import Spec

_SORTS = {"downloads": "downloads", "rating": "likes", "newest": "newest", "relevance": "newest"}
_TYPES = {"LORA": "LORA", "LoCon": "LORA", "DoRA": "LORA", "Checkpoint": "CHECKPOINT", "TextualInversion": "EMBEDDING"}


def _tags(value: object) -> object:
    return as_lines(re.split(r"[,;\n|]", value) if isinstance(value, str) else value)


class _Version(Tolerant):
    id: RequiredId
    name: Line = Field("", validation_alias=AliasChoices("versionName", "name", "title"))
    file_name: Line = Field("", validation_alias=AliasChoices("originalName", "fileName"))
    size_bytes: SizeKb = Field(None, validation_alias="fileSizeKb")
    sha256: Annotated[str, BeforeValidator(sha256_digits)] = ""
    base_model: Line = Field("", validation_alias="baseModel")
    status: Line = ""
    published_at: Line = Field("", validation_alias=AliasChoices("publishedAt", "createdAt"))
    scan: Line = Field("", validation_alias="fileScanStatus")
    tags: Annotated[tuple[str, ...], BeforeValidator(_tags)] = Field((), validation_alias="activationTags")
    external: Line = Field("", validation_alias="externalDownloadUrl")


class _Model(Tolerant):
    id: RequiredId
    name: Line = Field("", validation_alias=AliasChoices("title", "name"))
    type: Line = Field("", validation_alias=AliasChoices("type", "modelType"))
    description: Prose = ""
    nsfw: Flag = Field(None, validation_alias=AliasChoices("isNsfw", "nsfw"))
    downloads: Count = Field(None, validation_alias=AliasChoices("downloadCount", "downloads"))
    tags: Lines = ()
    creator: Line = Field("", validation_alias=AliasChoices(AliasPath("uploader", "username"), "creator", "username"))
    versions: Annotated[list[_Version], BeforeValidator(with_ids)] = Field(default_factory=list)


class _Page(Tolerant):
    models: Annotated[list[_Model], BeforeValidator(with_ids)] = Field(default_factory=list, validation_alias="data")
    page: Count = None
    pages: Count = Field(None, validation_alias="totalPages")


class _Versions(Tolerant):
    versions: Annotated[list[_Version], BeforeValidator(with_ids)] = Field(
        default_factory=list, validation_alias="data"
    )


class ArcEnCiel(Remote):
    """`Catalogue` over arcenciel.io."""

    def search(self, query: Query) -> SearchPage:
        """One page; the cursor is a page's number."""
        number = int(query.cursor) if re.fullmatch(r"[0-9]{1,6}", query.cursor) else 1
        parameters = [("search", query.text), ("page", str(number)), ("limit", str(min(100, query.limit)))]
        parameters += [("sort", _SORTS[query.sort]), ("status", "available")]
        parameters += [("baseModel", base) for base in query.base_models]
        kinds = dict.fromkeys(_TYPES.get(kind, kind.upper()) for kind in query.types)
        parameters += [("modelType", kind) for kind in kinds]
        page = read(_Page, self._client.get_json("/api/models/search", parameters), self._name)
        models = tuple(model for model in map(self._model, page.models) if suits(model, query))
        more = page.pages is not None and number < page.pages and page.models
        return SearchPage(models[: query.limit], str(number + 1) if more else None)

    def look_up(self, wanted: Spec) -> Found:
        """A model by its number, or a file by its SHA-256."""
        match wanted:
            case ByModel(model_id, version_id, file_id):
                model = self._whole(model_id)
                version = next((entry for entry in model.versions if entry.id == version_id), None)
                if version_id and version is None:
                    raise NotFound(f"Model {model_id} on {self._name} has no version {version_id}.")
                return Found(model, version, choose_file(version or newest(model), file_id) if file_id else None)
            case ByHash(_, digits) if len(digits) == 64:
                return self._by_sha256(digits)
            case ByHash():
                raise NotFound(f"{self._name} knows files by their SHA-256 only.")
        raise BadSpec(f"{self._name} knows models by number, as in arcenciel:77, and files by their SHA-256.")

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file called so, else the version's only one."""
        return choose_file(version, wanted)

    def _by_sha256(self, digits: str) -> Found:
        answer = self._client.get_json("/api/models/search", [("search", digits), ("hashOnly", "1")])
        for item in read(_Page, answer, self._name).models:
            model = self._whole(item.id)
            for version in model.versions:
                file = next((file for file in version.files if file.sha256 == digits), None)
                if file:
                    return Found(model, version, file)
        raise NotFound(f"{self._name} has no file with this hash.")

    def _whole(self, model_id: int) -> Model:
        raw = record(self._client.get_json(f"/api/models/{model_id}"), self._name)
        if not raw.get("versions"):
            answer = self._client.get_json(f"/api/models/{model_id}/versions")
            raw = {
                **raw,
                "versions": only_objects(
                    answer if isinstance(answer, list) else record(answer, self._name).get("data")
                ),
            }
        return self._model(read(_Model, raw, self._name))

    def _model(self, item: _Model) -> Model:
        shown = [entry for entry in item.versions if entry.status.upper() in {"", "PUBLISHED", "AVAILABLE"}]
        versions = tuple(self._version(entry, item.id) for entry in shown)
        return Model(
            id=item.id,
            name=item.name,
            type=item.type,
            creator=item.creator,
            base_models=tuple(dict.fromkeys(version.base_model for version in versions if version.base_model)),
            downloads=item.downloads,
            nsfw=bool(item.nsfw),
            tags=item.tags,
            url=f"{self._client.site.base}/models/{item.id}",
            versions=versions,
            description=plain_text(item.description),
        )

    def _version(self, item: _Version, model_id: int) -> Version:
        file = RemoteFile(
            id=item.id,
            name=item.file_name,
            url=f"{self._client.site.base}/api/models/{model_id}/versions/{item.id}/download",
            size_bytes=item.size_bytes,
            primary=True,
            hashes={"sha256": item.sha256} if item.sha256 else {},
            scan={"file": item.scan} if item.scan else {},
            mirrors=(item.external,) if origin_if_any(item.external).startswith("https://") else (),
        )
        return Version(
            id=item.id,
            model_id=model_id,
            name=item.name,
            base_model=item.base_model,
            published_at=item.published_at or None,
            trigger_words=item.tags,
            files=(file,) if item.file_name else (),
        )
