"""Which LoRAs a picture, a workflow or a text used, and which of them are here.

A hash says more than a name: it is looked up first, among all hashes that are known, and a file that has the name but not
the hash is another file. Files whose hashes nobody computed yet are hashed when their name is asked for.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import FileMissing, HubtoolError, StorageProblem
from hubtool.library import generators
from hubtool.library.digest import hashed
from hubtool.library.mention import is_of_name, stem
from hubtool.library.picture_texts import picture_texts
from hubtool.library.resolve import Names
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.target import choose_place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.library.acquire import Outcome
    from hubtool.library.index import Index
    from hubtool.library.mention import Generator, Mention
    from hubtool.library.record import Installed
    from hubtool.settings import Settings

MAX_BYTES = 512 << 20  # of a picture; beyond that it is a video or none
_ORDER = ("swarmui", "invokeai", "fooocus", "comfyui", "infotext")  # the particular before the general
_DIALECTS = {"comfyui": "comfyui", "swarmui": "swarmui", "fooocus": "fooocus"}


@dataclass(frozen=True, slots=True)
class ImageReference:
    """One LoRA that was used; the fields are the contract's."""

    name: str
    hash: str | None
    weight: float
    text_encoder: float | None  # None: the same
    status: str  # have, renamed, missing (a hub can be asked), unknown (only a name is known)
    matched: str | None  # by hash or by name
    path: Path | None
    spec: str | None  # what `install` takes
    note: str = ""
    section: str = ""  # the number of SwarmUI's section that it is for; empty: all


@dataclass(frozen=True, slots=True)
class Completed:
    """References after an attempt to install what was missing."""

    references: list[ImageReference]
    asked: int = 0  # SPECs
    errors: tuple[HubtoolError, ...] = ()  # of those that could not be had


@dataclass(frozen=True, slots=True)
class Reading:
    """What one input says."""

    program: str  # id of the generator
    mentions: tuple[Mention, ...]


@functools.cache
def all_generators() -> Mapping[str, Generator]:
    """Every program whose pictures are read, by id, in the order in which they are tried."""
    found = {
        module.name: importlib.import_module(f"{generators.__name__}.{module.name}").GENERATOR
        for module in pkgutil.iter_modules(generators.__path__)
    }
    return {id: found[id] for id in (*_ORDER, *sorted(set(found) - set(_ORDER)))}


def read_input(text: str) -> Reading:
    """The LoRAs of a file (picture, workflow JSON, text), or of the text itself.

    Raises:
        FileMissing: it looks like a path and nothing is there. StorageProblem: the file cannot be read, or is too large.
        HubtoolError: nothing in it says how a picture was made.
    """
    if "\n" in text or "<" in text or len(text) > 255 or text.lstrip().startswith("{"):
        return read_text(text)
    path = Path(text)
    if not path.is_file():
        raise FileMissing(path, f"There is no file {path}.")
    return _read(_texts_of(path), str(path))


def read_text(text: str) -> Reading:
    """The LoRAs of a prompt, an infotext or a workflow.

    Raises:
        HubtoolError: nothing in it says how a picture was made.
    """
    return _read({"text": text}, "the text")


def _read(texts: Mapping[str, str], where: str) -> Reading:
    for generator in all_generators().values():
        mentions = generator.read(texts)
        if mentions is not None:
            return Reading(generator.id, tuple(mentions))
    raise HubtoolError(
        f"Nothing in {where} says which LoRAs were used.",
        hint="Chat programs and many sites strip this from pictures; ask for the original file.",
    )


