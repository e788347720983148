"""A hub that speaks the Civitai REST API: civitai.com itself, the embedded sample, or any server given by its URL.

Facts about the API that shape this file, each learnt from its source or from an incident:

- A page of results may be short or empty and still not be the last; only a missing cursor ends a search.
- `query` searches take a cursor only, and do not honour `sort`; an unknown `tag` is silently ignored.
- Lists are repeated parameters, commas are taken literally; a boolean parameter that is present is true.
- `downloadUrl` may point to another host, or to one that does not exist: it is built from ids here, and addresses a file by
  `fileId`, since a version without it delivers whichever file the account prefers.
- A 404 for an id may mean that it is the id of a version; the download page shows both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from hubtool.errors import AmbiguousSpec, BadSpec, NotFound, UsageProblem
from hubtool.hubs import civitai_models as wire
from hubtool.hubs.addresses import origin_if_any
from hubtool.hubs.civitai_names import BASE_MODELS, MODEL_TYPES, close, spelt
from hubtool.hubs.civitai_questions import (
    Terms,
    enumerations,
    matches,
    names_like,
    pictures,
    terms,
    versions_with,
)
from hubtool.hubs.filters import is_mild, ordered
from hubtool.hubs.hub import (
    Found,
    License,
    Match,
    Model,
    PreviewImage,
    Query,
    RemoteFile,
    SearchPage,
    Version,
    choose_file,
)
from hubtool.hubs.remote import Remote
from hubtool.hubs.spec import MAX_ID, ByHash, ByModel, ByVersion
from hubtool.hubs.text import plain_text
from hubtool.hubs.tolerant import read, record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Literal

    from hubtool.hubs.client import Client
    from hubtool.hubs.hub import Id
    from hubtool.hubs.spec import Spec

API = "/api/v1"
MAX_PAGES = 20  # of one search: filters of ours may leave little of each
MAX_LIMIT = 100  # more is refused, not clamped
_SORTS = {"downloads": "Most Downloaded", "rating": "Highest Rated", "newest": "Newest"}


class CivitaiHub(Remote):
    """`Catalogue` over the Civitai REST API."""

    def __init__(self, name: str, client: Client, site_url: str = "") -> None:
        """`site_url` is where people read the pages, if not at the address of the API."""
        super().__init__(name, client)
        self._site_url = site_url or client.site.base

    # ------------------------------------------------------------ questions

    def search(self, query: Query) -> SearchPage:
        """One page of at most `query.limit` models, filled up over the hub's empty pages, none twice."""
        types = tuple(self._as_spelt(name, MODEL_TYPES, "type") for name in query.types)
        bases = tuple(self._as_spelt(name, BASE_MODELS, "base model") for name in query.base_models)
        query = replace(query, types=types, base_models=bases)
        found: dict[Id, Model] = {}
        cursor, seen = query.cursor, {query.cursor}
        for _ in range(MAX_PAGES):
            page, raw = self._page_of(query, cursor, min(MAX_LIMIT, query.limit - len(found)))
            for item in page.items:
                model = self._model(item, raw.get(item.id, {}))
                if _matches(model, query):
                    found.setdefault(model.id, model)
            if query.tag and page.items and not found:
                self._check_tag(query.tag)
            cursor = _next_cursor(page)
            if not cursor or cursor in seen or len(found) >= query.limit:
                break
            seen.add(cursor)
        # the hub has an order of its own for texts
        models = ordered(found.values(), query.sort if query.text else "relevance")
        return SearchPage(tuple(models[: query.limit]), cursor if cursor and cursor not in seen else None)

    def look_up(self, wanted: Spec) -> Found:
        """The model that a SPEC names, with version and file if it says which."""
        match wanted:
            case ByModel():
                return self._find_model(wanted)
            case ByVersion(version_id, file_id):
                version = self._version_of(version_id)
                return Found(self._model_of(version), version, choose_file(version, file_id) if file_id else None)
            case ByHash(_, hexadecimal):
                return self._find_hash(hexadecimal)
        raise BadSpec(f"{self._name} has no such thing: that is a name on another hub.")

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file called so, else the primary one."""
        return choose_file(version, wanted)

    def terms(self, version_id: Id) -> Terms:
        """What one needs in order to download a version."""
        return terms(self._client, _checked_id(version_id, "version", self._name))

    def pictures(self, version_id: Id, allowed: int, limit: int) -> list[PreviewImage]:
        """Pictures and videos that people made with a version, with no level outside the bits of `allowed`."""
        return pictures(self._client, _checked_id(version_id, "version", self._name), allowed, limit)

    def matches(self, digests: Sequence[str]) -> Iterator[Match]:
        """The versions that have files with these SHA-256s."""
        return (replace(match, hub=self._name) for match in matches(self._client, digests))

    def described(self, digests: Sequence[str]) -> Iterator[Match]:
        """The same with what the hub says of each version, a hundred at a time; what it leaves out is left out."""
        wanted = set(digests)
        for raw in versions_with(self._client, digests):
            version = self._only_version(raw)
            for file in version.files:
                if file.sha256 in wanted:
                    found = Found(self._brief(version), version, file)
                    yield Match(file.sha256, version.model_id, version.id, self._name, "sha256", found)

    # ------------------------------------------------------------ names

    def _as_spelt(self, name: str, known: Sequence[str], what: Literal["type", "base model"]) -> str:
        """A name as the hub spells it: a filter by another one would be refused, or find nothing and not say so.

        Raises:
            UsageProblem: the hub has none such.
        """
        found = spelt(name, known)
        if found:
            return found
        said = enumerations(self._client)
        learnt = said.model_types if what == "type" else said.base_models
        found = spelt(name, learnt)
        if learnt and not found:
            near = ", ".join(close(name, learnt))
            raise UsageProblem(f"{self._name} knows no {what} {name}.", hint=f"Close: {near}." if near else None)
        return found or name

    def _check_tag(self, tag: str) -> None:
        """Raise if a tag does not exist: the hub then ignores it and lists everything."""
        known = names_like(self._client, "tags", tag)
        if known and not spelt(tag, known):
            raise NotFound(f"{self._name} has no tag {tag}.", hint=f"There are: {', '.join(known[:8])}.")

    def _page_of(
        self, query: Query, cursor: str, limit: int
    ) -> tuple[wire.Page, Mapping[object, Mapping[str, object]]]:
        """A page; a creator who does not exist is named with those who do."""
        try:
            return self._page(query, cursor, limit)
        except NotFound as error:
            near = names_like(self._client, "creators", query.creator) if query.creator else []
            hint = f"There are: {', '.join(near[:8])}." if near else None
            raise NotFound(str(error), url=error.url, hint=hint) from error

    # ------------------------------------------------------------ SPECs

    def _find_model(self, wanted: ByModel) -> Found:
        try:
            model = self._whole_model(wanted.model_id)
        except NotFound:
            if wanted.bare:
                self._explain_version(wanted.model_id)
            raise
        if wanted.version_id is None:
            return Found(model)
        version = next((entry for entry in model.versions if entry.id == wanted.version_id), None)
        if version is None:
            version = self._version_of(wanted.version_id)
            if version.model_id != model.id:
                raise NotFound(f"Version {version.id} belongs to model {version.model_id}, not to {model.id}.")
        return Found(model, version, choose_file(version, wanted.file_id) if wanted.file_id else None)

    def _explain_version(self, number: int) -> None:
        """Raise AmbiguousSpec if a number that is no model is a version."""
        try:
            version = self._version_of(number)
        except NotFound:
            return
        raise AmbiguousSpec(
            f"{number} is no model on {self._name}, but it is a version of model {version.model_id}.",
            hint=f"Write v:{number} for that version, or m:{version.model_id} for its model.",
        )

    def _find_hash(self, hexadecimal: str) -> Found:
        version = self._only_version(self._object(f"{API}/model-versions/by-hash/{hexadecimal.upper()}"))
        file = next((file for file in version.files if hexadecimal in file.hashes.values()), None)
        return Found(self._model_of(version), version, file)

    def _model_of(self, version: Version) -> Model:
        """The model of a version; from what the version says if the model itself is not public."""
        try:
            return self._whole_model(version.model_id)
        except NotFound:
            return self._brief(version)

    def _brief(self, version: Version) -> Model:
        """What a version says of its model."""
        said = read(wire.Version, version.raw, self._name).model
        return Model(
            version.model_id,
            said.name,
            said.type,
            nsfw=bool(said.nsfw),
            url=f"{self._site_url}/models/{version.model_id}",
            versions=(version,),
            mode=said.mode,
        )

    # ------------------------------------------------------------ reading

    def _whole_model(self, model_id: Id) -> Model:
        """One model with all its published versions."""
        number = _checked_id(model_id, "model", self._name)
        raw = self._object(f"{API}/models/{number}")
        return self._model(read(wire.Model, raw, self._name), raw)

    def _version_of(self, version_id: Id) -> Version:
        """One version with its files."""
        number = _checked_id(version_id, "version", self._name)
        return self._only_version(self._object(f"{API}/model-versions/{number}"))

    def _object(self, path: str) -> Mapping[str, object]:
        return record(self._client.get_json(path), self._name)

    def _page(self, query: Query, cursor: str, limit: int) -> tuple[wire.Page, Mapping[object, Mapping[str, object]]]:
        value = record(self._client.get_json(f"{API}/models", list(_parameters(query, cursor, limit))), self._name)
        page = read(wire.Page, value, self._name)
        return page, _by_id(value.get("items"))

    def _only_version(self, raw: Mapping[str, object]) -> Version:
        return self._version(read(wire.Version, raw, self._name), raw, wire.Model(id=0))

    def _model(self, item: wire.Model, raw: Mapping[str, object]) -> Model:
        raws = _by_id(raw.get("modelVersions"))
        versions = tuple(self._version(entry, raws.get(entry.id, {}), item) for entry in item.versions)
        return Model(
            id=item.id,
            name=item.name,
            type=item.type,
            creator=item.creator,
            base_models=tuple(dict.fromkeys(version.base_model for version in versions if version.base_model)),
            downloads=item.stats.downloads,
            nsfw=bool(item.nsfw),
            nsfw_level=item.nsfw_level,
            tags=item.tags,
            url=f"{self._site_url}/models/{item.id}",
            versions=versions,
            mode=item.mode,
            license=License(
                "",
                item.allow_no_credit,
                item.allow_commercial_use,
                item.allow_derivatives,
                item.allow_different_license,
            ),
            description=plain_text(item.description),
            raw=raw,
        )

    def _version(self, item: wire.Version, raw: Mapping[str, object], model: wire.Model) -> Version:
        model_id = item.model_id or model.id
        whole = {
            "modelId": model_id,
            "model": {"name": model.name, "type": model.type, "nsfw": bool(model.nsfw), "poi": False},
            **raw,
        }
        return Version(
            id=item.id,
            model_id=model_id,
            name=item.name,
            base_model=item.base_model,
            published_at=item.published_at or item.created_at or None,
            trigger_words=item.trigger_words,
            description=plain_text(item.description),
            files=tuple(self._file(file, item.id) for file in item.files),
            images=tuple(
                PreviewImage(image.url, image.nsfw_level or image.nsfw, image.type, image.width, image.height)
                for image in item.images
                if image.url
            ),
            downloads=item.stats.downloads,
            downloadable=item.usage_control in {"", "Download"},
            raw=whole,
        )

    def _file(self, file: wire.File, version_id: int) -> RemoteFile:
        scan = {"pickle": file.pickle_scan, "virus": file.virus_scan, "at": file.scanned_at}
        path = f"/api/download/models/{version_id}?fileId={file.id}"
        is_link = origin_if_any(file.url).partition(":")[0] in {"", "http", "https"}
        return RemoteFile(
            id=file.id,
            name=file.name,
            # an address of another scheme is kept, so that the download refuses it aloud
            url=f"{self._client.site.base}{path}" if is_link else file.url,
            type=file.type,
            format=file.metadata.format,
            size_bytes=file.size_bytes,
            primary=bool(file.primary),
            hashes=file.hashes,
            scan={key: value for key, value in scan.items() if value},
            mirrors=tuple(f"{base}{path}" for base in self._client.site.alternates) if is_link else (),
        )


# ---------------------------------------------------------------- pieces


def _parameters(query: Query, cursor: str, limit: int) -> Iterator[tuple[str, str]]:
    """The parameters of GET /models. Nothing is sent that may stay away: an unset filter is not the same as false."""
    yield "limit", str(limit)
    # the commonest type last, for small servers that keep only the last of a repeated parameter
    yield from (("types", kind) for kind in reversed(query.types))
    yield from (("baseModels", base) for base in query.base_models)
    optional = {"query": query.text, "tag": query.tag, "username": query.creator, "cursor": cursor}
    yield from ((key, value) for key, value in optional.items() if value)
    if query.sort in _SORTS:
        yield "sort", _SORTS[query.sort]
    if query.period != "AllTime":
        yield "period", query.period
    if query.nsfw != "none":
        yield "nsfw", "true"


def _matches(model: Model, query: Query) -> bool:
    """What the hub should have filtered and does not always: it ignores tags that it does not know."""
    if query.tag and query.tag.casefold() not in (tag.casefold() for tag in model.tags):
        return False
    return is_mild(model, query.nsfw)


def _next_cursor(page: wire.Page) -> str:
    """The cursor, also where only the next page's address is given; that address itself is never followed."""
    if page.metadata.next_cursor or not page.metadata.next_page:
        return page.metadata.next_cursor
    try:
        return parse_qs(urlsplit(page.metadata.next_page).query).get("cursor", [""])[0]
    except ValueError:
        return ""


def _by_id(values: object) -> dict[object, Mapping[str, object]]:
    """Raw objects by their id as a number."""
    entries = values if isinstance(values, list) else []
    numbered = ((entry, str(entry.get("id", ""))) for entry in entries if isinstance(entry, dict))
    return {
        int(number): entry for entry, number in numbered if number.isascii() and number.isdigit() and len(number) < 20
    }


def _checked_id(value: Id, what: str, hub: str) -> int:
    """The id, if it can be one: the hub fails instead of answering 404 for absurd ones."""
    number = int(value) if str(value).isdigit() else 0
    if not 0 < number <= MAX_ID:
        raise NotFound(f"{hub} has no {what} {value}: its ids are numbers up to {MAX_ID}.")
    return number
