"""The download of one verified file: nothing appears at its final name before it is complete, checked and on disk.

plan → lock → fetch (hubtool.hubs.fetch) → verify → sync → give it its name. A wrong hash starts over once, then fails.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import Forbidden, HashMismatch, StorageProblem, UnsafeFile, WrongFile
from hubtool.formats.atomic import reraise
from hubtool.hubs.addresses import next_address
from hubtool.hubs.fetch import Conduct, Fetch, Source
from hubtool.hubs.hub import Downloaded, is_pickle_name
from hubtool.hubs.lock import sole_writer
from hubtool.hubs.names import INERT_SUFFIXES, SAFETENSORS, final_name, header_name, numbered, url_names
from hubtool.hubs.part import Part, has_bytes
from hubtool.hubs.space import Space
from hubtool.hubs.verify import SIZE_SLACK_BYTES, Promise, check_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from hubtool.hubs.client import Client
    from hubtool.hubs.hub import Resolved
    from hubtool.hubs.verify import Verdict

    Report = Callable[[int, int | None], None]  # is told (bytes there, bytes in all)
    Watch = Callable[[str], AbstractContextManager[Report]]  # file name → who is told while it is on its way


@contextlib.contextmanager
def _unwatched(_: str) -> Iterator[Report]:
    yield lambda _done, _total: None


@dataclass(frozen=True, slots=True)
class Transfer:
    """Where to and how. The same object serves any number of downloads at the same time."""

    folder: Path = Path()
    name: str = ""  # instead of the hub's
    verify: bool = True
    resume: bool = True
    unpacks: bool = False  # an archive needs no published hash: its members are checked when it is unpacked
    watch: Watch = _unwatched
    least_bytes: int = 1 << 20  # fewer are not worth a connection of their own
    space: Space = field(default_factory=Space)


def download(client: Client, wanted: Resolved, transfer: Transfer) -> Downloaded:
    """Bring one file into a folder, complete and verified, or raise and leave nothing at its final name.

    A file that is already there with the published hash is not fetched again. A taken name gets `_<version id>`; nothing
    is ever overwritten. What an interruption left is continued.

    Raises:
        UnsafeFile: it is a pickle. Forbidden: the creator allows use on the site only.
        NeedsToken, EarlyAccess, NotFound, RateLimited, NetworkFailure, UnsafeAddress: the hub or storage refuses, or is away.
        HashMismatch, WrongFile: what comes is not what the hub describes.
        StorageProblem: the disk refuses.
    """
    promise = _promised(wanted, transfer)
    part = Part(transfer.folder, _identity(wanted))
    found = find_present(wanted, transfer)
    if found is not None:
        _tidy(part)
        return found
    client.refuse_offline(wanted.file.url)
    source = _source(client, wanted)
    try:
        transfer.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reraise(error, transfer.folder)
    with sole_writer(part.lock_path, lambda: _size(part.path), client.settings.give_up_s) as alone:
        found = find_present(wanted, transfer)  # another process may have brought it while this one waited
        if found is not None:
            part.discard()
            return found
        if not alone:
            part = Part(transfer.folder, secrets.token_hex())
        with transfer.watch(promise.name) as report:
            conduct = Conduct(transfer.space, transfer.folder, report, transfer.least_bytes)
            return _Job(wanted, transfer, part, promise, Fetch(client, source, part, promise, conduct)).run()


def _tidy(part: Part) -> None:
    """Remove what a killed run left beside the finished file, if nobody is at work on it and the folder can be written."""
    if part.is_left_over():
        with contextlib.suppress(StorageProblem), sole_writer(part.lock_path, lambda: 0, 0.0):
            part.discard()


def planned_path(wanted: Resolved, transfer: Transfer) -> Path:
    """Where the file would go if the name is free."""
    return _paths(wanted, transfer, Naming())[0]


def find_present(wanted: Resolved, transfer: Transfer) -> Downloaded | None:
    """The file at its destination, if it is there with the hash that the hub published."""
    digest = wanted.file.sha256
    if not digest:
        return None
    for path in _paths(wanted, transfer, Naming()):
        if _has_size(path, wanted.file.size_bytes) and has_bytes(path, None, digest):
            return Downloaded(path, path.stat().st_size, digest, verified=True, resumed_from=0, status="present")
    return None


@dataclass(frozen=True, slots=True)
class Naming:
    """What helps to name a file besides what the hub and the user say."""

    offered: Sequence[str] = ()  # by the storage; used where the hub has no name
    sha256: str = ""
    suffixes: tuple[str, ...] = (SAFETENSORS, *INERT_SUFFIXES)  # that its content allows


@dataclass(frozen=True, slots=True)
class _Job:
    """One download whose part is locked."""

    wanted: Resolved
    transfer: Transfer
    part: Part
    promise: Promise
    fetch: Fetch

    def run(self) -> Downloaded:
        """Fetch, verify, publish."""
        part = self.part
        part.open(resume=self.transfer.resume)
        try:
            verdict = self._verified()
            part.sync()
            size, digest, resumed = part.size, part.sha256, part.resumed_from
            path, is_new = part.publish(self._names(verdict))
        except (HashMismatch, WrongFile):
            if self.fetch.has_ended:  # else it is an answer that was wrong, not the bytes that are there
                part.discard()
            raise
        finally:
            part.close()
        return Downloaded(path, size, digest, verdict.verified, resumed, "downloaded" if is_new else "present")

    def _names(self, verdict: Verdict) -> list[Path]:
        """Where to put it, now that the storage's names and the content are known too."""
        disposition, address = self.fetch.offered_names
        offered = [header_name(disposition) or "", *url_names(address)]
        suffixes = (SAFETENSORS,) if verdict.is_weights else INERT_SUFFIXES
        return _paths(self.wanted, self.transfer, Naming(offered, self.part.sha256, suffixes))

    def _verified(self) -> Verdict:
        """Fetch and check; a wrong file is fetched once more from the beginning, for the fault may lie in between."""
        self.fetch.run()
        try:
            return self._checked()
        except HashMismatch:
            self.fetch.start_over()
        self.fetch.run()
        return self._checked()

    def _checked(self) -> Verdict:
        self.part.check_place()
        return check_whole(self.part.path, self.promise, self.part.size, self.part.sha256)


