"""Is this file sound, and what is wrong with it? Container first, then meaning, then values.

Verdicts: `ok`, `warning` (usable, but look), `broken`, `refused` (a pickle, no regular file, another kind of file).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.grouping import group_tensors
from hubtool.errors import (
    BadHeader,
    FileMissing,
    FileProblem,
    NotAnAdapter,
    StorageProblem,
    UnknownArchitecture,
    UnknownFormat,
)
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.operations.inspect import inspect_file
from hubtool.operations.rules import alphas, metadata, modules, values
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_QUICK_BYTES = 256 << 20  # values of files up to this size are looked at unasked: a fraction of a second
_KINDS = {"checkpoint": "CHECKPOINT", "embedding": "EMBEDDING"}
_WORDS = {"a VAE": "VAE", "a ControlNet": "CONTROLNET"}


@dataclass(frozen=True, slots=True)
class Validation:
    """The verdict on one file; the fields are the contract's."""

    path: Path
    verdict: str
    problems: tuple[Problem, ...]
    values_checked: bool


def validate(path: Path, *, check_all_values: bool = False) -> Validation:
    """Judge a file. Anything with a name gets a verdict.

    Raises:
        FileMissing: there is nothing at `path`, not even a broken link.
    """
    try:
        file = read_safetensors(path)
    except FileMissing as error:
        if not path.is_symlink():
            raise
        return _judged(path, [problem("E_NOT_FOUND", str(error))], values_checked=False)
    except (FileProblem, StorageProblem) as error:
        return _judged(path, [_refusal(error)], values_checked=False)
    look = check_all_values or file.size_bytes <= _QUICK_BYTES
    return _judged(path, list(_problems(file, values_too=look)), values_checked=look)


def check_values(path: Path) -> list[Problem]:
    """Only what the values say: NaN, infinity, zeros, hashes.

    Raises:
        FileProblem: the file is no sound safetensors file.
    """
    subject = _subject(read_safetensors(path))
    return list(_run(values.RULES, subject))


def _problems(file: SafetensorsFile, *, values_too: bool) -> Iterator[Problem]:
    if not file.tensors:
        yield problem("E_NO_TENSORS", f"{file.path.name} holds no tensors.")
        return
    other = _other_kind(file)
    if other:
        yield other
        return
    subject = _subject(file)
    yield from _run((*modules.RULES, *alphas.RULES, *metadata.RULES), subject)
    if values_too:
        yield from _run(values.RULES, subject)


def _run(rules: Iterable[object], subject: Subject) -> Iterator[Problem]:
    for rule in rules:
        if callable(rule):
            yield from rule(subject)


def _subject(file: SafetensorsFile) -> Subject:
    try:
        adapter = decode(file)
    except (UnknownArchitecture, NotAnAdapter):
        adapter = None
    return Subject(file, group_tensors(file.tensors), adapter)


def _other_kind(file: SafetensorsFile) -> Problem | None:
    """The finding that this is a sound file of another kind."""
    found = inspect_file(file)
    if found.kind == "adapter":
        return None
    ending = _WORDS.get(found.what) or _KINDS.get(found.kind) or "OTHER"
    return problem(f"E_NOT_A_LORA_{ending}", f"{file.path.name} is {found.what}, not a LoRA.")


def _refusal(error: FileProblem | StorageProblem) -> Problem:
    """The finding that a file cannot be read at all."""
    if isinstance(error, (UnknownFormat, BadHeader)):
        return problem(error.rule, str(error), getattr(error, "key", ""))
    codes = {"not_a_file": "E_NOT_REGULAR", "unsafe_file": "E_PICKLE"}
    return problem(codes.get(error.code, "E_PERMISSION"), str(error))


def _judged(path: Path, problems: list[Problem], *, values_checked: bool) -> Validation:
    severities = {found.severity for found in problems}
    order = (("refused", "refused"), ("error", "broken"), ("warning", "warning"))
    verdict = next((verdict for severity, verdict in order if severity in severities), "ok")
    return Validation(path, verdict, tuple(problems), values_checked)
