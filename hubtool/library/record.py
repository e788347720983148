"""What the library knows of one file, in three layers: its own header, its hub, its user.

The layers stay apart because they change for different reasons; where they disagree, the user is right, then the hub,
then the header (`Installed.trigger_words` and its neighbours say so once for everybody).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamp:
    """How an unchanged file is recognised without reading it."""

    size_bytes: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A LoRA folder that the index keeps up with; none lies inside another deep one."""

    path: Path  # absolute, links resolved
    target: str  # id of the UI that reads it
    deep: bool = True  # with all subfolders; not so for any folder that somebody named with `--to`, say, a home folder
    also: tuple[Path, ...] = ()  # of one that is not deep: the subfolders into which hubtool put files


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file's header says, as `operations.inspect` reads it."""

    kind: str = "adapter"
    architecture: str | None = None
    dialect: str | None = None
    parametrizations: tuple[str, ...] = ()
    base_model: str = ""
    title: str = ""
    trigger_words: tuple[str, ...] = ()
    alias: str = ""  # ss_output_name, by which A1111 knows the file too
    embedded_hash: str = ""  # lower-case hex, as the trainer computed it
    problem: str = ""  # why the header says nothing: one sentence
    stated_hash: str = (
        ""  # `sshs_model_hash` as it stands there, `0x` and nonsense included: pictures cite its first 12 characters
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """What the hub says about the file."""

    hub: str
    model_id: str = ""
    version_id: str = ""
    file_id: str = ""
    model_name: str = ""
    version_name: str = ""
    creator: str = ""
    base_model: str = ""
    trigger_words: tuple[str, ...] = ()
    url: str = ""  # the model's page, for people
    source_sha256: str = ""  # of the file as the hub has it, if it was converted on the way
    snapshot: Mapping[str, object] = field(default_factory=dict, repr=False)  # the hub's record of the version, raw

    @property
    def version(self) -> Mapping[str, object]:
        """The record of the version as Civitai answers it, which other programs keep; empty for hubs that have none."""
        return self.snapshot if "id" in self.snapshot else {}

    def completed(self, other: Origin) -> Origin:
        """With what another record of the same version knows besides; a record of something else adds nothing."""
        return _completed(self, other) if (self.hub, self.version_id) == (other.hub, other.version_id) else self


@dataclass(frozen=True, slots=True)
class Own:
    """What the user says about the file; None and empty mean that nothing was said."""

    tags: tuple[str, ...] = ()
    favourite: bool = False
    preferred_weight: float | None = None
    trigger_words: tuple[str, ...] = ()
    notes: str = ""
    negative: str = ""  # what belongs into the negative prompt
    rating: int = 0  # 1 to 5; 0: none
    outfits: tuple[str, ...] = ()  # groups of trigger words, each "name: words" or "name: words / negative words"

    def completed(self, other: Own) -> Own:
        """With what was said elsewhere and not here."""
        return _completed(self, other)


Said = TypeVar("Said", Origin, Own)


def _completed(first: Said, second: Said) -> Said:
    empty = {entry.name: getattr(second, entry.name) for entry in fields(first) if not getattr(first, entry.name)}
    return replace(first, **empty)


@dataclass(frozen=True, slots=True)
class Digests:
    """The hashes under which others know the file; empty until somebody computed them."""

    sha256: str = ""
    autov1: str = ""
    autov2: str = ""
    autov3: str = ""
    crc32: str = ""
    blake3: str = ""
    tensors_sha256: str = ""


class Label(NamedTuple):
    """What one needs to know of a file to look it up by a name in a prompt; a tenth of the cost of the whole."""

    path: str  # absolute
    folder: str  # the LoRA folder
    alias: str
    stamp: str = ""  # size, time and inode: links to one file share it
    sha256: str = ""  # empty: not computed yet

    @property
    def contents(self) -> tuple[str, ...]:
        """Whatever only this file and its copies share."""
        return tuple(word for word in (self.path, self.stamp, self.sha256) if word)

    def is_copy_of(self, other: Label) -> bool:
        """Whether both are one file, or known to hold the same bytes."""
        return not set(self.contents).isdisjoint(other.contents)

    @property
    def inside(self) -> str:
        """The path below the LoRA folder without extension, with forward slashes."""
        return self.path[len(self.folder) + 1 :].rpartition(".")[0].replace(os.sep, "/")

    @property
    def stem(self) -> str:
        """The name without folder and extension."""
        return self.inside.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Installed:
    """One file of the library."""

    path: Path  # absolute
    folder: Path  # the LoRA folder that it lies in, perhaps in a subfolder of it
    target: str  # id of the UI that reads that folder
    stamp: Stamp
    digests: Digests = Digests()
    facts: Facts = Facts()
    origin: Origin | None = None
    own: Own = Own()

    @property
    def name(self) -> str:
        """The name in prompts: the file's name without extension."""
        return self.path.stem

    def is_there(self) -> bool:
        """Whether the file still is as it was when it was indexed."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return self.stamp == Stamp(status.st_size, status.st_mtime_ns, status.st_ino)

    @property
    def base_model(self) -> str:
        """The hub's word for the base model (it knows Pony from SDXL), else the header's."""
        return (self.origin.base_model if self.origin else "") or self.facts.base_model

    @property
    def trigger_words(self) -> tuple[str, ...]:
        """The user's if they differ from what was suggested, else the hub's, else the header's."""
        return self.said.trigger_words or self.suggested_words

    @property
    def suggested_words(self) -> tuple[str, ...]:
        """The hub's trigger words, else the header's."""
        return (self.origin.trigger_words if self.origin else ()) or self.facts.trigger_words

    @property
    def said(self) -> Own:
        """What the user says, without the words that were only copied into a sidecar for a UI to read."""
        copied = self.own.trigger_words == split_words(", ".join(self.suggested_words))
        return replace(self.own, trigger_words=()) if copied else self.own


def split_words(text: str) -> tuple[str, ...]:
    """Trigger words as people type them into one field.

    >>> split_words("miku, green hair || kimono")
    ('miku', 'green hair', 'kimono')
    """
    return tuple(word.strip() for part in text.split("||") for word in part.split(",") if word.strip())
