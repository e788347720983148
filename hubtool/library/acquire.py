"""From what the user typed to an installed file: a file on this disk, or one that a hub has and we fetch first.

What is already in the folder is not fetched again. A download is kept in a hidden folder inside the LoRA folder until it
is installed (the same disk, so that no byte is copied twice); an interrupted one goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from hubtool.errors import AmbiguousSpec, BadSpec, HubtoolError, StorageProblem, UsageProblem
from hubtool.formats.atomic import reraise
from hubtool.hubs.hub import pictures_within
from hubtool.hubs.lock import sole_writer
from hubtool.hubs.spec import ByHash, ByModel, ByPath, ByVersion, parse
from hubtool.library.beside import Pictures
from hubtool.library.index import Index
from hubtool.library.install import Arrival, Installation, Installer
from hubtool.library.litter import HIDDEN
from hubtool.library.origins import origin_of
from hubtool.library.record import Facts
from hubtool.library.scan import open_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hubtool.hubs.hub import Downloaded, Hub, Resolved
    from hubtool.hubs.spec import Spec
    from hubtool.hubs.transfer import Transfer, Watch
    from hubtool.library.install import Wish
    from hubtool.library.record import Installed
    from hubtool.library.target import Place
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one SPEC."""

    spec: str
    installation: Installation | None = None
    error: HubtoolError | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted for every SPEC of one command."""

    place: Place
    wish: Wish
    file: str = ""  # id or name of a version's file, instead of the primary one
    watch: Watch | None = None  # is told how transfers go on


def acquire(settings: Settings, specs: Iterable[str], order: Order, say: Callable[[str], None]) -> list[Outcome]:
    """Install everything that the SPECs name; one that fails does not stop the others.

    Raises:
        StorageProblem, LibraryProblem: the index cannot be used.
        UsageProblem: one name for several files.
    """
    specs = list(specs)
    if order.wish.name and len(specs) > 1:
        raise UsageProblem("`--name` is for a single file.", hint="Name one SPEC.")
    with open_library(settings, say) as index:
        shelf = Installer.at(index, order.place, order.wish).shelf
    acquisition = _Acquisition(settings, order, shelf)
    # files of this disk one after the other: which of two equal names comes first must not depend on the weather
    jobs = min(settings.jobs, sum(_is_remote(spec) for spec in specs))
    if jobs < 2:
        return [acquisition.outcome(spec) for spec in specs]
    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(acquisition.outcome, specs))
    except BaseException:  # Ctrl-C: the transfers must not go on in the background
        acquisition.abort()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _is_remote(spec: str) -> bool:
    try:
        return not isinstance(parse(spec), ByPath)
    except BadSpec:  # will be said where it is reported
        return False


@dataclass(frozen=True, slots=True)
class _Line:
    """The hub, and how to transfer from it; shared, since free space is reckoned over all transfers."""

    hub: Hub
    transfer: Transfer


@dataclass(frozen=True, slots=True)
class _Acquisition:
    """One command's work. Threads share it; each opens the index for itself."""

    settings: Settings
    order: Order
    shelf: Path
    _opening: Lock = field(default_factory=Lock)
    _lines: list[_Line] = field(default_factory=list)

    def line(self) -> _Line:
        """The way to the hub, opened when first needed: a local file does without HTTP."""
        from hubtool.hubs.opening import open_hub  # noqa: PLC0415  # 0.2 s of httpx and pydantic
        from hubtool.hubs.transfer import Transfer  # noqa: PLC0415

        with self._opening:
            if not self._lines:
                watch = self.order.watch
                self._lines.append(_Line(open_hub(self.settings), Transfer(watch=watch) if watch else Transfer()))
            return self._lines[0]

    def abort(self) -> None:
        """Make the transfers in progress fail at once."""
        for line in self._lines:
            line.hub.abort()

    def outcome(self, spec: str) -> Outcome:
        """Install one SPEC, or say why not."""
        try:
            with Index(self.settings.index_path) as index:
                installer = Installer(index, self.order.place, self.order.wish, self.shelf)
                return Outcome(spec, _Errand(self, installer).run(spec))
        except HubtoolError as error:
            return Outcome(spec, error=error)


