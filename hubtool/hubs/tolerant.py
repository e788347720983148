"""Fields of JSON that may hold anything: what is of no use becomes None, empty or zero, and only ids are required.

Hubs change what they send without notice, and a record with one strange field is still worth showing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from hubtool.errors import BadAnswer
from hubtool.hubs.text import clean, one_line

if TYPE_CHECKING:
    from typing import TypeVar

    Body = TypeVar("Body", bound="Tolerant")


_HEX = re.compile(r"[0-9a-f]{8,64}")
_LORA_TAG = re.compile(r"<lora:[^>]*>", re.IGNORECASE)
_IMAGE_LEVELS = {"none": 1, "soft": 2, "mature": 4, "x": 8, "blocked": 32}


def as_number(value: object) -> object:
    """Numbers also as text; anything else, and what is not finite, is None."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]  # anything may come; what float refuses is no number
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def as_count(value: object) -> object:
    """A whole number, also as text; else None."""
    found = as_number(value)
    return int(found) if isinstance(found, float) else None


def as_flag(value: object) -> object:
    """Yes or no, also in words; else None."""
    if isinstance(value, str):
        return {"true": True, "yes": True, "false": False, "no": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def as_line(value: object) -> object:
    """Short text on one line; numbers too; else empty."""
    return one_line(str(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def as_prose(value: object) -> object:
    """Text of any length; else empty."""
    return clean(value) if isinstance(value, str) else ""


def as_lines(value: object) -> object:
    """A list of short texts; a single text stands for a list of one; no empty ones, none twice."""
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(line for entry in values if (line := as_line(entry))))


def with_ids(value: object) -> object:
    """The entries of a list that have a usable id."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(as_count(entry.get("id")), int)]


def only_objects(value: object) -> list[Mapping[str, object]]:
    """The objects of a list."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def as_object(value: object) -> object:
    """An object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def _size(value: object) -> object:
    """`sizeKB` is bytes / 1024 as a float, and exact; 0 stands for unknown."""
    found = as_number(value)
    return (round(found * 1024) or None) if isinstance(found, float) and found >= 0 else None


def _words(value: object) -> object:
    """Trigger words without the `<lora:…>` tags that some creators paste into them: those would apply it twice."""
    values = value if isinstance(value, list) else [value]
    lines = (as_line(_LORA_TAG.sub(" ", entry)) for entry in values if isinstance(entry, str))
    return tuple(dict.fromkeys(word for line in lines if (word := str(line).strip(" ,"))))


def _hashes(value: object) -> object:
    tables = value if isinstance(value, list) else [value]
    pairs = [pair for table in tables if isinstance(table, Mapping) for pair in table.items()]
    lower = {str(kind).lower(): str(digits).strip().lower() for kind, digits in pairs}
    # a value that is cut short (documentation does so) identifies nothing
    return {k: v for k, v in lower.items() if _HEX.fullmatch(v) and (k not in {"sha256", "blake3"} or len(v) == 64)}


def _level(value: object) -> object:
    """A bit mask; the images of 2023 have words, older ones only say that they are explicit."""
    if value is True:
        return _IMAGE_LEVELS["x"]
    if isinstance(value, str) and value.lower() in _IMAGE_LEVELS:
        return _IMAGE_LEVELS[value.lower()]
    return max(0, int(found)) if isinstance(found := as_number(value), float) else 0


def sha256_digits(value: object) -> str:
    """A SHA-256 in lower-case hex, or nothing."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if len(text) == 64 and _HEX.fullmatch(text) else ""


Count = Annotated[int | None, BeforeValidator(as_count)]
Flag = Annotated[bool | None, BeforeValidator(as_flag)]
Line = Annotated[str, BeforeValidator(as_line)]
Prose = Annotated[str, BeforeValidator(as_prose)]
Lines = Annotated[tuple[str, ...], BeforeValidator(as_lines)]
RequiredId = Annotated[int, BeforeValidator(as_count)]


Level = Annotated[int, BeforeValidator(_level)]
SizeKb = Annotated[int | None, BeforeValidator(_size)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Hashes = Annotated[dict[str, str], BeforeValidator(_hashes)]


class Tolerant(BaseModel):
    """Ignores what it does not know."""

    # built when first used: a run asks one hub or two, and each record costs milliseconds
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=(), defer_build=True)


def record(value: object, hub: str) -> Mapping[str, object]:
    """An object of JSON.

    Raises:
        BadAnswer: it is something else.
    """
    if isinstance(value, dict):
        return value
    raise BadAnswer(f"{hub} answered with a list or a bare value where a record was expected.")


def read(shape: type[Body], raw: object, hub: str) -> Body:
    """The record in a hub's JSON.

    Raises:
        BadAnswer: it is none, or has no usable id.
    """
    try:
        return shape.model_validate(record(raw, hub))
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors(include_url=False)}))
        raise BadAnswer(f"{hub} answered with a record that cannot be used ({fields}).") from error
