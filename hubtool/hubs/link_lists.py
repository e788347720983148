"""Lists of links as a hub: each entry is known by the list and its label, for its address may change.

A list says nothing of a file but its name, so what comes is checked by its structure, unless the host publishes a hash.
Nothing that a list names is ever run, and no list leads to further lists.
"""

from __future__ import annotations

import fnmatch
import os
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING

from hubtool.errors import (
    BadAnswer,
    BadSpec,
    BrowserNeeded,
    FileMissing,
    HubProblem,
    HubtoolError,
    NotFound,
    NotRegularFile,
    StorageProblem,
)
from hubtool.hubs.addresses import Reach, literal_reach, origin, origin_if_any, public_url
from hubtool.hubs.client import Client
from hubtool.hubs.hosted import hosted_file
from hubtool.hubs.hub import Found, Model, SearchPage, Version, choose_file
from hubtool.hubs.link_hosts import judge
from hubtool.hubs.link_pages import MAX_PAGE_BYTES, addresses_of, is_html, is_login_page, text_of_html
from hubtool.hubs.link_text import read_links
from hubtool.hubs.question import Question, Site
from hubtool.hubs.spec import ByEntry
from hubtool.settings import from_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from hubtool.hubs.hub import Query, RemoteFile
    from hubtool.hubs.link_text import Link
    from hubtool.hubs.spec import Spec
    from hubtool.hubs.traffic import Traffic
    from hubtool.settings import Settings

RENTRY_CODE = "HUBTOOL_RENTRY_CODE"  # rentry shows raw pages to those who have a code
FRESH = timedelta(minutes=10)  # so long one command after another reads the same page
_NOWHERE = "https://list.invalid"  # a list on this disk may lead to public places only


@dataclass(frozen=True, slots=True)
class Change:
    """How an entry differs from what the list had before."""

    label: str
    change: str  # added, removed, moved (the label has another address), renamed (the address has another label)
    before: str = ""  # the former address or label


@dataclass(frozen=True, slots=True)
class ListPage:
    """A list as it was read."""

    source: str
    fetched_from: str  # the address that answered, or the file
    at: str  # ISO 8601
    links: tuple[Link, ...] = field(repr=False)
    changes: tuple[Change, ...] = ()  # since it was read in another state

    def entries(self, label: str = "") -> list[Link]:
        """The entries that a label or pattern means; all of them without one.

        Raises:
            NotFound: none.
        """
        links = [link for link in self.links if link.is_entry]
        if not label:
            return links
        wanted = label.casefold()
        exact = [link for link in links if wanted in {name.casefold() for name in (link.label, *link.aliases)}]
        found = exact or [link for link in links if fnmatch.fnmatchcase(link.label.casefold(), wanted)]
        if not found:
            raise NotFound(f"The list has no entry {label}.", hint="`hubtool list-links` shows its entries.")
        return found


