"""LoRAs inside a zip: only the safetensors members, by their last name, never more bytes than announced, each checked again.

Some creators wrap a LoRA in an archive. The hash that the hub publishes is then the archive's; the members are proved by their
own structure and by the archive's checksums.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from typing import TYPE_CHECKING

from hubtool.errors import FileProblem, WrongFile
from hubtool.formats.atomic import reraise
from hubtool.formats.safetensors import read_safetensors
from hubtool.hubs.hub import Downloaded
from hubtool.hubs.names import SAFETENSORS, final_name, numbered
from hubtool.hubs.part import Part

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.hubs.hub import RemoteFile

MAX_MEMBERS = 200
MAX_RATIO = 100  # of a member's size to its compressed size: weights hardly compress
_BLOCK = 1 << 20


def is_wrapped(file: RemoteFile) -> bool:
    """Whether a file of a hub is an archive that stands for the model itself, not for what it was trained on.

    >>> from hubtool.hubs.hub import RemoteFile
    >>> is_wrapped(RemoteFile("1", "style.zip", "")), is_wrapped(RemoteFile("1", "style.zip", "", type="Training Data"))
    (True, False)
    """
    return file.name.lower().endswith(".zip") and file.type in {"Model", "Pruned Model", "Archive", ""}


def unpack(archive: Path, folder: Path, *, verified: bool) -> list[Downloaded]:
    """Bring the LoRAs of a complete archive into a folder; nothing is overwritten. `verified`: the archive had the promised hash.

    Raises:
        WrongFile: it is no zip, is damaged, encrypted or a bomb, or holds no safetensors file, or a broken one.
        StorageProblem: the disk refuses.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return [_extracted(opened, member, folder, verified=verified) for member in _members(opened, archive.name)]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise WrongFile(f"{archive.name} is no readable zip archive: {type(error).__name__}.") from error
    except OSError as error:
        reraise(error, archive)


def _members(opened: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """The members to extract."""
    # macOS adds shadows of every file
    wanted = [
        member
        for member in opened.infolist()
        if not member.is_dir() and member.filename.lower().endswith(SAFETENSORS) and not _is_shadow(member.filename)
    ]
    if not wanted:
        raise WrongFile(f"{name} holds no safetensors file.", hint="Open the model's page to see what it is.")
    if len(wanted) > MAX_MEMBERS:
        raise WrongFile(f"{name} holds {len(wanted)} files, more than {MAX_MEMBERS}.")
    for member in wanted:
        if member.flag_bits & 0x1:
            raise WrongFile(f"{name} is locked with a password.", hint="Unpack it by hand, then install the file.")
        if member.file_size > MAX_RATIO * max(member.compress_size, 1) + _BLOCK:
            raise WrongFile(f"{name} claims to unpack to {member.file_size} bytes from {member.compress_size}.")
    return wanted


def _is_shadow(path: str) -> bool:
    return path.startswith("__MACOSX/") or re.split(r"[/\\]", path)[-1].startswith("._")


def _extracted(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, *, verified: bool) -> Downloaded:
    name = final_name([member.filename], "unpacked", (SAFETENSORS,))
    part = Part(folder, f"member {opened.filename} {member.filename} {member.CRC} {member.header_offset}")
    part.open(resume=False)
    try:
        with opened.open(member) as stream:
            while block := stream.read(_BLOCK):  # never more than announced; a wrong checksum is an error
                part.write(block)
        read_safetensors(part.path)
        part.sync()
        size, digest = part.size, part.sha256
        mark = hashlib.sha256(member.filename.encode("utf-8", "replace")).hexdigest()[:6]
        places = [folder / name, folder / numbered(name, digest[:8]), folder / numbered(name, f"{digest[:8]}{mark}")]
        path, is_new = part.publish(places)
    except FileProblem as error:
        part.discard()
        raise WrongFile(f"{name} inside the archive is damaged: {str(error).replace(part.path.name, name)}") from error
    except (zipfile.BadZipFile, zlib.error):
        part.discard()
        raise
    finally:
        part.close()
    return Downloaded(path, size, digest, verified, 0, "downloaded" if is_new else "present")
