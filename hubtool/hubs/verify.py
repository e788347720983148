"""Whether what arrives is what the hub promised: first its first bytes, at the end its size, hash and structure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from hubtool.errors import FileProblem, HashMismatch, NeedsToken, UnsafeFile, WrongFile
from hubtool.formats.hashing import hash_file
from hubtool.formats.magic import foreign, is_pickle, looks_like_safetensors
from hubtool.formats.safetensors import MAX_HEADER_BYTES, read_safetensors
from hubtool.hubs.names import INERT_SUFFIXES
from hubtool.hubs.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SNIFF_BYTES = 512
SIZE_SLACK_BYTES = 1024  # the API states kibibytes; some answers round them
MAX_UNDECLARED_BYTES = 64 << 30  # where neither the hub nor the storage says how long a file is


@dataclass(frozen=True, slots=True)
class Promise:
    """What the hub says about a file; empty where it says nothing, or where the user declined the check."""

    name: str
    size_bytes: int | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    may_be_unproved: bool = False  # what is no weights file and has no hash is checked by who asked for it

    @property
    def sha256(self) -> str:
        """Lower-case hex, or nothing."""
        return self.hashes.get("sha256", "")

    @property
    def is_inert(self) -> bool:
        """Whether its name says that it is no weights file but a text or an archive."""
        return self.name.lower().endswith(INERT_SUFFIXES)

    def check_total(self, total: int | None) -> int:
        """The most bytes to accept, given the length that the storage declares.

        Raises:
            HashMismatch: the storage's file is not of the size that the hub states.
        """
        if total is not None:
            if self.size_bytes is not None and abs(total - self.size_bytes) > SIZE_SLACK_BYTES:
                raise HashMismatch(
                    f"{self.name} would be {total} bytes, but the hub describes a file of {self.size_bytes}.",
                    hint="The hub delivers another file than it describes; try again later.",
                )
            return total
        return MAX_UNDECLARED_BYTES if self.size_bytes is None else self.size_bytes + SIZE_SLACK_BYTES


def check_start(start: bytes, promise: Promise, total: int | None) -> None:
    """Refuse what is no such file by its first SNIFF_BYTES, before anything is written.

    Raises:
        UnsafeFile: a pickle, whatever it is called.
        NeedsToken: the JSON in which a hub asks for a login.
        WrongFile: a web page, an error message, an archive …
    """
    if is_pickle(start):
        raise UnsafeFile(f"{promise.name} is a Python pickle, whatever its name says; it was not stored.")
    if promise.is_inert and not looks_like_safetensors(start):
        return
    found = foreign(start)
    if found is not None:
        said = _error_words(start)
        if "unauthorized" in said.lower():
            raise NeedsToken(f"The hub answered instead of the file: {said}")
        raise WrongFile(f"Instead of {promise.name} came {found[1]}{f': {said}' if said else '.'}")
    length = int.from_bytes(start[:8], "little")
    if len(start) < 10 or not 2 <= length <= MAX_HEADER_BYTES or start[8:9] != b"{" or (total and length + 8 > total):
        raise WrongFile(f"What came is no safetensors file: {promise.name}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a complete file turned out to be."""

    verified: bool  # a published hash proved it
    is_weights: bool  # safetensors, whatever its name says


def check_whole(path: Path, promise: Promise, size_bytes: int, sha256: str) -> Verdict:
    """Check a complete file against the promise and its own header.

    Raises:
        HashMismatch: another hash or size than promised, or no hash and a damaged structure.
        WrongFile: the promised bytes, which are no valid file.
    """
    verified = _check_hashes(path, promise, sha256)
    if not verified and promise.size_bytes is not None and abs(size_bytes - promise.size_bytes) > SIZE_SLACK_BYTES:
        raise HashMismatch(f"{promise.name} came as {size_bytes} bytes; the hub states {promise.size_bytes}.")
    with path.open("rb") as file:
        is_weights = looks_like_safetensors(file.read(16))
    if promise.is_inert and not is_weights:
        if not verified and not promise.may_be_unproved:
            raise WrongFile(f"The hub published no hash for {promise.name}, which is no safetensors file.")
        return Verdict(verified, is_weights)
    try:
        read_safetensors(path)
    except FileProblem as error:
        what = f"{promise.name} is damaged: {str(error).replace(path.name, promise.name)}"
        if verified:
            raise WrongFile(what, hint="It is so on the hub; report it there.") from error
        raise HashMismatch(what) from error
    return Verdict(verified, is_weights)


def _check_hashes(path: Path, promise: Promise, sha256: str) -> bool:
    """SHA-256 if the hub has it, else every other kind that it has."""
    if not promise.hashes:
        return False
    actual = {"sha256": sha256} if promise.sha256 else asdict(hash_file(path))
    compared = [kind for kind in promise.hashes if actual.get(kind)]
    for kind in compared:
        if promise.hashes[kind] != actual[kind]:
            raise HashMismatch(
                f"{promise.name} is not the file the hub describes: {kind} is {actual[kind][:12]}, "
                f"expected {promise.hashes[kind][:12]}."
            )
    return bool(compared)


def _error_words(start: bytes) -> str:
    """What an error in JSON says."""
    try:
        table = json.loads(start)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(table, dict):
        return ""
    words = [table[key] for key in ("error", "message") if isinstance(table.get(key), str)]
    return one_line(" – ".join(words))[:300]
