"""Several catalogues behind one `Hub`: what the first does not have is asked of the next.

A SPEC that says where it belongs (a repository, a page of another hub, a list of links) is asked there and nowhere else.
A hash is the same everywhere, so it goes down the whole chain, also past a hub that is away; a number is one hub's own, so
it goes on only to hubs that count alike, and only where the first one does not have it. Offline, whoever once knew it answers.
What a person typed is always asked for, whatever was answered before.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hubtool.errors import (
    BadAnswer,
    EarlyAccess,
    HubProblem,
    HubtoolError,
    NeedsToken,
    NetworkFailure,
    NotFound,
    Offline,
    RateLimited,
    UsageProblem,
)
from hubtool.hubs.addresses import origin_if_any
from hubtool.hubs.answers import Misses
from hubtool.hubs.civitai import CivitaiHub
from hubtool.hubs.direct import direct_file
from hubtool.hubs.hub import ALLOWED_LEVELS, Found, Resolved, SearchPage, newest, pictures_within
from hubtool.hubs.identification import identify
from hubtool.hubs.link_lists import LinkList
from hubtool.hubs.spec import ByEntry, ByHash, ByModel, ByPath, ByRepository, ByUrl, ByVersion, parse
from hubtool.hubs.tokens import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    from hubtool.hubs.client import Client
    from hubtool.hubs.hub import Catalogue, Fingerprint, Id, Model, Nsfw, PreviewImage, Query, Version
    from hubtool.hubs.identification import Identities
    from hubtool.hubs.spec import Spec

    T = TypeVar("T")


_WITH_ACCOUNTS = {"civitai", "huggingface"}
#: Failures after which a hash, which means the same everywhere, is asked of the next; a number's newest version may differ.
_AWAY = (NetworkFailure, BadAnswer, RateLimited)


class Sources:
    """`Hub` over the catalogues in use (asked for everything), further ones (asked when these fail), and those of a SPEC."""

    def __init__(
        self, in_use: Sequence[Catalogue], further: Sequence[Catalogue], named: Callable[[str], Catalogue], pages: str
    ) -> None:
        """`named` opens a catalogue by its name; `pages` is the address whose pages count as those of the first hub."""
        self._in_use, self._further, self._open, self._pages = tuple(in_use), tuple(further), named, pages
        self._named: dict[str, Catalogue] = {hub.name: hub for hub in (*in_use, *further)}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The name or base URL of the hub that is asked first."""
        return self._in_use[0].name

    @property
    def client(self) -> Client:
        """The connection to the hub that is asked first."""
        return self._in_use[0].client

    def client_for(self, resolved: Resolved) -> Client:
        """That of the hub whose own address the file has, so that its token goes along; else that of who named it."""
        own = origin_if_any(resolved.file.url)
        hubs = [self._catalogue(resolved.hub)] if resolved.hub else []
        hubs += [*self._in_use, *self._further]
        if key_of(own) in _WITH_ACCOUNTS and not isinstance(hubs[0], LinkList):
            hubs.append(self._catalogue(key_of(own)))  # an archive's mirror: its host has a login of its own
        return next((hub.client for hub in hubs if own in hub.client.site.origins), hubs[0].client)

    # ------------------------------------------------------------ questions

    def search(self, query: Query) -> SearchPage:
        """A page of each hub in use, in their order; only a single hub's search can be gone on with.

        Raises:
            HubtoolError: the only hub fails, or all of them do: what the first one said.
        """
        if len(self._in_use) == 1:
            return self._in_use[0].search(query)
        models: list[Model] = []
        failures: list[HubtoolError] = []
        for hub in self._in_use:
            try:
                models += hub.search(query).models
            except HubtoolError as error:
                failures.append(error)
        if len(failures) == len(self._in_use):
            raise failures[0]
        return SearchPage(tuple(models), None, tuple(failures))

    def model(self, model_id: Id) -> Model:
        """One model with all its versions."""
        return self._in_use[0].look_up(_model_spec(model_id)).model

    def version(self, version_id: Id) -> Version:
        """One version with its files."""
        found = self._in_use[0].look_up(ByVersion(int(version_id))).version
        if found is None:
            raise NotFound(f"{self.name} has no version {version_id}.")
        return found

    def by_hash(self, hexadecimal: str) -> Version:
        """The oldest version that has a file with this hash of any kind."""
        found = self._first([ByHash("", hexadecimal.lower())], lambda _, found: found)
        return found.version or newest(found.model)

    def find(self, spec: str) -> Found:
        """The model that a SPEC names, downloadable or not."""
        wanted = self._parsed(spec)
        if isinstance(wanted[0], ByUrl):
            link = direct_file(wanted[0].url, self.client)
            return Found(link.model, link.version, link.file)
        return self._first(wanted, lambda _, found: found)

    def resolve(self, spec: str, wanted: str = "") -> Resolved:
        """The file that a SPEC names: `wanted` by id or name, else the one the SPEC says, else the primary one."""
        parsed = self._parsed(spec)
        if isinstance(parsed[0], ByUrl):
            return direct_file(parsed[0].url, self.client)

        def file_of(hub: Catalogue, found: Found) -> Resolved:
            version = found.version or newest(found.model)
            file = hub.offer(version, wanted) if wanted or found.file is None else found.file
            return Resolved(hub.name, found.model, version, file)

        return self._first(parsed, file_of)

    def identify(self, wanted: Sequence[Fingerprint]) -> Identities:
        """Whose many files are: by the first hub, and by those that come after it where it does not know them."""
        first, *others = self._in_use
        if not isinstance(first, CivitaiHub):
            raise UsageProblem(f"{first.name} cannot be asked for many hashes at once.", hint="Use --hub civitai.")
        misses = Misses(first.client.settings.directories.cache / "misses.tsv")
        return identify(first, [*others, *self._further], wanted, misses)

    def check(self, resolved: Resolved) -> None:
        """Raise what a download would be refused with, as far as the hub tells beforehand."""
        hub = self._catalogue(resolved.hub) if resolved.hub else None
        if not isinstance(hub, CivitaiHub):
            return
        terms, title = hub.terms(resolved.version.id), f"{resolved.model.name} ({resolved.version.name})"
        if terms.is_early:
            raise EarlyAccess(f"{title} is in early access.", url=resolved.model.url, deadline=terms.free_from)
        if terms.is_paid:
            raise EarlyAccess(f"{title} has to be paid for.", url=resolved.model.url)
        if terms.is_private and not hub.client.site.token:
            raise NeedsToken(f"{title} is private: log in as somebody who was let in.", url=resolved.model.url)
        if terms.requires_login and not hub.client.site.token:
            raise NeedsToken(f"{title} is for people who are logged in.", url=resolved.model.url)

    def pictures(self, found: Found, nsfw: Nsfw, limit: int) -> list[PreviewImage]:
        """Pictures and videos that people made with a version; of other hubs, those that the page shows."""
        hub, version = self._in_use[0], found.version or newest(found.model)
        if isinstance(hub, CivitaiHub) and str(version.id).isdigit():
            return hub.pictures(version.id, ALLOWED_LEVELS[nsfw], limit)
        return pictures_within(version.images, nsfw)[:limit]

    def elsewhere(self, resolved: Resolved) -> list[Resolved]:
        """The same file, by its hash, at the hubs that did not name it; those that fail to answer have none."""
        digest = resolved.file.sha256
        return list(self._by_hash_elsewhere(digest, resolved.hub)) if digest else []

    def abort(self) -> None:
        """Make every transfer in progress fail at once, from another thread."""
        for hub in list(self._named.values()):
            hub.client.abort()

    # ------------------------------------------------------------ who is asked

    def _parsed(self, spec: str) -> list[Spec]:
        """What a SPEC means; of a file on this disk, the hashes by which it may be known, surest first."""
        wanted = parse(spec, self._pages)
        if isinstance(wanted, ByEntry):
            link = self._list(wanted.source).entry(wanted.label)
            return [parse(link.url, self._pages) if link.kind == "page" else wanted]
        if not isinstance(wanted, ByPath):
            return [wanted]
        from hubtool.formats.hashing import hash_file  # noqa: PLC0415  # 20 ms that only this form needs

        hashes = hash_file(wanted.path)
        # AutoV3 is of the tensors alone: it survives the tools that rewrite a file's metadata
        weak = [ByHash("autov3", hashes.autov3)] if hashes.autov3 else []
        return [ByHash("sha256", hashes.sha256), *weak]

    def _catalogue(self, name: str) -> Catalogue:
        with self._lock:
            if name not in self._named:
                self._named[name] = self._open(name)
            return self._named[name]

    def _list(self, source: str) -> LinkList:
        found = self._catalogue(f"list:{source}")
        if not isinstance(found, LinkList):
            raise TypeError(f"{found.name} is no list")
        return found

    def _asked(self, wanted: Spec) -> list[Catalogue]:
        """The catalogues to ask for something, in order."""
        match wanted:
            case ByRepository(hub):
                return [self._catalogue(hub)]
            case ByEntry(source):
                return [self._catalogue(f"list:{source}")]
            case ByModel(hub=hub) if hub:
                return [self._catalogue(hub)]
            case ByHash():
                return [*self._in_use, *self._further]
        alike = {hub.ids for hub in self._in_use}
        return [*self._in_use, *(hub for hub in self._further if hub.ids in alike)]

    def _first(self, wanted: Sequence[Spec], use: Callable[[Catalogue, Found], T]) -> T:
        """What the first catalogue gives that has what is wanted; if none has, what the first one said."""
        first: HubProblem | None = None
        questions = [(hub, form) for form in wanted for hub in self._asked(form)]
        for hub, form in questions:
            try:
                return use(hub, hub.look_up(form))
            except HubProblem as error:
                if first is None and not isinstance(error, (NotFound, Offline, *(_AWAY if _is_hash(form) else ()))):
                    raise  # only the first one's failures matter
                first = first or error
        raise first or UsageProblem("No hub is in use.")

    def _by_hash_elsewhere(self, digest: str, besides: str) -> Iterator[Resolved]:
        for hub in (*self._in_use, *self._further):
            if hub.name == besides:
                continue
            try:
                found = hub.look_up(ByHash("sha256", digest))
                version = found.version or newest(found.model)
            except HubProblem:
                continue
            files = [file for file in version.files if file.sha256 == digest]
            yield from (Resolved(hub.name, found.model, version, file) for file in files)


def _is_hash(wanted: Spec) -> bool:
    return isinstance(wanted, ByHash)


def _model_spec(model_id: Id) -> ByModel:
    return ByModel(int(model_id) if str(model_id).isdigit() else 0)
