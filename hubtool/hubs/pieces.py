"""The stretches of a part that lie ahead of its finished beginning, brought by further connections.

While there are any, the size of the file says nothing about what is in it. A journal beside the part does: one line of
fixed length for each stretch, rewritten in place once its bytes are written. A killed process loses nothing by that; after
a power cut a line may speak of bytes that never reached the disk, so that only files with a published SHA-256 come so.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LINE = re.compile(rb"([0-9]{20}) ([0-9]{20})\n")
_LINE_BYTES = 42
_seeking = threading.Lock()  # where a descriptor's position is all there is


@dataclass(eq=False, slots=True)
class Piece:
    """One stretch: bytes from `start` to before `done` are on disk, those to before `end` are on their way if it is live."""

    start: int
    done: int
    end: int
    line: int  # in the journal
    live: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while its bytes are written

    def __lt__(self, other: Piece) -> bool:
        return self.start < other.start


@dataclass(frozen=True, slots=True)
class Field:
    """What is still to be divided: from where the main stream is to the file's end."""

    frontier: int
    total: int
    usual: int  # bytes of a new stretch
    least: int  # fewer are not worth a connection


class Pieces:
    """The stretches of one part, and their journal. Threads share it; only the main stream calls `load` and `clear`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._lines = 0
        self._pieces: list[Piece] = []  # in order
        self._lock = threading.Lock()

    @property
    def are_noted(self) -> bool:
        """Whether there is a journal, so that the main stream must note its own progress too."""
        return self._descriptor >= 0

    def load(self, size_bytes: int) -> int:
        """Take up what another run noted of a part of this size; how many bytes there are from the beginning on.

        Without a journal that is all of them, and so it is if a kill left one without a line, for the first is written
        before any stretch is begun. Lines that cannot be read count as never written.
        """
        try:
            text = self._path.read_bytes() if size_bytes else b""
        except FileNotFoundError:
            return size_bytes
        if not size_bytes:
            self.clear()
            return 0
        lines = [text[at : at + _LINE_BYTES] for at in range(0, len(text), _LINE_BYTES)]
        found = [match for line in lines if (match := _LINE.fullmatch(line))]
        if not found:
            self.clear()
            return size_bytes
        beginning = 0
        for start, done in sorted((int(match[1]), min(int(match[2]), size_bytes)) for match in found):
            if start <= beginning:
                beginning = max(beginning, done)
            elif done > start and (not self._pieces or done > self._pieces[-1].done):
                start = max(start, self._pieces[-1].done if self._pieces else 0)  # noqa: PLW2901  # the overlap is known
                self._pieces.append(Piece(start, done, done, -1, live=False))
        self._lines = len(lines)
        self.open(beginning)
        return beginning

    def open(self, beginning: int) -> None:
        """Begin the journal, or go on with it: its first line is that of the bytes from the beginning on."""
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, _FLAGS, 0o600)
            self._lines = max(1, self._lines)
            self.note_beginning(beginning)

    def note_beginning(self, size_bytes: int) -> None:
        """Note how far the main stream is."""
        self._note(0, 0, size_bytes)

    def close(self) -> None:
        """Let go of the journal; what was noted stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def clear(self) -> None:
        """Forget everything; the part must be empty or gone by then, for without a journal its size counts."""
        self.close()
        self._pieces, self._lines = [], 0
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    # ------------------------------------------------------------ questions

    def holder(self, position: int) -> Piece | None:
        """The stretch in which a byte lies, there already or on its way."""
        with self._lock:
            return next((piece for piece in self._pieces if piece.start <= position < piece.end), None)

    def room(self, position: int, length: int = 0) -> int | None:
        """How many bytes lie between a position and the next stretch of which there is something; None if there is none.

        The main stream is about to write `length` of them: a stretch there that has not begun to come is taken back.
        """
        if not self._pieces:  # of nearly every download, asked with every chunk
            return None
        with self._lock:
            for piece in self._pieces:
                if piece.end > position and piece.done > piece.start:
                    return max(0, piece.start - position)
                if position < piece.end and piece.start < position + length:
                    self._take_back(piece)
        return None

    def ahead(self, position: int) -> int:
        """How many bytes beyond a position are on disk."""
        with self._lock:
            return sum(max(0, piece.done - max(piece.start, position)) for piece in self._pieces)

    # ------------------------------------------------------------ changes

    def claim(self, whole: Field) -> Piece | None:
        """The next stretch that nobody fetches: a gap, else the second half of the longest that is on its way."""
        with self._lock:
            gaps = list(self._gaps(whole))
            for start, end in gaps:
                # the main stream keeps a stretch for itself
                start += whole.usual * (start == whole.frontier)  # noqa: PLW2901
                if end - start >= whole.least:
                    return self._added(start, min(end, start + whole.usual))
            start, end = next((gap for gap in gaps if gap[0] == whole.frontier), (0, 0))
            return self._half(Piece(start, start, end, -1), whole.least)

    def write(self, piece: Piece, chunk: bytes, descriptor: int) -> bool:
        """Write a stretch's next bytes into the part and note it; False once no more are wanted."""
        with piece.lock:
            rest = memoryview(chunk)[: max(0, piece.end - piece.done)]
            while rest and piece.live:
                count = write_at(descriptor, rest, piece.done)
                piece.done += count
                rest = rest[count:]
                self._note(piece.line, piece.start, piece.done)
            return piece.live and piece.done < piece.end

    def release(self, piece: Piece) -> None:
        """Nobody fetches it any more; what came stays, what did not is a gap again."""
        with self._lock, piece.lock:
            piece.live = False
            piece.end = piece.done
            if piece.start == piece.done and piece in self._pieces:
                self._pieces.remove(piece)

    def release_all(self) -> None:
        """As `release`, for every stretch: nothing is written into the part after this."""
        for piece in list(self._pieces):
            self.release(piece)

    def pass_by(self, position: int) -> None:
        """Forget the stretches that the main stream has left behind."""
        with self._lock:
            self._pieces = [piece for piece in self._pieces if piece.end > position or piece.live]

    # ------------------------------------------------------------ inside

    @staticmethod
    def _take_back(piece: Piece) -> None:
        with piece.lock:
            if piece.done == piece.start:
                piece.live, piece.end = False, piece.start

    def _half(self, main: Piece, least: int) -> Piece | None:
        """What the longest stretch gives away, that of the main stream included."""
        longest = max(
            [main, *(piece for piece in self._pieces if piece.live)], key=lambda piece: piece.end - piece.done
        )
        with longest.lock:
            end, middle = longest.end, longest.done + (longest.end - longest.done) // 2
            if end - middle < least:
                return None
            longest.end = middle
        return self._added(middle, end)

    def _gaps(self, whole: Field) -> Iterator[tuple[int, int]]:
        """From where to where nobody fetches anything, but for the main stream at the frontier."""
        at = whole.frontier
        for piece in [*self._pieces, Piece(whole.total, whole.total, whole.total, -1)]:
            if piece.start > at:
                yield at, piece.start
            at = max(at, piece.end)

    def _added(self, start: int, end: int) -> Piece:
        piece = Piece(start, start, end, self._lines)
        self._lines += 1
        insort(self._pieces, piece)
        return piece

    def _note(self, line: int, start: int, done: int) -> None:
        write_at(self._descriptor, memoryview(b"%020d %020d\n" % (start, done)), line * _LINE_BYTES)


def write_at(descriptor: int, data: memoryview, position: int) -> int:
    """As `os.pwrite`, which not every system has; how many bytes were written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, position)
    with _seeking:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.write(descriptor, data)


def read_at(descriptor: int, length: int, position: int) -> bytes:
    """As `os.pread`, which not every system has."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, position)
    with _seeking:
        os.lseek(descriptor, position, os.SEEK_SET)
        return os.read(descriptor, length)
