"""CivArchive: an index of what Civitai had, deleted models included, and of where else the same bytes lie.

It has no files of its own: a file comes from the first mirror that was not deleted, and is proved by the SHA-256 that the
index states. Sizes of mirrors are placeholders and are ignored. Its numbers are Civitai's. The API is undocumented
(/api/sha256, /api/models, /api/search); answers may or may not be wrapped in `data`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from hubtool.errors import BadSpec, NotFound
from hubtool.hubs.addresses import origin_if_any
from hubtool.hubs.filters import ordered, suits
from hubtool.hubs.hub import Found, Model, PreviewImage, RemoteFile, SearchPage, Version, choose_file
from hubtool.hubs.link_hosts import judge
from hubtool.hubs.places import repository_site
from hubtool.hubs.remote import Remote
from hubtool.hubs.spec import ByHash, ByModel
from hubtool.hubs.text import plain_text
from hubtool.hubs.tolerant import (
    Count,
    Flag,
    Level,
    Line,
    Lines,
    Prose,
    SizeKb,
    Tolerant,
    Words,
    as_object,
    only_objects,
    read,
    record,
    sha256_digits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.hubs.hub import Query
    from hubtool.hubs.spec import Spec

_MAX_ID = 10**8  # above that a hash was taken for a number somewhere


class _Mirror(Tolerant):
    url: Line = ""
    deleted_at: Line = Field("", validation_alias=AliasChoices("deletedAt", "deleted_at"))


class _File(Tolerant):
    id: Count = None
    name: Line = Field("", validation_alias=AliasChoices("name", "filename"))
    type: Line = "Model"
    size_bytes: SizeKb = Field(None, validation_alias=AliasChoices("sizeKB", "size_kb"))
    url: Line = Field("", validation_alias=AliasChoices("downloadUrl", "download_url"))
    sha256: Annotated[str, BeforeValidator(sha256_digits)] = ""
    primary: Flag = Field(None, validation_alias=AliasChoices("is_primary", "primary"))
    mirrors: Annotated[list[_Mirror], BeforeValidator(only_objects)] = Field(default_factory=list)
    model_id: Count = Field(None, validation_alias=AliasChoices("model_id", "modelId"))
    version_id: Count = Field(None, validation_alias=AliasChoices("model_version_id", "modelVersionId"))


class _Image(Tolerant):
    url: Line = ""
    nsfw_level: Level = Field(0, validation_alias=AliasChoices("nsfwLevel", "nsfw_level"))
    type: Line = "image"


class _Version(Tolerant):
    id: Count = None
    name: Line = ""
    base_model: Line = Field("", validation_alias=AliasChoices("baseModel", "base_model"))
    published_at: Line = Field(
        "", validation_alias=AliasChoices("publishedAt", "published_at", "createdAt", "created_at")
    )
    description: Prose = ""
    downloads: Count = Field(None, validation_alias=AliasChoices("downloadCount", "download_count"))
    trigger_words: Words = Field((), validation_alias=AliasChoices("trigger", "trainedWords"))
    files: Annotated[list[_File], BeforeValidator(only_objects)] = Field(default_factory=list)
    images: Annotated[list[_Image], BeforeValidator(only_objects)] = Field(default_factory=list)


class _Model(Tolerant):
    id: Count = None
    name: Line = ""
    type: Line = ""
    description: Prose = ""
    nsfw: Flag = Field(None, validation_alias=AliasChoices("is_nsfw", "nsfw"))
    nsfw_level: Level = Field(0, validation_alias=AliasChoices("nsfw_level", "nsfwLevel"))
    tags: Lines = ()
    creator: Line = Field(
        "", validation_alias=AliasChoices("creator_username", "username", AliasPath("creator", "username"))
    )
    deleted_at: Line = Field("", validation_alias=AliasChoices("deletedAt", "deleted_at"))
    version: Annotated[_Version, BeforeValidator(as_object)] = _Version()
    versions: Annotated[list[_Version], BeforeValidator(only_objects)] = Field(default_factory=list)


class _Hit(Tolerant):
    """What /sha256 answers: perhaps the whole model, perhaps only files with the ids to ask for."""

    files: Annotated[list[_File], BeforeValidator(only_objects)] = Field(default_factory=list)


class CivArchive(Remote):
    """`Catalogue` over civarchive.com."""

    @property
    def ids(self) -> str:
        """It counts as Civitai does."""
        return "civitai"

    def search(self, query: Query) -> SearchPage:
        """Whatever of the archive's one fixed window of results is wanted: it has no further pages."""
        parameters = [("q", query.text), ("rating", "safe" if query.nsfw == "none" else "all")]
        parameters += [("base_model", base) for base in query.base_models]
        value = record(self._client.get_json("/api/search", parameters), self._name)
        rows = only_objects(value.get("results") or value.get("data") or [])
        found = [self._model(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        kept = {str(model.id): model for model in found if _wanted(model, query)}
        return SearchPage(tuple(ordered(kept.values(), query.sort))[: query.limit])

    def look_up(self, wanted: Spec) -> Found:
        """A model by Civitai's number, or a file by its SHA-256."""
        match wanted:
            case ByModel(model_id, version_id, file_id):
                model = self._by_id(model_id, version_id)
                version = model.versions[0]
                return Found(model, version, choose_file(version, file_id) if file_id else None)
            case ByHash(_, digits) if len(digits) == 64:
                return self._by_sha256(digits)
            case ByHash():
                raise NotFound(f"{self._name} knows files by their SHA-256 only.")
        raise BadSpec(f"{self._name} knows models by Civitai's number, and files by their SHA-256.")

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file called so, else the first safetensors one."""
        return choose_file(version, wanted)

    # ------------------------------------------------------------ reading

    def _by_id(self, model_id: int, version_id: int | None) -> Model:
        parameters = [("modelVersionId", str(version_id))] if version_id else []
        model = self._model(_unwrapped(self._client.get_json(f"/api/models/{model_id}", parameters), self._name))
        if model.id != model_id or (version_id and model.versions[0].id != version_id):
            raise NotFound(
                f"{self._name} has no model {model_id}{f' with version {version_id}' if version_id else ''}."
            )
        return model

    def _by_sha256(self, digits: str) -> Found:
        raw = _unwrapped(self._client.get_json(f"/api/sha256/{digits}"), self._name)
        model = self._model(raw)
        if model.id == 0:
            hit = read(_Hit, raw, self._name)
            ids = [(file.model_id, file.version_id) for file in hit.files if file.model_id and file.model_id < _MAX_ID]
            if not ids:
                return Found(*self._bare(hit.files, digits))
            model = self._by_id(ids[0][0] or 0, ids[0][1])
        version = model.versions[0]
        file = next((file for file in version.files if file.sha256 == digits), None)
        if file is None:
            raise NotFound(f"{self._name} has no file with this hash.")
        return Found(model, version, file)

    def _bare(self, files: Sequence[_File], digits: str) -> tuple[Model, Version, RemoteFile]:
        """A file of which the archive knows the mirrors and nothing else."""
        found = next((self._file(file) for file in files if file.sha256 in {digits, ""} and _addresses(file)), None)
        if found is None:
            raise NotFound(f"{self._name} knows no place that still has this file.")
        version = Version(id=digits[:10], model_id="", name="", files=(found,))
        return Model(id="", name=found.name, versions=(version,)), version, found

    def _model(self, raw: Mapping[str, object]) -> Model:
        item = read(_Model, raw, self._name)
        model_id = item.id if item.id and 0 < item.id < _MAX_ID else 0
        chosen = self._version(item.version, model_id)
        others = (self._version(entry, model_id) for entry in item.versions if entry.id != item.version.id)
        return Model(
            id=model_id,
            name=item.name,
            type=item.type,
            creator=item.creator,
            base_models=(chosen.base_model,) if chosen.base_model else (),
            downloads=chosen.downloads,
            nsfw=bool(item.nsfw),
            nsfw_level=item.nsfw_level,
            tags=item.tags,
            url=f"{self._client.site.base}/models/{model_id}",
            versions=(chosen, *others),
            mode="Deleted" if item.deleted_at else "",
            description=plain_text(item.description),
            raw=raw,
        )

    def _version(self, item: _Version, model_id: int) -> Version:
        return Version(
            id=item.id or 0,
            model_id=model_id,
            name=item.name,
            base_model=item.base_model,
            published_at=item.published_at or None,
            trigger_words=item.trigger_words,
            description=plain_text(item.description),
            files=tuple(self._file(file) for file in item.files if _addresses(file)),
            images=tuple(PreviewImage(image.url, image.nsfw_level, image.type) for image in item.images if image.url),
            downloads=item.downloads,
        )

    def _file(self, file: _File) -> RemoteFile:
        first, *others = _addresses(file)
        return RemoteFile(
            id=file.id or file.name,
            name=file.name,
            url=first,
            type=file.type,
            # without a hash the size is the only check, and it is often a placeholder
            size_bytes=file.size_bytes if file.size_bytes and file.size_bytes > 1024 else None,
            primary=bool(file.primary),
            hashes={"sha256": file.sha256} if file.sha256 else {},
            mirrors=tuple(others),
        )


def _addresses(file: _File) -> list[str]:
    """Where a file may still be, best first: mirrors that were not deleted, then the address it had; last, what browsers get."""
    alive = [mirror.url for mirror in file.mirrors if mirror.url and not mirror.deleted_at]
    known_dead = {mirror.url for mirror in file.mirrors if mirror.deleted_at}
    last = [file.url] if file.url and file.url not in known_dead else []
    found = dict.fromkeys(map(_of_the_file, alive + last))
    return sorted(found, key=lambda url: judge(url).kind in {"manual", "expired"})


def _of_the_file(url: str) -> str:
    """The address of a file itself where the index names the page that shows it."""
    page, sign, rest = url.partition("/blob/")
    return f"{page}/resolve/{rest}" if sign and repository_site(origin_if_any(page)) == "huggingface" else url


def _unwrapped(value: object, hub: str) -> Mapping[str, object]:
    outer = record(value, hub)
    inner = outer.get("data")
    table = inner if isinstance(inner, dict) else outer
    within = table.get("model")
    # some answers have the model beside its version
    return {**within, **{key: table[key] for key in table if key != "model"}} if isinstance(within, dict) else table


def _wanted(model: Model, query: Query) -> bool:
    return (not query.types or not model.type or model.type in query.types) and suits(model, query)
