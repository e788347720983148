"""Hashes of library files, computed once and remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.library.record import Digests

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.library.index import Index
    from hubtool.library.record import Installed


def digests_of(path: Path) -> Digests:
    """Every hash of a file, which is read whole.

    Raises:
        FileProblem, StorageProblem: it cannot be read.
    """
    from hubtool.formats.hashing import hash_file  # noqa: PLC0415  # 20 ms that a prompt of known files does without

    found = hash_file(path)
    return Digests(
        sha256=found.sha256,
        autov1=found.autov1,
        autov2=found.autov2,
        autov3=found.autov3 or "",
        crc32=found.crc32,
        blake3=found.blake3,
        tensors_sha256=found.tensors_sha256 or "",
    )


def hashed(index: Index, adapter: Installed) -> Installed:
    """The adapter with its hashes, computed and stored if nobody did so before.

    Raises:
        FileProblem, StorageProblem: it cannot be read.
    """
    if adapter.digests.sha256:
        return adapter
    complete = replace(adapter, digests=digests_of(adapter.path))
    with index.writing():
        index.store_digests(complete)
    return complete
