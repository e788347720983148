"""Every hash by which hubs, UIs and trainers name a file, in one pass over its bytes.

| kind | of what | seen in |
|---|---|---|
| sha256 | the whole file | Civitai, ComfyUI, Forge |
| autov2 | the first 10 digits of sha256 | Civitai, A1111's checkpoint short hash |
| autov1 | SHA-256 of 64 KiB at offset 1 MiB, 8 digits | A1111 of 2022; kohya's `sshs_legacy_hash`; collides |
| tensors_sha256 | all bytes after the safetensors header | kohya's `sshs_model_hash`, `modelspec.hash_sha256` |
| autov3 | the first 12 digits of tensors_sha256 | Civitai, A1111's `Lora hashes` |
| blake3, crc32 | the whole file | Civitai, InvokeAI |

Lower-case hex throughout; Civitai prints upper case, so compare case-folded.
"""

from __future__ import annotations

import os
import threading
import zlib
from dataclasses import dataclass
from hashlib import sha256
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from hubtool.errors import StorageProblem
from hubtool.formats.magic import looks_like_safetensors
from hubtool.formats.safetensors import body_order, open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hubtool.formats.tensor import LazyTensor, MappedFile

EMPTY_SHA256 = sha256(b"").hexdigest()  # a broken trainer wrote it into every file; it identifies nothing
_BLOCK = 1 << 20
_AUTOV1_START, _AUTOV1_STOP = 0x100000, 0x110000  # sd-scripts train_util.py, addnet_hash_legacy
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Hashes:
    """The hashes of one file, lower-case hex; the last two are None for what is not safetensors."""

    sha256: str
    autov1: str
    autov2: str
    crc32: str
    blake3: str
    autov3: str | None = None
    tensors_sha256: str | None = None


def hash_file(path: Path) -> Hashes:
    """All hashes of a regular file, reading it once with bounded memory.

    Raises:
        FileMissing, NotRegularFile, StorageProblem: there is no readable file, or it changed meanwhile.
    """
    file = open_regular(path)
    start = os.pread(file.descriptor, 9, 0) if hasattr(os, "pread") else bytes(file.view(0, min(9, file.size)))
    body = 8 + int.from_bytes(start[:8], "little") if looks_like_safetensors(start) else None
    whole, autov1, tensors, tree, crc = sha256(), sha256(), sha256(), blake3(), _Crc32()
    everything = (0, file.size)
    work: list[tuple[Callable[[memoryview], object], tuple[int, int]]] = [
        (whole.update, everything),
        (tree.update, everything),
        (crc.update, everything),
        (autov1.update, (_AUTOV1_START, _AUTOV1_STOP)),
    ]
    if body is not None:
        work.append((tensors.update, (body, file.size)))
    _feed(file, work)
    digest = whole.hexdigest()
    inner = tensors.hexdigest() if body is not None else None
    return Hashes(
        sha256=digest,
        autov1=autov1.hexdigest()[:8],
        autov2=digest[:10],
        crc32=crc.hexdigest(),
        blake3=tree.hexdigest(),
        autov3=inner[:12] if inner else None,
        tensors_sha256=inner,
    )


def _feed(file: MappedFile, work: Sequence[tuple[Callable[[memoryview], object], tuple[int, int]]]) -> None:
    """Give each digest its span of the file, in a thread of its own, since all of them let go of the interpreter lock.

    Not a pool: a signal that interrupts one of its thousands of `submit`s can leave a lock taken, and the process hanging.
    """
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    queues: list[SimpleQueue[memoryview | None]] = [SimpleQueue() for _ in work]
    threads = [
        threading.Thread(target=_digest, args=(update, parts, done), daemon=True)
        for (update, _), parts in zip(work, queues, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        for position, block in _blocks(file):
            fed = 0
            for (_, span), parts in zip(work, queues, strict=True):
                if part := _part(block, position, span):
                    parts.put(part)
                    fed += 1
            for _ in range(fed):
                if error := done.get():
                    raise error
    finally:
        for thread, parts in zip(threads, queues, strict=True):
            parts.put(None)
            thread.join()


def _digest(
    update: Callable[[memoryview], object],
    parts: SimpleQueue[memoryview | None],
    done: SimpleQueue[BaseException | None],
) -> None:
    while (part := parts.get()) is not None:
        try:
            update(part)
        except Exception as error:  # noqa: BLE001  # raised again by who waits for it
            done.put(error)
        else:
            done.put(None)


def sha256_of(path: Path) -> str:
    """SHA-256 of a regular file, lower-case hex.

    Raises:
        FileMissing, NotRegularFile, StorageProblem: there is no readable file, or it changed meanwhile.
    """
    digest = sha256()
    for _, block in _blocks(open_regular(path)):
        digest.update(block)
    return digest.hexdigest()


class BodyHashes(NamedTuple):
    """What a header may state of the bytes behind it; see the table above."""

    tensors_sha256: str
    autov1: str | None  # None where it would be a hash of the header itself, or of nothing


def body_hashes(tensors: Mapping[str, LazyTensor], header_size: int) -> BodyHashes:
    """The hashes of a file that will have these tensors behind a header of this size (its length field included)."""
    whole, window, position = sha256(), sha256(), header_size
    for key in body_order(tensors):
        for block in tensors[key].blocks(_BLOCK):
            whole.update(block)
            window.update(_part(memoryview(block), position, (_AUTOV1_START, _AUTOV1_STOP)))
            position += len(block)
    inside = header_size <= _AUTOV1_START < position
    return BodyHashes(whole.hexdigest(), window.hexdigest()[:8] if inside else None)


def embedded_hash(metadata: Mapping[str, str]) -> str | None:
    """The tensor hash that a trainer wrote into the header, lower case without `0x`, or None.

    It may differ from the real one (tools that re-order tensors copy the metadata), but images cite it.

    >>> embedded_hash({"sshs_model_hash": "0xABCDEF0123456789"})
    'abcdef0123456789'
    >>> embedded_hash({"sshs_model_hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"})
    """
    for key in ("sshs_model_hash", "modelspec.hash_sha256"):
        text = metadata.get(key, "").strip().lower().removeprefix("0x")
        if 8 <= len(text) <= 64 and set(text) <= _HEX and not is_empty_hash(text):
            return text
    return None


def is_empty_hash(text: str) -> bool:
    """Whether this is (the beginning of) the SHA-256 of nothing, which many unrelated files carry.

    >>> is_empty_hash("E3B0C442")
    True
    """
    return len(text) >= 8 and EMPTY_SHA256.startswith(text.lower())


class _Crc32:
    """zlib's CRC-32 with the interface of a digest."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, part: memoryview) -> None:
        self._value = zlib.crc32(part, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _blocks(file: MappedFile) -> Iterator[tuple[int, memoryview]]:
    """(offset, bytes) to the end; read rather than mapped, for a file that shrinks must not kill the process.

    Raises:
        StorageProblem: the file ended earlier or later than it said at the start.
    """
    buffer = bytearray(_BLOCK)
    position = 0
    with os.fdopen(os.dup(file.descriptor), "rb", buffering=0) as stream:
        stream.seek(0)
        while count := stream.readinto(buffer):
            yield position, memoryview(buffer)[:count]
            position += count
    if position != file.size:
        raise StorageProblem(file.path, "the file changed while it was read")


def _part(block: memoryview, position: int, span: tuple[int, int]) -> memoryview:
    """What of a block at `position` lies in [start, stop)."""
    start, stop = span
    return block[max(0, start - position) : max(0, stop - position)]
