"""What a safetensors file on a hub is, by its header alone: two small range requests instead of gigabytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hubtool.errors import HubProblem
from hubtool.naming.suffixes import split_key

if TYPE_CHECKING:
    from hubtool.hubs.client import Client
    from hubtool.hubs.hub import RemoteFile

_FIRST_BYTES = 1 << 16  # most headers of LoRAs fit, or nearly
_MAX_HEADER_BYTES = 8 << 20  # more is no LoRA's
#: Endings that keys of checkpoints have as well.
_COMMON = {".weight", ".scale", ".up.weight", ".down.weight"}


def remote_keys(client: Client, file: RemoteFile) -> frozenset[str]:
    """The names of a remote file's tensors; empty if its beginning is no safetensors header.

    Raises:
        HubProblem: the storage refuses, or sends whole files only.
    """
    length = file.size_bytes or _FIRST_BYTES
    start = client.get_range(file.url, 0, min(_FIRST_BYTES, length))
    header_bytes = int.from_bytes(start[:8], "little")
    if len(start) < 10 or not 2 <= header_bytes <= _MAX_HEADER_BYTES:
        return frozenset()
    text = start[8 : 8 + header_bytes]
    if len(text) < header_bytes:
        text += client.get_range(file.url, len(start), header_bytes - len(text))
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(table) - {"__metadata__"} if isinstance(table, dict) else frozenset()


def is_adapter(client: Client, file: RemoteFile) -> bool:
    """Whether a remote file is of the LoRA family; a storage that does not show the header is believed.

    Raises:
        HubProblem: the file cannot be had at all.
    """
    try:
        keys = remote_keys(client, file)
    except HubProblem as error:
        if error.code == "bad_answer":
            return True
        raise
    return any(_is_adapters(key) for key in keys)


def _is_adapters(key: str) -> bool:
    if "lora" in key.lower():
        return True
    split = split_key(key)
    return split is not None and split.suffix not in _COMMON