class LinkList:
    """`Catalogue` over one list."""

    def __init__(self, source: str, settings: Settings, traffic: Traffic | None = None) -> None:
        """`source` is an address or a file."""
        self._source, self._settings = source, settings
        base = origin(source) if "://" in source else _NOWHERE
        self._client = Client(Site(base, frozenset()), settings, traffic)
        self._read: ListPage | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As one would name the whole list."""
        return f"list:{self._source}"

    @property
    def ids(self) -> str:
        """Entries have labels."""
        return self.name

    @property
    def client(self) -> Client:
        """A connection without any token."""
        return self._client

    def search(self, query: Query) -> SearchPage:
        """Nothing: `list-links` shows the list.

        Raises:
            BadSpec: always.
        """
        raise BadSpec(f"A list of links is not searched for {query.text!r}.", hint="See `hubtool list-links`.")

    def look_up(self, wanted: Spec) -> Found:
        """The file of one entry that is a file or an archive.

        Raises:
            BrowserNeeded: the entry's host hands files to people only.
        """
        label = wanted.label if isinstance(wanted, ByEntry) else ""
        link = self.entry(label)
        if not link.is_fetchable:
            raise BrowserNeeded(f"{link.label} is not fetched: {link.reason}.", url=public_url(link.url))
        file = hosted_file(link.url, self._client, link.label, link.mirrors)
        stem = judge(link.url).stem
        version = Version(
            id=stem, model_id="", name="", trigger_words=link.triggers, description=link.note, files=(file,)
        )
        page = self._source if "://" in self._source else ""
        model = Model(id="", name=link.label, url=page, tags=link.category, versions=(version,))
        return Found(model, version, file)

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The entry's one file."""
        return choose_file(version, wanted)

    def entry(self, label: str) -> Link:
        """The one entry that a label means."""
        with self._lock:  # hundreds of entries are one reading
            self._read = self._read or self.page(fresh=FRESH)
        entries = self._read.entries(label)
        if len(entries) > 1:
            raise BadSpec(f"{label or 'The list'} means {len(entries)} entries of the list.", hint="Name one label.")
        return entries[0]

    # ------------------------------------------------------------ reading

    def page(self, *, fresh: timedelta | None = None) -> ListPage:
        """The list; what was read less than `fresh` ago, or offline at any time, is not fetched again.

        Raises:
            HubProblem: it cannot be had. FileMissing, StorageProblem: it cannot be read.
        """
        if "://" not in self._source:
            return self._from_disk(from_home(self._source))
        now = datetime.now(timezone.utc)
        kept = self._client.answers.latest(self._key())
        limit = timedelta.max if self._settings.offline else fresh
        if kept and limit is not None and now - _moment(kept.at) <= limit:
            return ListPage(
                self._source, self._source, kept.at, tuple(read_links(kept.body.decode("utf-8", "replace")))
            )
        address, text = self._fetched()
        self._client.answers.keep(self._key(), text.encode("utf-8", "replace"))
        moment, links = now.strftime("%Y-%m-%dT%H:%M:%SZ"), tuple(read_links(text))
        return ListPage(self._source, address, moment, links, tuple(self._changes(links)))

    def _changes(self, links: Sequence[Link]) -> Iterator[Change]:
        """What is different from the last other state of the list that was seen."""
        earlier = next(islice(self._client.answers.history(self._key()), 1, None), None)
        if earlier is None:
            return
        former = [link for link in read_links(earlier.body.decode("utf-8", "replace")) if link.is_entry]
        address, label = {link.label: link.url for link in former}, {link.url: link.label for link in former}
        present = [link for link in links if link.is_entry]
        for link in present:
            if link.label in address:
                if address[link.label] != link.url:
                    yield Change(link.label, "moved", public_url(address[link.label]))
            elif link.url in label:
                yield Change(link.label, "renamed", label[link.url])
            else:
                yield Change(link.label, "added")
        gone = {link.label for link in former} - {link.label for link in present}
        kept = {link.url for link in present}
        yield from (Change(link.label, "removed") for link in former if link.label in gone and link.url not in kept)

    def _key(self) -> str:
        return f"list {self._source.partition('#')[0]}"

    def _fetched(self) -> tuple[str, str]:
        """The address that answered, and the page as text."""
        *others, last = addresses_of(self._source)
        for address in others:
            try:
                return address, self._text(address)
            except HubProblem:  # what the page itself says is what people see
                continue
        return last, self._text(last)

    def _text(self, address: str) -> str:
        code = os.environ.get(RENTRY_CODE, "")
        # to rentry itself only: a redirect of its would carry the header along
        headers = (
            {"rentry-auth": code} if code and address.startswith(("https://rentry.org/", "https://rentry.co/")) else {}
        )
        reply = self._client.ask(Question(address, MAX_PAGE_BYTES, with_token=False, headers=headers))
        body = reply.body.decode("utf-8-sig", "replace")
        if not is_html(body, reply.headers.get("content-type", "")):
            return body
        if is_login_page(body):
            raise NotFound(
                f"{origin(address)} shows a login: the page is private, or not there.", url=public_url(address)
            )
        if address.endswith("/raw"):
            raise BadAnswer(f"{origin(address)} answered with a page where text was expected.", url=public_url(address))
        return text_of_html(body, address)

    def _from_disk(self, path: Path) -> ListPage:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise NotRegularFile(
                path, f"{path} is not a regular file."
            )  # a pipe that nobody writes to would be waited for
        try:
            with path.open("rb") as file:
                body = file.read(MAX_PAGE_BYTES + 1)
            moment = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        except FileNotFoundError as error:
            raise FileMissing(path, f"There is no file {path}.", hint="Check the path.") from error
        except OSError as error:
            raise StorageProblem(path, error.strerror or "cannot be read") from error
        if len(body) > MAX_PAGE_BYTES:
            raise BadSpec(f"{path.name} has more than {MAX_PAGE_BYTES >> 20} MiB: that is no list of links.")
        text = body.decode("utf-8-sig", "replace")
        text = text_of_html(text, _NOWHERE) if is_html(text, "") else text
        return ListPage(self._source, str(path), moment, tuple(read_links(text)))


def expand_lists(settings: Settings, specs: Iterable[str]) -> Iterator[str]:
    """The SPECs with each `list:SOURCE` or `list:SOURCE#PATTERN` replaced by one SPEC an entry that can be fetched."""
    for spec in specs:
        if not spec.lower().startswith("list:"):
            yield spec
            continue
        source, _, label = spec[5:].partition("#")
        try:
            entries = LinkList(checked_source(source), settings).page(fresh=FRESH).entries(label)
        except HubtoolError:  # said again where the SPEC is resolved, as this one's failure alone
            yield spec
            continue
        chosen = entries if len(entries) == 1 else [link for link in entries if link.is_fetchable]
        yield from (f"list:{source}#{link.label}" for link in chosen)


def checked_source(source: str) -> str:
    """An address or a file that may hold a list.

    Raises:
        BadSpec: an address that is not fetched.
    """
    if "://" not in source:
        return source
    scheme, _, host = origin_if_any(source).partition("://")
    is_local = literal_reach(host.rpartition(":")[0] or host) is Reach.LOCAL
    if not host or (scheme != "https" and not (scheme == "http" and is_local)):
        raise BadSpec(f"Only https addresses are fetched: {public_url(source)}")
    return source


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return datetime.min.replace(tzinfo=timezone.utc)
