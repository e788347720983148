"""How an entry of the lock comes about: from what a hub says, from the file that is there, or from a plan to install it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hubtool.errors import UsageProblem
from hubtool.hubs.addresses import Reach, literal_reach, origin_if_any, shareable
from hubtool.library.licenses import license_in
from hubtool.library.lockfile import Locked
from hubtool.library.naming import file_name, subfolder
from hubtool.library.origins import origin_of
from hubtool.library.record import Facts

if TYPE_CHECKING:
    from hubtool.hubs.hub import Resolved
    from hubtool.library.install import Installation
    from hubtool.library.manifest import Wanted
    from hubtool.library.record import Installed


def wish_of(entry: Wanted) -> str:
    """What the lock must answer: everything of an entry that decides which bytes lie where."""
    choices = {"file": entry.file, "convert": entry.convert, "subdir": entry.subdir}
    return " ".join([shareable(entry.spec), *(f"{key}={value}" for key, value in choices.items() if value)])


def from_hub(entry: Wanted, found: Resolved, sha256: str) -> Locked:
    """The entry for a file that a hub describes with its hash, and that need not be here.

    Raises:
        UsageProblem: its name or subdir cannot be one.
    """
    origin = origin_of(found)
    return Locked(
        name=entry.name,
        wish=wish_of(entry),
        path=_path_of(entry),
        sha256=sha256,
        size_bytes=found.file.size_bytes or 0,
        spec=_exact(entry.spec, found.hub, str(found.version.id)),
        hub=_elsewhere(found.hub),
        file_id=str(found.file.id),
        url=_elsewhere(origin.url),
        base_model=found.version.base_model,
        model=found.model.name,
        creator=found.model.creator,
        license=license_in(origin.snapshot),
    )


def from_file(entry: Wanted, model: Installed, inside: str) -> Locked:
    """The entry for a file that is there, `inside` being its path below the LoRA folder."""
    origin, facts = model.origin, model.facts
    source = origin.source_sha256 if origin else ""
    version = origin.version_id if origin else ""
    return Locked(
        name=entry.name,
        wish=wish_of(entry),
        path=inside,
        sha256=model.digests.sha256,
        size_bytes=model.stamp.size_bytes,
        spec=_exact(entry.spec, origin.hub, version) if origin and version else "",
        hub=_elsewhere(origin.hub) if origin else "",
        file_id=origin.file_id if origin else "",
        url=_elsewhere(origin.url) if origin else "",
        converted=(entry.convert or facts.dialect or "") if source else "",
        source_sha256=source,
        architecture=facts.architecture or "",
        base_model=model.base_model,
        model=origin.model_name if origin else "",
        creator=origin.creator if origin else "",
        license=license_in(origin.snapshot) if origin else "",
    )


def from_plan(entry: Wanted, plan: Installation, inside: str) -> Locked:
    """What is known of an entry before its file is here: no size, and perhaps no hash. Never to be written down."""
    return Locked(
        name=entry.name,
        wish=wish_of(entry),
        path=inside,
        sha256="" if entry.convert else plan.sha256 or "",
        size_bytes=0,
        hub=plan.hub or "",
        file_id=str(plan.file_id or ""),
        architecture=plan.architecture or "",
    )


def _path_of(entry: Wanted) -> str:
    """Where an installation would put it."""
    name = file_name(entry.name)
    if name is None:
        raise UsageProblem(f"This cannot be the name of a file: {entry.name!r}", hint="Give it another in loras.toml.")
    return (PurePosixPath(subfolder(entry.subdir, None, Facts())) / name).as_posix()


def _exact(spec: str, hub: str, version: str) -> str:
    """A SPEC that means this very version: what was typed, where ids are not numbers."""
    return f"v:{version}" if version.isdecimal() and hub else shareable(spec)


def _elsewhere(url: str) -> str:
    """An address, or a hub's name, as far as it means something on other machines: this one's own addresses do not."""
    host = urlsplit(origin_if_any(url)).hostname or ""
    return "" if literal_reach(host) is Reach.LOCAL else url