@dataclass(frozen=True, slots=True)
class _Errand:
    """One SPEC's way into the folder."""

    work: _Acquisition
    installer: Installer

    def run(self, spec: str) -> Installation:
        """Find, fetch if need be, install.

        Raises:
            HubtoolError: it cannot be done.
        """
        installer, wish = self.installer, self.installer.wish
        wanted = parse(spec)
        if isinstance(wanted, ByPath):
            return installer.install(Arrival(wanted.path, wanted.path.name))
        known = self._known(wanted)
        if known is not None:
            return installer.complete(known, Arrival(known.path, known.path.name), "present")
        resolved = self.work.line().hub.resolve(spec, self.work.order.file)
        awaited = self._arrival(resolved, Path(resolved.file.name))
        found = self._present(resolved)
        if found is not None:
            return installer.complete(found, replace(awaited, path=found.path), "present")
        # refuses now what would be refused after the download
        plan = installer.plan(awaited, "" if wish.dialect else resolved.file.sha256 or "", Facts())
        return plan if wish.dry_run else self._fetched(resolved)

    def _known(self, wanted: Spec) -> Installed | None:
        """The file in the folder that is meant, where no hub needs to be asked, or none may be."""
        offline, hub = self.work.settings.offline, self.work.settings.hub
        match wanted:
            case ByHash("sha256", digest):
                return self.installer.present(digest, 0)
            case ByModel(model, version) if offline:
                return self.installer.at_hand(hub, model, version)
            case ByVersion(version) if offline:
                return self.installer.at_hand(hub, None, version)
        return None

    def _present(self, resolved: Resolved) -> Installed | None:
        """The file in the folder that the hub describes, by its hash, or by its ids where the hub published none."""
        if resolved.file.sha256:
            return self.installer.present(resolved.file.sha256, resolved.file.size_bytes or 0)
        return self.installer.from_origin(origin_of(resolved), resolved.file.size_bytes)

    def _fetched(self, resolved: Resolved) -> Installation:
        """Download into the staging folder and install from there; one process at a time for each file."""
        from hubtool.hubs.delivery import deliver  # noqa: PLC0415  # HTTP

        line = self.work.line()
        folder = self.installer.place.folder
        identity = hashlib.sha256(f"{resolved.file.url} {resolved.file.sha256}".encode("utf-8", "replace")).hexdigest()[
            :16
        ]
        staging = folder / f"{HIDDEN}{identity}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reraise(error, folder)
        with sole_writer(folder / f"{HIDDEN}{identity}.lock", lambda: _bytes_in(staging), self.work.settings.give_up_s):
            found = self._present(resolved)  # by another process, while we waited
            if found is not None:
                return self.installer.complete(found, self._arrival(resolved, found.path), "present")
            try:
                done = _only(deliver(line.hub, resolved, replace(line.transfer, folder=staging)))
                return self._from_staging(self._arrival(resolved, done.path), verified=done.verified)
            finally:
                with contextlib.suppress(OSError):  # not empty: there is something to go on with
                    staging.rmdir()

    def _from_staging(self, arrival: Arrival, *, verified: bool) -> Installation:
        """Install a downloaded file; only a full disk or an interruption leaves it there, for the next run."""
        try:
            installation = self.installer.install(arrival)
        except StorageProblem:
            raise
        except HubtoolError:
            arrival.path.unlink()
            raise
        arrival.path.unlink()
        doubt = () if verified else ("The hub published no hash to check the file by.",)
        return replace(installation, notes=installation.notes + doubt)

    def _arrival(self, resolved: Resolved, path: Path) -> Arrival:
        version = resolved.version
        shown = pictures_within(version.images, self.work.settings.previews)
        return Arrival(
            path=path,
            name=resolved.file.name if resolved.hub and not resolved.file.name.lower().endswith(".zip") else path.name,
            is_ours=True,
            origin=origin_of(resolved),
            description=version.description or resolved.model.description,
            pictures=Pictures(
                tuple(image.url for image in shown if image.type == "image"),
                self.work.line().hub.client_for(resolved).get_bytes,
            ),
        )


def _only(done: list[Downloaded]) -> Downloaded:
    """The one LoRA of an archive.

    Raises:
        AmbiguousSpec: it holds several; none is kept.
    """
    if len(done) == 1:
        return done[0]
    for each in done:
        each.path.unlink()
    names = ", ".join(each.path.name for each in done)
    hint = "Fetch them with `hubtool download`, then install those that you want."
    raise AmbiguousSpec(f"The archive holds {len(done)} LoRAs: {names}.", hint=hint)


def _bytes_in(folder: Path) -> int:
    """How far the work in the staging folder is, for those who wait for it."""
    total = 0
    with contextlib.suppress(OSError):  # files come and go
        total = sum(entry.stat().st_size for entry in os.scandir(folder))
    return total