def _promised(wanted: Resolved, transfer: Transfer) -> Promise:
    """What to hold the download to.

    Raises:
        UnsafeFile, Forbidden: it is not to be had at all.
    """
    file, name = wanted.file, planned_path(wanted, transfer).name
    if is_pickle_name(file.name, file.format):
        raise UnsafeFile(f"{file.name} is a pickle, which can run code when loaded; it is not downloaded.")
    if not wanted.version.downloadable:
        raise Forbidden(
            f"The creator of version {wanted.version.id} has disabled downloads.",
            hint="It can be used on the hub's site only.",
        )
    unproved = transfer.unpacks
    return (
        Promise(name, file.size_bytes, file.hashes, unproved) if transfer.verify else Promise(name, None, {}, unproved)
    )


def _identity(wanted: Resolved) -> str:
    """What the part is a part of; not by its address, for the port of the sample hub changes."""
    file = wanted.file
    return f"{wanted.hub} {wanted.version.id} {file.id} {file.sha256}" if wanted.hub else file.url


def _source(client: Client, wanted: Resolved) -> Source:
    """The address to ask. What the user typed may be anywhere; what the hub says may not.

    Raises:
        UnsafeAddress: the hub names an address that must not be contacted.
    """
    url = wanted.file.url
    if wanted.hub:
        return Source(next_address(f"{client.site.base}/", url, client.site.base), client.site.base)
    return Source(url, url)


def _paths(wanted: Resolved, transfer: Transfer, naming: Naming) -> list[Path]:
    """The file's possible places, best first."""
    wishes = [transfer.name] if transfer.name else [wanted.file.name, *naming.offered]
    name = final_name(wishes, f"{wanted.version.id or 'download'}", naming.suffixes)
    marks = [str(wanted.version.id), (naming.sha256 or wanted.file.sha256 or "")[:8]]
    return [transfer.folder / name, *(transfer.folder / numbered(name, mark) for mark in marks if mark)]


def _has_size(path: Path, size_bytes: int | None) -> bool:
    """Whether it is worth hashing a file at all."""
    return size_bytes is None or abs(_size(path) - size_bytes) <= SIZE_SLACK_BYTES


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
