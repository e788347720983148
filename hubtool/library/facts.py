"""What a file's header says, in the words of the index.

What the tensors are does not change from one file of a trainer to the next: it is found out once for each table of tensors, and
remembered by the table's digest (`Shapes`), together with the few metadata that have a say in it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import hubtool
from hubtool.errors import HubtoolError
from hubtool.formats.hashing import embedded_hash
from hubtool.formats.header import split_header
from hubtool.library.record import Facts
from hubtool.operations.header_words import title_of, trained_base, trigger_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.formats.header import HeaderParts
    from hubtool.operations.inspect import Inspection

#: Metadata that decide between architectures or families (`naming.identify`, `adapters.dylora`).
_SPEAKING = (
    "hubtool.architecture",
    "modelspec.architecture",
    "ss_base_model_version",
    "ss_network_module",
    "ss_network_args",
)
_DECIDING = ("naming", "adapters", "operations/inspect.py", "operations/kinds.py")  # the code that recognises


class Shape(NamedTuple):
    """What a table of tensors is."""

    kind: str
    architecture: str | None
    dialect: str | None
    parametrizations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shapes:
    """A memory of tables of tensors: what is known already, and what was found out since."""

    known: Callable[[bytes], Shape | None]
    fresh: dict[bytes, Shape] = field(default_factory=dict)

    def find(self, digest: bytes) -> Shape | None:
        """What is remembered of a table."""
        return self.fresh.get(digest) or self.known(digest)


@functools.cache
def reader() -> str:
    """Names the code that recognises tensors: what one version of it does not know, another may."""
    root = Path(hubtool.__file__).parent
    files = [
        path for name in _DECIDING for path in (root / name, *sorted((root / name).rglob("*.*"))) if path.is_file()
    ]
    stamps = (path.stat() for path in files if path.suffix in {".py", ".toml", ".json"})
    text = " ".join(f"{stamp.st_size}:{stamp.st_mtime_ns}" for stamp in stamps)
    return f"{hubtool.__version__} {blake2b(text.encode(), digest_size=6).hexdigest()}"


def read_facts(path: Path, shapes: Shapes | None = None) -> Facts:
    """Read the header only; a file that cannot be read has facts too: its problem."""
    parts = split_header(path) if shapes else None
    digest = _digest(parts) if parts else b""
    known = shapes.find(digest) if shapes and parts else None
    if known and parts:
        return _facts(known, parts.metadata)
    from hubtool.operations.inspect import inspect  # noqa: PLC0415  # 50 ms that a scan without news does without

    try:
        found = inspect(path)
    except HubtoolError as error:
        return Facts(kind="other", problem=str(error))
    if shapes and parts:
        shapes.fresh[digest] = _shape_of(found)
    return facts_of(found)


def facts_of(found: Inspection) -> Facts:
    """What the index keeps of an inspection."""
    return _facts(_shape_of(found), found.metadata)


def _shape_of(found: Inspection) -> Shape:
    return Shape(found.kind, found.architecture, found.dialect, tuple(found.parametrizations))


def _facts(shape: Shape, metadata: Mapping[str, str]) -> Facts:
    return Facts(
        **shape._asdict(),
        base_model=trained_base(metadata) or "",
        title=title_of(metadata) or "",
        trigger_words=trigger_words(metadata),
        alias=metadata.get("ss_output_name", ""),
        embedded_hash=embedded_hash(metadata) or "",
        stated_hash=metadata.get("sshs_model_hash", "").strip()[:80],
    )


def _digest(parts: HeaderParts) -> bytes:
    digest = blake2b(parts.tensors, digest_size=16)
    for key in _SPEAKING:
        digest.update(f"{key}={parts.metadata.get(key, '')}\0".encode())
    return digest.digest()
