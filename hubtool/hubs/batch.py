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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file."""

    spec: str
    resolved: Resolved | None = None
    planned: Path | None = None  # with dry_run, if it is not there already
    downloaded: Downloaded | None = None
    error: HubtoolError | None = None


def download_all(hub: Hub, specs: Sequence[str], wish: Wish, transfer: Transfer, jobs: int) -> list[Outcome]:
    """Download what the SPECs name, at most `jobs` at a time; outcomes in the order of the SPECs.

    Raises:
        UsageProblem: one name for several files.
    """
    if transfer.name and (len(specs) > 1 or wish.all_files):
        raise UsageProblem("--name is for a single file.", hint="Name one SPEC, without --all-files.")
    if len(specs) < 2 or jobs < 2:
        return [outcome for spec in specs for outcome in _outcomes(hub, spec, wish, transfer)]
    pool = ThreadPoolExecutor(min(jobs, len(specs)))
    try:
        tasks = [pool.submit(_outcomes, hub, spec, wish, transfer) for spec in specs]
        return [outcome for task in tasks for outcome in task.result()]
    except BaseException:  # Ctrl-C: the transfers must not go on in the background
        hub.abort()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _outcomes(hub: Hub, spec: str, wish: Wish, transfer: Transfer) -> list[Outcome]:
    try:
        resolved = hub.resolve(spec, wish.file)
    except HubtoolError as error:
        return [Outcome(spec, error=error)]
    files = resolved.every_file() if wish.all_files else (resolved,)
    return [outcome for each in files for outcome in _delivered(hub, spec, each, wish, transfer)]


def _delivered(hub: Hub, spec: str, resolved: Resolved, wish: Wish, transfer: Transfer) -> list[Outcome]:
    try:
        if not wish.dry_run:
            return [Outcome(spec, resolved, downloaded=done) for done in deliver(hub, resolved, transfer)]
        present = find_present(resolved, transfer)
        if present is None:
            hub.check(resolved)
        return [Outcome(spec, resolved, None if present else planned_path(resolved, transfer), present)]
    except HubtoolError as error:
        return [Outcome(spec, resolved, error=error)]
