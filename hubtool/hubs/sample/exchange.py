"""A request and its answer, as both halves of the sample hub see them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from hubtool.hubs.sample.catalogue import TOKEN

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, object]
Parameters = dict[str, list[str]]  # as parse_qs has them


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]  # names in lower case
    body: bytes = b""

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def parameters(self) -> Parameters:
        """The query."""
        return parse_qs(urlsplit(self.target).query)

    @property
    def is_signed_in(self) -> bool:
        """By the second word of any Authorization header, whatever the first is; else by `?token=`."""
        words = self.headers.get("authorization", "").split()
        token = words[1] if len(words) > 1 else self.parameters.get("token", [""])[0]
        return token == TOKEN


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes | memoryview = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An answer that is an error: its status and body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(f"{status}")
        self.status, self.body = status, body


def invalid(field: str, message: str) -> Refused:
    """A parameter that the schema refuses: the whole error object of the validator, as Civitai has it."""
    issue = json.dumps([{"code": "invalid_value", "path": [field], "message": message}], indent=2)
    return Refused(400, {"error": {"name": "ZodError", "message": issue}})


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    """An answer of the API."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Answer(status, body, {"Content-Type": "application/json; charset=utf-8"})


def number(parameters: Parameters, field: str, default: int, allowed: range) -> int:
    """A parameter that is a whole number in a range.

    Raises:
        Refused: it is none.
    """
    text = parameters.get(field, [""])[0]
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or int(text[:12]) not in allowed:
        raise invalid(field, f"expected a number from {allowed.start} to {allowed.stop - 1}")
    return int(text)
