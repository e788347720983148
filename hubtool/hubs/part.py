"""The unfinished file of one download: its bytes, their hash, and what is needed to go on with it in another run.

It lies in the destination folder (so that the last step is a rename), begins with a dot and ends in `.part`, so that no
program that scans the folder takes it for a model. Its name holds a hash of what it is a part of, so that two sources
never share one. Beside it lies a small JSON file with the validators of the answer it came from; never an address; and a
journal (hubtool.hubs.pieces) if several connections worked on it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError, StorageProblem
from hubtool.formats.atomic import reraise, sync_folder
from hubtool.hubs.pieces import Pieces, read_at, write_at

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hubtool.hubs.pieces import Piece

_BLOCK = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_WINDOWS_TRIES = 5


@dataclass(frozen=True, slots=True)
class Validators:
    """By what a later request can prove that it continues the same file."""

    etag: str = ""  # strong ones only
    last_modified: str = ""
    total: int | None = None  # bytes of the whole file

    @property
    def if_range(self) -> str:
        """The value of an If-Range header, or nothing."""
        return self.etag or self.last_modified


class Part:
    """The growing file; `size` bytes from its beginning on are written and hashed. Further ones may lie ahead."""

    def __init__(self, folder: Path, identity: str) -> None:
        stem = f".hubtool-{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:16]}"
        self.path = folder / f"{stem}.part"
        self.lock_path = folder / f"{stem}.lock"
        self._state_path = folder / f"{stem}.state"
        self.pieces = Pieces(folder / f"{stem}.pieces")
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self.size = 0
        self.resumed_from = 0  # bytes of an earlier run that are still part of it
        self.validators = Validators()

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._hash.hexdigest()

    @property
    def present(self) -> int:
        """Bytes on disk, those ahead included."""
        return self.size + self.pieces.ahead(self.size)

    def open(self, *, resume: bool) -> None:
        """Begin, or with `resume` go on with what an earlier run left, hashing it first.

        Raises:
            StorageProblem: the folder cannot be written, or something else has the part's name.
        """
        try:
            self._descriptor = self._opened()
            if not resume:
                os.ftruncate(self._descriptor, 0)
            self._hash_up_to(self.pieces.load(os.fstat(self._descriptor).st_size))
        except OSError as error:
            reraise(error, self.path)
        self.resumed_from = self.present
        self.validators = self._stored() if self.resumed_from else Validators()

    def _opened(self) -> int:
        """The file; a new one where a run that was killed after giving it its final name could not remove this one."""
        descriptor = os.open(self.path, _FLAGS, 0o666)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            self.path.unlink()
            descriptor = os.open(self.path, _FLAGS | os.O_EXCL, 0o666)
        return descriptor

    def write(self, chunk: bytes) -> None:
        """Append to the beginning.

        Raises:
            DiskFull, StorageProblem: the disk refused; what was written before stays.
        """
        rest = memoryview(chunk)
        try:
            if os.fstat(self._descriptor).st_size < self.size:
                raise StorageProblem(self.path, "another program made it shorter meanwhile")
            while rest:
                count = write_at(self._descriptor, rest, self.size)
                self._hash.update(rest[:count])
                self.size += count
                rest = rest[count:]
            if self.pieces.are_noted:
                self.pieces.note_beginning(self.size)
        except OSError as error:
            reraise(error, self.path)

    def write_ahead(self, piece: Piece, chunk: bytes) -> bool:
        """Write the next bytes of a stretch; False once no more of it are wanted.

        Raises:
            DiskFull, StorageProblem: the disk refused.
        """
        try:
            return self.pieces.write(piece, chunk, self._descriptor)
        except OSError as error:
            reraise(error, self.path)

    def join(self) -> None:
        """Hash what lies ahead and has been reached: it belongs to the beginning then.

        Raises:
            StorageProblem: it cannot be read.
        """
        try:
            while (piece := self.pieces.holder(self.size)) and piece.done > self.size:
                self._hash_up_to(piece.done)
                self.pieces.note_beginning(self.size)
        except OSError as error:
            reraise(error, self.path)
        self.pieces.pass_by(self.size)

    def begin_journal(self) -> None:
        """Note from now on which bytes are there, for the size of the file will not say it any more.

        Raises:
            DiskFull, StorageProblem: the disk refused.
        """
        try:
            self.pieces.open(self.size)
        except OSError as error:
            reraise(error, self.path)

    def restart(self) -> None:
        """Throw the bytes away and begin at zero; no connection may be at work ahead."""
        try:
            os.ftruncate(self._descriptor, 0)
            self.pieces.clear()
        except OSError as error:
            reraise(error, self.path)
        self._hash = hashlib.sha256()
        self.size = self.resumed_from = 0
        self.validators = Validators()

    def remember(self, validators: Validators) -> None:
        """Keep the validators for a later run. A state that a crash cuts short is worth no more than none: no sync."""
        if validators == self.validators:
            return
        self.validators = validators
        try:
            descriptor = os.open(self._state_path, _FLAGS | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(validators), file)
        except OSError as error:
            reraise(error, self._state_path)

    def sync(self) -> None:
        """Make the bytes survive a power loss."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            reraise(error, self.path)

    def close(self) -> None:
        """Let go of the file; an empty one is removed."""
        self.pieces.release_all()
        self.pieces.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if not self.present:
            self.discard()

    def discard(self) -> None:
        """Remove the part and what lies beside it."""
        self.size = 0
        for path in (self.path, self._state_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        self.pieces.clear()

    def is_left_over(self) -> bool:
        """Whether anything of an earlier run lies in the folder."""
        return any(os.path.lexists(path) for path in (self.path, self._state_path, self.lock_path))

    def check_place(self) -> None:
        """Raise if what has the part's name is not the file that was written and hashed.

        Raises:
            StorageProblem: another program removed or replaced it.
        """
        try:
            if os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor)):
                return
        except OSError as error:
            reraise(error, self.path)
        raise StorageProblem(self.path, "another program replaced it while it was being downloaded")

    def publish(self, candidates: Iterable[Path]) -> tuple[Path, bool]:
        """Give the finished, synced file the first name that is free or already has these bytes; never overwrite.

        The name, and whether the file is new there.

        Raises:
            StorageProblem: the disk refused, another program replaced the part, or every name is taken by something else.
        """
        size, digest = self.size, self.sha256
        self.check_place()
        self.close()
        for path in candidates:
            if _linked(self.path, path):
                self.discard()
                sync_folder(path.parent)
                return path, True
            if has_bytes(path, size, digest):
                self.discard()
                return path, False
        raise StorageProblem(self.path.parent, "every name for the file is taken by another one")

    def _hash_up_to(self, end: int) -> None:
        while self.size < end:
            block = read_at(self._descriptor, min(_BLOCK, end - self.size), self.size)
            if not block:
                raise OSError(errno.EIO, "something made it shorter meanwhile")
            self._hash.update(block)
            self.size += len(block)

    def _stored(self) -> Validators:
        try:
            table = json.loads(self._state_path.read_text("utf-8"))
            etag, modified, total = table["etag"], table["last_modified"], table["total"]
        except (OSError, ValueError, KeyError, TypeError):
            return Validators()  # the part alone may still do, if the hub published a hash
        if isinstance(etag, str) and isinstance(modified, str) and (total is None or isinstance(total, int)):
            return Validators(etag, modified, total)
        return Validators()


def has_bytes(path: Path, size: int | None, sha256: str) -> bool:
    """Whether a regular file with this content is at `path`."""
    try:
        if not path.is_file() or (size is not None and path.stat().st_size != size):
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error
    return digest.hexdigest() == sha256


def _linked(source: Path, target: Path) -> bool:
    """Give `source` the second name `target`; False if that is taken."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.EDQUOT}:
            reraise(error, target)
        return _renamed(source, target)  # no hard links here: FAT, some network shares
    return True


def _renamed(source: Path, target: Path) -> bool:
    for turn in range(_WINDOWS_TRIES):
        if os.path.lexists(target):
            return False
        try:
            source.rename(target)
        except PermissionError as error:  # a virus scanner has it open
            if turn + 1 == _WINDOWS_TRIES:
                reraise(error, target)
            time.sleep(0.2 * 2**turn)
        except OSError as error:
            reraise(error, target)
        else:
            return True
    raise HubtoolError(f"{target} could not be written.")
