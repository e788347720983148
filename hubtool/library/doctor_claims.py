"""Rules of `doctor` about what is said of files and is not so: base models, hashes, names that programs read otherwise."""

from __future__ import annotations

import time
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.formats.hashing import is_empty_hash
from hubtool.hubs.names import is_reserved
from hubtool.library.companions import MODELS
from hubtool.library.journal import TRASH
from hubtool.library.litter import HIDDEN
from hubtool.library.problem import LibraryFinding, quoted, renaming
from hubtool.library.sidecar import all_sidecars, read_table
from hubtool.operations.base_models import architectures_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hubtool.library.record import Folder, Installed

DAY_S = 24 * 3600.0
#: What people call folders, besides the names that hubs use.
_NICKNAMES: Mapping[str, str] = {
    "sd": "sd1", "sd15": "sd1", "sd1.5": "sd1", "sd 1": "sd1", "sd1": "sd1", "sd2": "sd2", "sd21": "sd2",
    "xl": "sdxl", "sdxl": "sdxl", "sdxl1": "sdxl", "ponyxl": "sdxl", "pdxl": "sdxl", "il": "sdxl", "ilxl": "sdxl",
    "flux": "flux1", "flux1": "flux1", "flux.1": "flux1", "flux dev": "flux1", "flux1d": "flux1", "sd3": "sd3-medium",
    "wan": "wan-14b", "wan2.1": "wan-14b", "wan2.2": "wan-14b", "qwen": "qwen-image", "hunyuan": "hunyuanvideo",
}  # fmt: skip
#: Architectures of one family are not told apart here: partial files fit several of them.
_FAMILIES = ("flux2", "sd3", "sdxl", "wan", "ltx", "hunyuan", "cogvideox", "pixart", "qwen")
_KIN: Mapping[str, str] = {
    "sd1": "sd",
    "sd2": "sd",
    "ssd-1b": "sdxl",
    "flux1": "flux",
    "chroma": "flux",
    "bria-fibo": "flux",
}


def wrong_base(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Files whose folder, or hub, names another base model than the one that their tensors fit."""
    for one in files:
        fits = one.facts.architecture
        if fits and (claim := next((text for name, text in _claims(folder, one) if _contradicts(name, fits)), "")):
            message = f"{one.name} {claim}, but its tensors fit {fits}."
            fix = f"hubtool organize {quoted(one.path)} --template {{architecture}}"
            yield LibraryFinding("wrong_base", "warning", one.path, message, fix)


def _claims(folder: Folder, one: Installed) -> Iterator[tuple[str, str]]:
    """Names of base models that somebody says, and how to say that."""
    for part in one.path.parents:
        if folder.path in part.parents:
            yield part.name, f"lies in the folder {part.name}"
    if one.origin and one.origin.base_model:
        yield one.origin.base_model, f"is for {one.origin.base_model}, as its hub says"


def _contradicts(name: str, architecture: str) -> bool:
    meant = _meant(name)
    return bool(meant) and _family(architecture) not in {_family(each) for each in meant}


def _meant(name: str) -> tuple[str, ...]:
    """The architectures that a folder's name means; none for most names."""
    folded = " ".join(name.casefold().replace("_", " ").split())
    if folded in _NICKNAMES:
        return (_NICKNAMES[folded],)
    try:
        return architectures_of(name)
    except UsageProblem:
        return ()


def _family(architecture: str) -> str:
    return _KIN.get(architecture) or next((one for one in _FAMILIES if architecture.startswith(one)), architecture)


def bogus_hashes(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Headers that state the hash of nothing: pictures then cite a hash that thousands of other files have, too."""
    del folder
    for one in files:
        if is_empty_hash(one.facts.stated_hash.lower().removeprefix("0x")):
            message = (
                f"The header of {one.name} states the hash of nothing; pictures made with it cite a file that is none."
            )
            fix = f"hubtool normalize {quoted(one.path)} --in-place"
            yield LibraryFinding("bogus_hash", "warning", one.path, message, fix)


def dotted(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Names with dots, in one finding: some programs take what follows for an extension, SD.Next writes `_` for them."""
    names = [one.name for one in files if "." in one.name]
    double = [one for one in files if f".{one.name.rpartition('.')[2].lower()}" in MODELS]
    for one in double:
        message = (
            f"{one.path.name} has two extensions; prompts need {one.name}, and most programs look for another name."
        )
        yield LibraryFinding("dotted", "warning", one.path, message, renaming(one.path))
    if names and folder.target in {"sdnext", "comfyui"}:
        message = (
            f"{names[0]} has dots{f', as {len(names) - 1} more have' if names[1:] else ''}; SD.Next's prompts spell them with _, "
            "and some nodes of ComfyUI take what follows for an extension."
        )
        yield LibraryFinding(
            "dotted", "warning", folder.path, message, "Write such names with their extension, or rename them."
        )


def broken_sidecars(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Sidecars that hold no JSON object: programs pass them over, or fail, and we complete none."""
    del folder
    for one in files:
        for path in dict.fromkeys(sidecar.path(one.path) for sidecar in all_sidecars().values()):
            if path.is_file() and read_table(path) is None:
                message = f"{path.name} holds no JSON object; nothing in it is read, and nothing is added to it."
                yield LibraryFinding("sidecar", "warning", path, message, "Correct it by hand, or delete it.")


def case_twins(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Files of one folder whose names differ in case or accents' spelling only: one of them is lost on other systems."""
    del folder
    groups: dict[tuple[object, str], list[Installed]] = defaultdict(list)
    for one in files:
        groups[one.path.parent, unicodedata.normalize("NFC", one.path.name).casefold()].append(one)
    for group in groups.values():
        for one in group[1:]:
            message = f"Windows and macOS take {one.path.name} and {group[0].path.name} for one file."
            yield LibraryFinding("case_twins", "warning", one.path, message, renaming(one.path))


def reserved(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Windows' device names, and names that are too long for a sidecar beside them."""
    del folder
    for one in files:
        if is_reserved(one.path.name):
            message = f"{one.path.name} is the name of a device to Windows."
        elif len(one.path.name.encode("utf-8", "surrogateescape")) > 240:
            message = (
                f"The name {one.name[:40]}… leaves no room for those of its sidecars: file systems stop at 255 bytes."
            )
        else:
            continue
        yield LibraryFinding("unportable", "warning", one.path, message, renaming(one.path))


def unfinished(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Downloads that were broken off and not gone on with for a day."""
    del files
    for path in sorted(folder.path.glob(f"{HIDDEN}*")) if folder.path.is_dir() else ():
        old = time.time() - path.lstat().st_mtime > DAY_S
        if old and path.is_dir() and path.name != TRASH:
            size = sum(each.stat().st_size for each in path.iterdir() if each.is_file())
            message = f"A download was broken off here; it takes up {size} bytes."
            yield LibraryFinding(
                "unfinished", "warning", path, message, "Install the file again, or delete the folder."
            )