def _texts_of(path: Path) -> Mapping[str, str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StorageProblem(path, f"is larger than {MAX_BYTES >> 20} MiB: no picture")
        body = path.read_bytes()
    except OSError as error:
        raise StorageProblem(path, error.strerror or "cannot be read") from error
    texts = picture_texts(body)
    if not texts and b"\0" not in body[:4096]:  # a workflow or an infotext; or anything else, as comments are
        return {"UserComment": body.decode("utf-8-sig", "replace")}
    return texts


def resolve_all(index: Index, reading: Reading, names: Names | None = None) -> list[ImageReference]:
    """Every LoRA of a reading against the library; `names` are its names, if somebody made the table before."""
    names = names or Names(index.labels())
    return [_resolved(index, names, mention, _DIALECTS.get(reading.program, "a1111")) for mention in reading.mentions]


def _resolved(index: Index, names: Names, mention: Mention, dialect: str) -> ImageReference:
    is_false = is_of_name(mention.hash, mention.name)
    mention = replace(mention, hash="") if is_false else mention
    bare = ImageReference(
        name=mention.name,
        hash=mention.hash or None,
        weight=mention.weight,
        text_encoder=mention.text_encoder,
        status="unknown",
        matched=None,
        path=None,
        spec=mention.spec or hash_spec(mention.hash, mention.hash_kind),
        note="Its hash is one of the file's name, as Forge wrote them for a time: no evidence." if is_false else "",
        section=mention.section,
    )
    same = _with_hash(index, mention)
    if same:
        named = [one for one in same if one.name == stem(mention.name)]
        found = (named or same)[0]
        return replace(bare, status="have" if named else "renamed", matched="hash", path=found.path)
    label = names.find(mention.name, dialect) or names.find(stem(mention.name), "a1111")
    found_by_name = index.at(Path(label.path)) if label else None
    if found_by_name is None:
        return replace(bare, status="missing" if bare.spec else "unknown")
    if mention.hash and not _has_hash(index, found_by_name, mention.hash):
        return replace(bare, status="missing", note=f"{found_by_name.path} has the name, but other content.")
    return replace(bare, status="have", matched="hash" if mention.hash else "name", path=found_by_name.path)


def hashes_unknown(index: Index) -> str:
    """A hint for who looks for something by its hash in vain: that nobody computed the hashes of some files; else empty."""
    count = index.count_unhashed()
    if not count:
        return ""
    files = "The hash of one file is" if count == 1 else f"The hashes of {count} files are"
    return f"{files} not known yet, so that a renamed one may be among what is missing: `hubtool verify --full` computes them."


def _with_hash(index: Index, mention: Mention) -> list[Installed]:
    """The files that have its hash. Eight digits are too few for a stranger: some kinds of that length repeat (AutoV1)."""
    found = index.with_short_hash(mention.hash) if mention.hash else []
    if len(mention.hash) > 8:
        return found
    return [one for one in found if one.name == stem(mention.name) or one.digests.sha256.startswith(mention.hash)]


def _has_hash(index: Index, found: Installed, digits: str) -> bool:
    """Whether a file has a hash that begins so, computed now if it never was."""
    hashed(index, found)
    return any(one.path == found.path for one in index.with_short_hash(digits))


def hash_spec(digits: str, kind: str = "") -> str | None:
    """What a hub can be asked for by a hash of this kind, else of this length (facts: Civitai's kinds); None if by none.

    >>> hash_spec("0123456789ab"), hash_spec("0123456789ab" * 5, "tensors_sha256")
    ('autov3:0123456789ab', 'autov3:0123456789ab')
    """
    if kind == "tensors_sha256":  # no hub is asked for the whole of it
        digits = digits[:12]
    kinds = {10: "autov2", 12: "autov3", 64: "blake3" if kind == "blake3" else "sha256"}
    return f"{kinds[len(digits)]}:{digits}" if len(digits) in kinds else None


def installed_missing(
    settings: Settings, references: Sequence[ImageReference], say: Callable[[str], None]
) -> Completed:
    """The references after everything that is missing was installed into the configured target.

    What cannot be had is noted, and does not stop the others.
    """
    from hubtool.library.acquire import Order, acquire  # noqa: PLC0415  # 0.2 s of HTTP that only this needs
    from hubtool.library.install import Wish  # noqa: PLC0415

    wanted = dict.fromkeys(one.spec for one in references if one.status == "missing" and one.spec)
    if not wanted:
        return Completed(list(references))
    place = choose_place(settings)
    order = Order(place, Wish(sidecars=choose_sidecars(None, place.target.sidecars)))
    outcomes = {outcome.spec: outcome for outcome in acquire(settings, wanted, order, say)}
    after = [_after(reference, outcomes.get(reference.spec or "")) for reference in references]
    errors = tuple(outcome.error for outcome in outcomes.values() if outcome.error)
    return Completed(after, len(wanted), errors)


def install_named(index: Index, settings: Settings, text: str, say: Callable[[str], None]) -> Completed:
    """Install what a text names by a hash and nobody has here; what cannot be had, or has no hash, is said."""
    done = installed_missing(settings, resolve_all(index, read_text(text)), say)
    for one in done.references:
        if one.status == "renamed" and one.path:
            say(f"{one.name} is {one.path.stem} here; `hubtool prompt relink` puts that name into the prompt.")
        elif one.note:
            say(f"{one.name}: {one.note}")
        elif one.status == "unknown":
            say(f"{one.name}: only a name is known, which is no reason to fetch a file.")
    return done


def _after(reference: ImageReference, outcome: Outcome | None) -> ImageReference:
    if outcome is None or reference.status != "missing":
        return reference
    if outcome.error or outcome.installation is None:
        return replace(reference, note=str(outcome.error))
    path = outcome.installation.path
    same_name = path.stem == stem(reference.name)
    return replace(
        reference, status="have" if same_name else "renamed", matched="hash", path=path, note="Installed now."
    )
