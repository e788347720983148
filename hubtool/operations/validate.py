"""Is this file sound, and what is wrong with it? Container first, then meaning, then values.

Verdicts: `ok`, `warning` (usable, but look), `broken`, `refused` (a pickle, no regular file, another kind of file).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.grouping import group_tensors, layer_of
from hubtool.adapters.unknown import is_unknown
from hubtool.errors import (
    BadHeader,
    BrokenAdapter,
    FileMissing,
    FileProblem,
    NotAnAdapter,
    StorageProblem,
    UnknownArchitecture,
    UnknownFormat,
)
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.operations.kinds import CODES as KIND_CODES
from hubtool.operations.kinds import kind_of, refusal
from hubtool.operations.rules import alphas, fittings, metadata, modules, repetition, values
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter

_MANY = 20  # findings of one code that are told one by one
_QUICK_BYTES = 256 << 20  # values of files up to this size are looked at unasked: a fraction of a second
STRUCTURE = (*modules.RULES, *fittings.RULES, *repetition.RULES, *alphas.RULES)


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
    return _judged(path, _abridged(_problems(file, values_too=look)), values_checked=look)


def refuse_broken(file: SafetensorsFile, adapter: Adapter) -> bool:
    """What has to hold before an adapter is rewritten: no finding of severity `error`. Values of large files are not looked at.

    Returns whether there was no warning either.

    Raises:
        NotAnAdapter: most of the file is something else, such as a checkpoint with a few stray keys.
        BrokenAdapter: there is an error.
    """
    known = None if is_unknown(adapter) else adapter
    kind = kind_of(file, known)
    if kind.kind != "adapter":
        raise NotAnAdapter("", refusal(file.path.name, kind))
    quick, is_regular = file.size_bytes <= _QUICK_BYTES, True
    rules = (*STRUCTURE, *((values.finite,) if quick else ()))
    for found in _sound(_run(rules, _subject(file, known, values_too=quick))):
        is_regular = is_regular and found.severity != "warning"
    return is_regular


def refuse_broken_result(result: SafetensorsFile) -> None:
    """What has to hold of a file that is not written yet: names that say more than the old ones can show an error of old.

    Raises:
        BrokenAdapter, NotAnAdapter: it would be broken, or no adapter.
    """
    for _ in _sound(_problems(result, values_too=False)):
        pass


def problems_left(source: SafetensorsFile, mended: SafetensorsFile) -> list[Problem]:
    """What there is to say of a file that is not written yet: its keys and metadata, and the values they come from.

    Raises:
        BrokenAdapter, NotAnAdapter: it would be broken, or no adapter.
    """
    values_too = source.size_bytes <= _QUICK_BYTES
    found = list(_sound(_problems(mended, values_too=False)))
    if values_too:
        subject = _subject(source, _adapter(source), values_too=True)
        found += _run((values.finite, values.not_all_zero, values.zero_tail), subject)
    return _abridged(found)


def check_header(path: Path) -> list[Problem]:
    """Only what the header says, and the alphas; no other values are looked at.

    Raises:
        FileProblem: the file is no sound safetensors file.
    """
    return _abridged(_problems(read_safetensors(path), values_too=False))


def check_values(path: Path) -> list[Problem]:
    """Only what the values say: NaN, infinity, zeros, hashes.

    Raises:
        FileProblem: the file is no sound safetensors file.
    """
    file = read_safetensors(path)
    return _abridged(_run(values.RULES, _subject(file, _adapter(file), values_too=True)))


def _problems(file: SafetensorsFile, *, values_too: bool) -> Iterator[Problem]:
    if not file.tensors:
        yield problem("E_NO_TENSORS", f"{file.path.name} holds no tensors.")
        return
    adapter = _adapter(file)
    kind = kind_of(file, adapter)
    if kind.kind != "adapter":
        yield problem(f"E_NOT_A_LORA_{KIND_CODES.get(kind.what, 'OTHER')}", refusal(file.path.name, kind))
        return
    subject = _subject(file, adapter, values_too=values_too)
    yield from _run((*STRUCTURE, *metadata.RULES), subject)
    if values_too:
        yield from _run(values.RULES, subject)


def _sound(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The findings, up to the first error.

    Raises:
        BrokenAdapter: there is one.
        NotAnAdapter: there is too little left that belongs to an adapter.
    """
    for found in problems:
        if found.severity == "error":
            raise BrokenAdapter(found.key, found.message)
        if found.severity == "refused":
            raise NotAnAdapter(found.key, found.message)
        yield found


def _run(rules: Iterable[object], subject: Subject) -> Iterator[Problem]:
    for rule in rules:
        if callable(rule):
            yield from rule(subject)


def _adapter(file: SafetensorsFile) -> Adapter | None:
    try:
        return decode(file)
    except (UnknownArchitecture, NotAnAdapter):
        return None


def _subject(file: SafetensorsFile, adapter: Adapter | None, *, values_too: bool) -> Subject:
    grouped = group_tensors(file.tensors)
    named = adapter.layers.values() if adapter else (layer_of(base, rows) for base, rows in grouped.tensors.items())
    return Subject(file, grouped, adapter, tuple(named), values_too)


def _abridged(problems: Iterable[Problem]) -> list[Problem]:
    """The first findings of each code, and how many more there are."""
    told: list[Problem] = []
    seen: Counter[str] = Counter()
    for found in problems:
        seen[found.code] += 1
        if seen[found.code] <= _MANY:
            told.append(found)
    more = ((code, count - _MANY) for code, count in seen.items() if count > _MANY)
    return told + [problem(code, f"There are {count} more findings like this.") for code, count in more]


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
