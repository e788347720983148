"""The archive of what hubs answered: models are deleted, and what was known of them should not go with them.

Bodies are compressed and named by their SHA-256, so that an unchanged answer is stored once; for each question a small
journal says when which answer came. Nothing is ever overwritten or removed. Questions hold no token.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from hubtool.errors import StorageProblem
from hubtool.formats.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LIMIT_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer and when it came (ISO 8601, UTC)."""

    at: str
    body: bytes


class Answers:
    """The archive in one folder. A disk that refuses costs the memory, never the work at hand."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, url: str, body: bytes) -> None:
        """Remember that `url` answered `body` now."""
        digest = hashlib.sha256(body).hexdigest()
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        with contextlib.suppress(OSError):
            journal = self._journal(url)
            self._store(digest, body)
            if journal.exists() and journal.read_text("utf-8", "replace").rstrip().endswith(digest):
                return  # what was known already
            journal.parent.mkdir(parents=True, exist_ok=True)
            with journal.open("a", encoding="utf-8") as file:  # one short line: whole or not at all
                file.write(f"{now} {digest}\n")

    def latest(self, url: str) -> Kept | None:
        """The last answer that was kept, or None."""
        return next(self.history(url), None)

    def history(self, url: str) -> Iterator[Kept]:
        """Every different answer, newest first; damaged ones are passed over."""
        try:
            lines = self._journal(url).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in reversed(lines):
            moment, _, digest = line.partition(" ")
            body = self._load(digest)
            if body is not None:
                yield Kept(moment, body)

    def _store(self, digest: str, body: bytes) -> None:
        path = self._body(digest)
        if self._load(digest) is not None:  # a damaged one is replaced
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.write_bytes(gzip.compress(body, 6, mtime=0))
        temporary.replace(path)

    def _load(self, digest: str) -> bytes | None:
        if len(digest) != 64 or not digest.isalnum():
            return None
        try:
            with gzip.open(self._body(digest)) as file:
                body = file.read(_LIMIT_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            return None
        return body if hashlib.sha256(body).hexdigest() == digest else None

    def _journal(self, url: str) -> Path:
        name = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:32]
        return self._folder / "asked" / name[:2] / name

    def _body(self, digest: str) -> Path:
        return self._folder / "bodies" / digest[:2] / f"{digest}.gz"


class Misses:
    """Hashes that a hub did not know, for a while: looking through a folder must not ask the same a hundred times.

    Only for what hubtool looks up by itself; what a person typed is always asked for.
    """

    def __init__(self, path: Path, keep_s: float = 7 * 86_400) -> None:
        self._path, self._keep_s = path, keep_s

    def recent(self, hub: str) -> set[str]:
        """The hashes that `hub` did not know and that need not be asked for again yet."""
        now = datetime.now(timezone.utc).timestamp()
        return {digest for name, moment, digest in self._rows() if name == hub and now - moment < self._keep_s}

    def add(self, hub: str, hashes: set[str]) -> None:
        """Remember that `hub` does not know these; what has expired is forgotten."""
        now = datetime.now(timezone.utc).timestamp()
        old = [row for row in self._rows() if now - row[1] < self._keep_s and not (row[0] == hub and row[2] in hashes)]
        rows = [*old, *((hub, now, digest) for digest in sorted(hashes))]
        text = "".join(f"{name}\t{moment:.0f}\t{digest}\n" for name, moment, digest in rows)
        with contextlib.suppress(StorageProblem):  # then it will be asked for again
            write_text(self._path, text, force=True)

    def _rows(self) -> list[tuple[str, float, str]]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        cells = (line.split("\t") for line in lines)
        return [(row[0], float(row[1]), row[2]) for row in cells if len(row) == 3 and row[1].isdigit()]
