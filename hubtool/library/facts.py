"""What a file's header says, in the words of the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import FileProblem, StorageProblem
from hubtool.formats.hashing import embedded_hash
from hubtool.formats.safetensors import read_safetensors
from hubtool.library.record import Facts

if TYPE_CHECKING:
    from pathlib import Path


def read_facts(path: Path) -> Facts:
    """Read the header only; a file that cannot be read has facts too: its problem."""
    try:
        metadata = read_safetensors(path).metadata
    except (FileProblem, StorageProblem) as error:
        return Facts(kind="other", problem=str(error))
    return Facts(
        title=metadata.get("modelspec.title", ""),
        alias=metadata.get("ss_output_name", ""),
        embedded_hash=embedded_hash(metadata) or "",
    )
