"""Several downloads at the same time: each has its own outcome, and one that fails does not stop the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError, UsageProblem
from hubtool.hubs.delivery import deliver
from hubtool.hubs.transfer import find_present, planned_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hubtool.hubs.hub import Downloaded, Hub, Resolved
    from hubtool.hubs.transfer import Transfer


@dataclass(frozen=True, slots=True)
class Wish:
    """Which file of each SPEC, and whether to fetch it or only to say so."""

    file: str = ""  # id or name; default the primary one
    all_files: bool = False
    dry_run: bool = False
    smallest_first: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file."""

    spec: str
    resolved: Resolved | None = None
    planned: Path | None = None  # with dry_run, if it is not there already
    downloaded: Downloaded | None = None
    error: HubtoolError | None = None


@dataclass(frozen=True, slots=True)
class _Errand:
    """One file to fetch, or why a SPEC leads to none."""

    spec: str
    resolved: Resolved | None = None
    error: HubtoolError | None = None

    @property
    def size_bytes(self) -> float:
        """Infinite where nobody says."""
        size = self.resolved.file.size_bytes if self.resolved else 0
        return float("inf") if size is None else size


def download_all(hub: Hub, specs: Sequence[str], wish: Wish, transfer: Transfer, jobs: int) -> list[Outcome]:
    """Download what the SPECs name, at most `jobs` files at a time; outcomes in the order of the SPECs.

    Raises:
        UsageProblem: one name for several files.
    """
    if transfer.name and (len(specs) > 1 or wish.all_files):
        raise UsageProblem("--name is for a single file.", hint="Name one SPEC, without --all-files.")
    batch = _Batch(hub, wish, transfer)
    if jobs > 1 and (len(specs) > 1 or wish.all_files):
        return _in_parallel(batch, specs, jobs)
    if not wish.smallest_first:
        return [outcome for spec in specs for errand in batch.errands(spec) for outcome in batch.outcomes(errand)]
    errands = [errand for spec in specs for errand in batch.errands(spec)]
    done = {index: batch.outcomes(errands[index]) for index in _by_size(errands)}
    return [outcome for index in range(len(errands)) for outcome in done[index]]


def _in_parallel(batch: _Batch, specs: Sequence[str], jobs: int) -> list[Outcome]:
    """Two pools, so that files are on their way while the hub is still asked about the rest."""
    asking, fetching = ThreadPoolExecutor(max(1, min(jobs, len(specs)))), ThreadPoolExecutor(jobs)
    try:
        asked = [asking.submit(batch.errands, spec) for spec in specs]
        if batch.wish.smallest_first:
            errands = [errand for task in asked for errand in task.result()]
            started = {index: fetching.submit(batch.outcomes, errands[index]) for index in _by_size(errands)}
            tasks = [started[index] for index in range(len(errands))]
        else:
            tasks = [fetching.submit(batch.outcomes, errand) for task in asked for errand in task.result()]
        return [outcome for task in tasks for outcome in task.result()]
    except BaseException:  # Ctrl-C: the transfers must not go on in the background
        batch.hub.abort()
        raise
    finally:
        for pool in (asking, fetching):
            pool.shutdown(cancel_futures=True)


def _by_size(errands: Sequence[_Errand]) -> list[int]:
    return sorted(range(len(errands)), key=lambda index: errands[index].size_bytes)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all files of one command have in common. Threads share it."""

    hub: Hub
    wish: Wish
    transfer: Transfer

    def errands(self, spec: str) -> list[_Errand]:
        """The files that a SPEC means."""
        try:
            resolved = self.hub.resolve(spec, self.wish.file)
        except HubtoolError as error:
            return [_Errand(spec, error=error)]
        return [_Errand(spec, each) for each in (resolved.every_file() if self.wish.all_files else (resolved,))]

    def outcomes(self, errand: _Errand) -> list[Outcome]:
        """Fetch one of them, or say where it would go; an archive may have several outcomes."""
        spec, resolved = errand.spec, errand.resolved
        if resolved is None:
            return [Outcome(spec, error=errand.error)]
        try:
            if not self.wish.dry_run:
                return [Outcome(spec, resolved, downloaded=done) for done in deliver(self.hub, resolved, self.transfer)]
            present = find_present(resolved, self.transfer)
            if present is None:
                self.hub.check(resolved)
            return [Outcome(spec, resolved, None if present else planned_path(resolved, self.transfer), present)]
        except HubtoolError as error:
            return [Outcome(spec, resolved, error=error)]
