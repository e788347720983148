"""Bringing a resolved file home from wherever it can still be had: its own address, its mirrors, other hubs by its hash."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.errors import (
    BadAnswer,
    EarlyAccess,
    Forbidden,
    HubProblem,
    NeedsToken,
    NetworkFailure,
    NotFound,
    Offline,
    UnsafeAddress,
    WrongFile,
)
from hubtool.hubs.archives import is_wrapped, unpack
from hubtool.hubs.transfer import download

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.hubs.hub import Downloaded, Hub, Resolved
    from hubtool.hubs.transfer import Transfer

#: Refusals after which another address may still do, a web page in the file's place among them. A file that came whole and has
#: another hash is not looked for elsewhere.
_GONE = (NotFound, NetworkFailure, NeedsToken, Forbidden, UnsafeAddress, BadAnswer, WrongFile)


def deliver(hub: Hub, wanted: Resolved, transfer: Transfer) -> list[Downloaded]:
    """Bring a file into a folder; of an archive, the LoRAs in it.

    Raises:
        HubtoolError: as `transfer.download` and `archives.unpack`.
    """
    if not is_wrapped(wanted.file):
        return [_from_anywhere(hub, wanted, transfer)]
    identity = hashlib.sha256(f"{wanted.file.url} {wanted.file.sha256}".encode("utf-8", "replace")).hexdigest()[:16]
    # kept while it is incomplete, so that an interrupted archive is gone on with
    aside = transfer.folder / f".hubtool-{identity}.zip"
    try:
        whole = _from_anywhere(hub, wanted, replace(transfer, folder=aside, name="", unpacks=True))
        try:
            return unpack(whole.path, transfer.folder, verified=whole.verified)
        finally:
            whole.path.unlink()
    finally:
        with contextlib.suppress(OSError):  # not empty: there is something to go on with
            aside.rmdir()


def _from_anywhere(hub: Hub, wanted: Resolved, transfer: Transfer) -> Downloaded:
    """Download a file from the first place that has it; where all refuse, raise what the first one said."""
    try:
        return download(hub.client_for(wanted), wanted, transfer)
    except (EarlyAccess, Offline):
        raise
    except _GONE as error:
        first = error
        if not wanted.version.downloadable:  # the creator's decision, not the address's failure
            raise
    for other in _others(hub, wanted, first):
        try:
            return download(hub.client_for(other), other, transfer)
        except HubProblem:
            continue
    if isinstance(first, (Forbidden, NeedsToken)):
        hub.check(wanted)  # may know better why: early access, a login
    raise first


def _others(hub: Hub, wanted: Resolved, failure: HubProblem) -> Iterator[Resolved]:
    for url in wanted.file.mirrors:
        yield replace(wanted, file=replace(wanted.file, url=url, mirrors=()))
    if isinstance(failure, NotFound) and wanted.hub:
        for other in hub.elsewhere(wanted):
            for url in (other.file.url, *other.file.mirrors):
                yield replace(other, file=replace(other.file, url=url, mirrors=()))
