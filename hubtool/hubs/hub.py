"""What a hub is: the records it answers with and the few questions it must understand.

A `Catalogue` is one remote place; a `Hub` is what the rest of the program asks, which may be several of them in turn.

Every remote catalogue is read into these records; nothing outside this package sees a hub's own JSON, except as `raw`,
which is kept because the sidecars of some programs store the hub's answer as it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

from hubtool.errors import AmbiguousSpec, NotFound, UnsafeFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubtool.errors import HubtoolError
    from hubtool.hubs.client import Client
    from hubtool.hubs.identification import Identities
    from hubtool.hubs.spec import Spec

Id = int | str  # Civitai counts, Hugging Face names


_SHOWN_FILES = 12  # in a hint
LORA_TYPES = ("LORA", "LoCon", "DoRA")  # Civitai's names of the LoRA family
HASH_KINDS = ("sha256", "autov1", "autov2", "autov3", "blake3", "crc32")

Sort = Literal["downloads", "rating", "newest", "relevance"]
Nsfw = Literal["none", "soft", "mature", "all"]
#: --nsfw → the bits that a model or picture may have. PG 1, PG13 2, R 4, X 8, XXX 16, blocked 32.
ALLOWED_LEVELS: Mapping[str, int] = {"none": 1 | 2, "soft": 1 | 2, "mature": 1 | 2 | 4, "all": ~0}
Status = Literal["downloaded", "present"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a version, as the hub describes it."""

    id: Id
    name: str  # as uploaded: any characters, not unique; `hubtool.hubs.names` makes it safe
    url: str  # where the hub says to download it; needs the hub's token, redirects to storage
    type: str = "Model"
    format: str = ""  # declared by the uploader: SafeTensor, PickleTensor, GGUF …
    size_bytes: int | None = None
    primary: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)  # kind of HASH_KINDS → lower-case hex
    scan: Mapping[str, str] = field(default_factory=dict)  # the hub's own scanners: pickle, virus → verdict
    mirrors: tuple[str, ...] = ()  # other addresses of the same bytes, best first

    @property
    def sha256(self) -> str | None:
        """The SHA-256 that the hub published, lower case, or None."""
        return self.hashes.get("sha256")


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """A picture or video shown on the model's page."""

    url: str
    nsfw_level: int = 0  # one bit of Civitai's mask: 1 PG, 2 PG13, 4 R, 8 X, 16 XXX, 32 blocked; 0 unrated
    type: str = "image"  # or video, audio
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One release of a model."""

    id: Id
    model_id: Id
    name: str
    base_model: str = ""  # the hub's own name: "SDXL 1.0", "Pony" …
    published_at: str | None = None  # ISO 8601
    trigger_words: tuple[str, ...] = ()
    description: str = ""  # plain text
    files: tuple[RemoteFile, ...] = ()
    images: tuple[PreviewImage, ...] = ()
    downloads: int | None = None
    downloadable: bool = True  # False: the creator allows use on the site only
    must_choose: bool = False  # several files are equally likely to be meant: the user has to say which
    raw: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)  # as GET /model-versions/{id}


@dataclass(frozen=True, slots=True)
class License:
    """What the creator allows: by the name of a licence, or in Civitai's terms."""

    name: str = ""  # apache-2.0 …
    allow_no_credit: bool | None = None
    allow_commercial_use: tuple[str, ...] = ()
    allow_derivatives: bool | None = None
    allow_different_license: bool | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A page of the hub: one or more versions under one name."""

    id: Id
    name: str
    type: str = ""
    creator: str = ""
    base_models: tuple[str, ...] = ()
    downloads: int | None = None
    nsfw: bool = False
    nsfw_level: int = 0  # OR of the bits of PreviewImage.nsfw_level
    tags: tuple[str, ...] = ()
    url: str = ""  # the page, for people
    versions: tuple[Version, ...] = ()  # newest first
    mode: str = ""  # "", "Archived", "TakenDown", "Gated"
    license: License = License()
    description: str = ""  # plain text
    raw: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)  # as GET /models/{id}


@dataclass(frozen=True, slots=True)
class Query:
    """A search."""

    text: str = ""
    types: tuple[str, ...] = LORA_TYPES
    base_models: tuple[str, ...] = ()
    tag: str = ""
    creator: str = ""
    sort: Sort = "relevance"
    period: str = "AllTime"
    nsfw: Nsfw = "none"
    limit: int = 20
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Models in the hub's order; `next_cursor` is None at the end."""

    models: tuple[Model, ...]
    next_cursor: str | None = None
    failures: tuple[HubtoolError, ...] = ()  # of hubs that were searched together with others


@dataclass(frozen=True, slots=True)
class Found:
    """What a SPEC names: a model, and the version and file if the SPEC says which."""

    model: Model
    version: Version | None = None
    file: RemoteFile | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """One file that can be downloaded, with everything the hub says about it."""

    hub: str
    model: Model
    version: Version
    file: RemoteFile

    def every_file(self) -> tuple[Resolved, ...]:
        """The same for each file of the version."""
        return tuple(replace(self, file=file) for file in self.version.files)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file by its hashes, lower case."""

    sha256: str
    autov3: str = ""  # of the tensors alone


@dataclass(frozen=True, slots=True)
class Match:
    """A version that has a file with a hash."""

    sha256: str  # of the file that was asked for
    model_id: Id
    version_id: Id
    hub: str = ""
    kind: str = "sha256"  # of the hash by which it was found
    found: Found | None = None  # what the hub says of it, where it said so in the same breath


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that is complete, checked and at its final name."""

    path: Path
    size_bytes: int
    sha256: str  # computed from the bytes, lower case
    verified: bool  # False only where the hub published no hash (or the check was declined)
    resumed_from: int  # bytes that an earlier, interrupted run had left; 0 if there were none
    status: Status


