"""A LoRA that a picture, a workflow or a text says was used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_OF_NOTHING = hashlib.sha256(b"").hexdigest()[:8]
EXTENSIONS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class Mention:
    """One use; what the source does not say is empty."""

    name: str  # as it stands there: a stem, a path, an alias
    weight: float = 1.0  # strength of the denoiser
    text_encoder: float | None = None  # its own strength, where one is given
    hash: str = ""  # hex digits of any kind, lower case, without 0x
    spec: str = ""  # how to ask a hub for it: v:ID, an address
    hash_kind: str = ""  # where the source says it: sha256, blake3, or tensors_sha256; else the length tells
    section: str = ""  # the part of the picture or of the work that it is for; empty: all


@dataclass(frozen=True, slots=True)
class Generator:
    """A program that writes into its pictures how they were made; one file of `hubtool.library.generators` each."""

    id: str
    source: str  # where the facts were read
    read: Callable[
        [Mapping[str, str]], list[Mention] | None
    ]  # texts of a picture → its LoRAs; None: not this program's


def json_of(text: str | None) -> object:
    """The JSON in a text; None if it is none."""
    if not text or text.lstrip()[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # a picture may hold anything
        return None


def hex_digits(text: object) -> str:
    """A hash as we compare it; empty if it is none, or that of nothing, which a trainer wrote into every file.

    >>> hex_digits("0xABCDEF0123"), hex_digits("E3B0C44298FC")
    ('abcdef0123', '')
    """
    digits = text.lower().strip().removeprefix("0x") if isinstance(text, str) else ""
    is_hash = 8 <= len(digits) <= 64 and all(digit in "0123456789abcdef" for digit in digits)
    return digits if is_hash and not digits.startswith(_OF_NOTHING) else ""


def named_hashes(text: str) -> list[tuple[str, str]]:
    """Name and hash, as typed, from `name: hash, name: hash`.

    >>> named_hashes("ink: 0123456789ab, old ink: 0xabcdef0123, broken, x: y")
    [('ink', '0123456789ab'), ('old ink', '0xabcdef0123')]
    """
    pairs = (part.rpartition(":") for part in text.split(","))
    return [(name.strip(), digits.strip()) for name, _, digits in pairs if name.strip() and hex_digits(digits)]


def is_of_name(digits: str, name: str) -> bool:
    """Whether a hash is that of a file's name: Forge wrote such from August 2024 to February 2025 (its modules/hashes.py).

    >>> is_of_name("2c26b46b68ff", "foo"), is_of_name("2a6f5b1c7d90", "ink.safetensors")
    (True, False)
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    names = (last, *(stem(name) + ending for ending in EXTENSIONS))
    return any(hashlib.sha256(one.encode("utf-8", "replace")).hexdigest().startswith(digits) for one in names if digits)


def number(value: object, default: float = 1.0) -> float:
    """A strength from JSON or text; the default for anything else."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else default
    except (ValueError, OverflowError):
        return default
    return found if abs(found) < 1e6 else default  # NaN and infinity too


def merged(mentions: Iterable[Mention]) -> list[Mention]:
    """Each LoRA once by name: the first strength that was said, and whatever else any of them says."""
    found: dict[str, Mention] = {}
    for mention in mentions:
        key = stem(mention.name).casefold() or mention.hash or mention.spec
        first = found.get(key)
        found[key] = completed(first, mention) if first else mention
    return list(found.values())


def completed(first: Mention, other: Mention) -> Mention:
    """The first, with the hash and the SPEC that only the other says."""
    hashed = first if first.hash else other
    return replace(first, hash=hashed.hash, hash_kind=hashed.hash_kind, spec=first.spec or other.spec)


def stem(name: str) -> str:
    """The name without folder and extension.

    >>> stem("styles\\\\ink.v2.safetensors")
    'ink.v2'
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    return next((last[: -len(ending)] for ending in EXTENSIONS if last.lower().endswith(ending)), last)
