"""Which programs load a file, how much of it, and what would make them load all of it.

The file's keys are held against each program's table (`hubtool.operations.loader`); nothing but the header and scalars is
read. A module counts as loaded if the program applies its change at all; what it does differently is a reason, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode, identify_file
from hubtool.adapters.grouping import group_tensors
from hubtool.errors import NotAnAdapter
from hubtool.formats.safetensors import read_safetensors
from hubtool.operations.base_models import architectures_of
from hubtool.operations.kinds import kind_of, refusal
from hubtool.operations.loader import loader, loader_for
from hubtool.operations.mending import mended
from hubtool.operations.verdict import Finding, Subject, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hubtool.formats.safetensors import SafetensorsFile


@dataclass(frozen=True, slots=True)
class Check:
    """The answer for one file; `path` and `targets` are the contract's."""

    path: Path
    architecture: str
    dialect: str
    base: str | None  # as the user named it
    targets: Mapping[str, Verdict]


def check(path: Path, targets: Sequence[str], base: str | None = None) -> Check:
    """Judge a file for some programs, by id; `base` is the model that they run, by name or architecture.

    Raises:
        FileProblem: the file is no sound safetensors file.
        NotAnAdapter, UnknownArchitecture: it is no adapter of a known architecture.
        UsageProblem: there is no such target or base model.
    """
    wanted = architectures_of(base) if base else ()
    tables = [loader(id) for id in targets]
    subject = _subject(read_safetensors(path), wanted)
    architecture = subject.adapter.architecture
    if wanted and architecture.id not in wanted:
        says = f"The file is made for {architecture.title} ({architecture.id}), not for {base}."
        none = Verdict(
            "none", 0, len(subject.adapter.layers), (says,), (Finding("refuses", says, (), "the file's keys"),)
        )
        verdicts = {table.id: none for table in tables}
    else:
        verdicts = {table.id: judge(loader_for(table.id, architecture.id), subject) for table in tables}
        verdicts = mended(subject, verdicts)
    return Check(path, architecture.id, subject.adapter.dialect, base, verdicts)


def _subject(file: SafetensorsFile, wanted: Sequence[str]) -> Subject:
    """The file, read as the base model's if its keys fit that as well as another."""
    grouped = group_tensors(file.tensors)
    tied = {candidate.architecture for candidate in identify_file(file, grouped).candidates} if wanted else set()
    chosen = next((id for id in wanted if id in tied), None)
    adapter = decode(file, architecture_id=chosen)
    kind = kind_of(file, adapter)
    if kind.kind != "adapter":
        raise NotAnAdapter("", refusal(file.path.name, kind))
    return Subject(file, grouped, adapter, chosen)
