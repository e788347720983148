"""What a file's header says, in the words of the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.formats.hashing import embedded_hash
from hubtool.library.record import Facts
from hubtool.operations.inspect import Inspection, inspect

if TYPE_CHECKING:
    from pathlib import Path


def read_facts(path: Path) -> Facts:
    """Read the header only; a file that cannot be read has facts too: its problem."""
    try:
        return facts_of(inspect(path))
    except HubtoolError as error:
        return Facts(kind="other", problem=str(error))


def facts_of(found: Inspection) -> Facts:
    """What the index keeps of an inspection."""
    return Facts(
        kind=found.kind,
        architecture=found.architecture,
        dialect=found.dialect,
        parametrizations=tuple(found.parametrizations),
        base_model=found.base_model or "",
        title=found.title or "",
        trigger_words=found.trigger_words,
        alias=found.metadata.get("ss_output_name", ""),
        embedded_hash=embedded_hash(found.metadata) or "",
    )