class Catalogue(Protocol):
    """One remote place. Every method may raise any `HubProblem`."""

    @property
    def name(self) -> str:
        """The name or base URL under which the user chose it."""

    @property
    def ids(self) -> str:
        """Whose numbers its model ids are: Civitai's archive counts as Civitai does."""

    @property
    def client(self) -> Client:
        """The connection, which holds the token."""

    def search(self, query: Query) -> SearchPage:
        """One page of at most `query.limit` models, filled up over empty pages of the hub."""

    def look_up(self, wanted: Spec) -> Found:
        """The model that a SPEC names, downloadable or not; BadSpec for a form that it does not understand."""

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file to fetch: `wanted` is an id or a name, default the one that is meant; perhaps after a look at it."""


class Hub(Protocol):
    """What the rest of the program asks. Every method may raise any `HubProblem`."""

    @property
    def name(self) -> str:
        """The name or base URL of the hub that is asked first."""

    @property
    def client(self) -> Client:
        """The connection to the hub that is asked first."""

    def client_for(self, resolved: Resolved) -> Client:
        """The connection over which a file is fetched; `transfer.download` goes through it."""

    def search(self, query: Query) -> SearchPage:
        """One page of at most `query.limit` models, filled up over empty pages of the hub."""

    def model(self, model_id: Id) -> Model:
        """One model with all its versions."""

    def version(self, version_id: Id) -> Version:
        """One version with its files."""

    def by_hash(self, hexadecimal: str) -> Version:
        """The oldest version that has a file with this hash of any kind; NotFound if there is none."""

    def find(self, spec: str) -> Found:
        """The model that a SPEC names, downloadable or not."""

    def resolve(self, spec: str, wanted: str = "") -> Resolved:
        """The file that a SPEC names; `wanted` is a file's id or name, default the primary file."""

    def identify(self, wanted: Sequence[Fingerprint]) -> Identities:
        """Whose many files are, by SHA-256; what was unknown a few days ago is not asked again."""

    def check(self, resolved: Resolved) -> None:
        """Raise what a download would be refused with (EarlyAccess, NeedsToken), as far as the hub tells beforehand."""

    def pictures(self, found: Found, nsfw: Nsfw, limit: int) -> list[PreviewImage]:
        """Pictures and videos that people made with a version, none more explicit than `nsfw`."""

    def elsewhere(self, resolved: Resolved) -> list[Resolved]:
        """The same file, by its hash, wherever else it is known."""

    def abort(self) -> None:
        """Make every transfer in progress fail at once, from another thread."""


def pictures_within(images: Sequence[PreviewImage], nsfw: str) -> list[PreviewImage]:
    """Those that are no more explicit than a level of ALLOWED_LEVELS; unrated ones pass."""
    allowed = ALLOWED_LEVELS.get(nsfw, 0)
    return [image for image in images if image.nsfw_level & ~allowed == 0]


def choose_file(version: Version, wanted: str = "") -> RemoteFile:
    """The file of a version that is asked for by id or name, else the one a user of adapters wants.

    Without `wanted`: the primary file if it is safetensors, else the first safetensors model file.

    Raises:
        NotFound: the version has no files (archived), or none called so.
        AmbiguousSpec: several are equally likely to be meant.
        UnsafeFile: only pickles are offered.
    """
    if wanted:
        return _named(version, wanted)
    if not version.files:
        raise NotFound(
            f"Version {version.id} has no files: it was archived or taken down.",
            hint="Look for another version with `hubtool info`.",
        )
    if version.must_choose:
        raise AmbiguousSpec(
            f"Version {str(version.id)[:12]} has several files that could be meant.",
            hint=f"Choose one with `--file`: {_names(version.files)}.",
        )
    ranked = sorted(version.files, key=_rank, reverse=True)
    if is_pickle_name(ranked[0].name, ranked[0].format):
        raise UnsafeFile(
            f"Version {version.id} offers only pickled files ({ranked[0].name}), which can run code when loaded.",
            hint="Ask the creator for a .safetensors file, or take another version.",
        )
    return ranked[0]


def is_pickle_name(name: str, declared_format: str = "") -> bool:
    """Whether a file is announced as a pickle, by its extension or by its uploader."""
    if name.lower().endswith(".safetensors"):
        return False
    return declared_format == "PickleTensor" or name.lower().endswith((".pt", ".pth", ".ckpt", ".bin", ".pkl"))


def _rank(file: RemoteFile) -> tuple[bool, bool, bool]:
    safe = file.name.lower().endswith(".safetensors") or file.format == "SafeTensor"
    return safe, file.primary, file.type in {"Model", "Pruned Model"}


def _named(version: Version, wanted: str) -> RemoteFile:
    by_id = [file for file in version.files if str(file.id) == wanted]
    by_name = [file for file in version.files if file.name == wanted]
    for matches in (by_id, by_name):
        if matches:
            return matches[0]
    raise NotFound(f"Version {version.id} has no file {wanted}.", hint=f"Its files: {_names(version.files)}.")


def _names(files: Sequence[RemoteFile]) -> str:
    shown = [f"{file.name} ({file.id})" if str(file.id) != file.name else file.name for file in files[:_SHOWN_FILES]]
    more = len(files) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])]) or "none"


def newest(model: Model) -> Version:
    """The newest version that has files.

    Raises:
        NotFound: none has.
    """
    version = next((version for version in model.versions if version.files), None)
    if version is None:
        state = f" (it is {model.mode})" if model.mode else ""
        raise NotFound(f"Model {model.id} offers no file to download{state}.", url=model.url)
    return version
