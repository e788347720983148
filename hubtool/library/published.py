"""The files of a version as its hub published them, and the command that puts one back where it lay."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from hubtool.library.naming import file_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.library.record import Installed, Origin


class Published(NamedTuple):
    """One file of a version; what the hub did not say is empty."""

    id: str
    name: str
    size_bytes: float | None  # hubs count kilobytes, so that it may be off by less than one
    sha256: str  # lower-case hex
    autov3: str

    def has_size(self, size_bytes: int) -> bool:
        """Whether a file of so many bytes can be this one; where the hub says no size, any can."""
        return self.size_bytes is None or abs(self.size_bytes - size_bytes) < 1024


def published_files(origin: Origin | None) -> list[Published]:
    """The files of the version that have a SHA-256, by the hub's record; the origin needs its snapshot."""
    listed = origin.snapshot.get("files") if origin else None
    files = [_file(entry) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [file for file in files if file.sha256]


def _file(entry: Mapping[str, object]) -> Published:
    hashes, size = entry.get("hashes"), entry.get("sizeKB")
    return Published(
        id=str(entry.get("id") or ""),
        name=str(entry.get("name") or ""),
        size_bytes=size * 1024 if isinstance(size, (int, float)) and size else None,
        sha256=_digits(hashes, "SHA256"),
        autov3=_digits(hashes, "AutoV3"),
    )


def _digits(hashes: object, kind: str) -> str:
    digits = hashes.get(kind) if isinstance(hashes, dict) else None
    return digits.lower() if isinstance(digits, str) else ""


def fetch_again(model: Installed) -> str:
    """The command that puts the hub's file back at the model's place, which needs the origin's snapshot; else a sentence."""
    origin = model.origin
    spec = _spec(model, origin) if origin else ""
    converted = bool(origin and origin.source_sha256)
    # another extension, or a name that an installation would make legal, would come to lie beside it
    if not origin or not spec or file_name(model.name) != model.path.name or (converted and not model.facts.dialect):
        if origin and origin.url:
            return f"Get the file again from {origin.url}, and put it at its place by hand."
        return "Get the file again from where it came; nothing here knows how."
    words = ["hubtool", "install", *spec.split(), "--target", model.target, "--to", str(model.path.parent)]
    words += ["--name", model.name, "--force"]
    words += ["--convert", str(model.facts.dialect)] if converted else []
    words += ["--hub", origin.hub] if origin.hub and origin.hub != "civitai" else []
    return shlex.join(words)


def _spec(model: Installed, origin: Origin) -> str:
    """By the hash of its bytes where the hub published it: a sidecar may not say whose numbers its ids are."""
    if origin.source_sha256:
        return f"sha256:{origin.source_sha256}"
    wanted = _meant(model, origin, published_files(origin))
    if wanted:
        return f"sha256:{wanted.sha256}"
    file = f" --file {origin.file_id}" if origin.file_id.isdecimal() else ""
    return f"v:{origin.version_id}{file}" if origin.hub and origin.version_id.isdecimal() else ""


def _meant(model: Installed, origin: Origin, files: Sequence[Published]) -> Published | None:
    """Which file of the version the model is: by what is known for certain, then by name, then by size."""
    if len(files) == 1:
        return files[0]
    alike = (
        [file for file in files if file.sha256 == model.digests.sha256],
        [file for file in files if file.id and file.id == origin.file_id],
        [file for file in files if file.name == model.path.name],
        [file for file in files if file.has_size(model.stamp.size_bytes)],
    )
    return next((found[0] for found in alike if found), None)
