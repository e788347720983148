"""Make an adapter's keys and metadata regular in the dialect that it has; nothing that changes its effect or cannot be undone.

What can be mended: keys of another dialect or of none, equal copies, missing and odd alphas, metadata that contradict the
tensors, hashes, ModelSpec's fields. A file that is regular comes out byte for byte as it went in, or as the writer lays it out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.duplicates import equal_duplicates, without_duplicates
from hubtool.adapters.unknown import is_unknown
from hubtool.errors import OutputExists, UnknownArchitecture
from hubtool.formats.atomic import atomic_output
from hubtool.formats.hashing import sha256_of
from hubtool.formats.safetensors import header_bytes, printable, read_safetensors, write_safetensors
from hubtool.operations.fix import Fix
from hubtool.operations.normalize_metadata import regular_metadata
from hubtool.operations.normalize_modules import regular_modules
from hubtool.operations.unknown_architecture import read_known_or_not
from hubtool.operations.validate import problems_left, refuse_broken

if TYPE_CHECKING:
    from hubtool.operations.rules.problem import Problem


@dataclass(frozen=True, slots=True)
class NormalizeOptions:
    """How to normalize."""

    architecture: str | None = None  # overrides what identification says
    force: bool = False  # replace an output that exists
    in_place: bool = False  # replace the input, if there is anything to mend
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Normalization:
    """What was mended and what was not; the fields are the contract's."""

    input: Path
    output: Path
    dialect: str
    architecture: str
    fixes: tuple[Fix, ...]
    problems_left: tuple[Problem, ...]
    sha256: str | None  # of the output; None where none was written


def normalize(path: Path, output: Path, options: NormalizeOptions | None = None) -> Normalization:
    """Write the adapter at `path` to `output` with everything mended that can be without losing anything.

    Raises:
        FileProblem, NotAnAdapter, UnknownArchitecture: the input cannot be read as an adapter.
        BrokenAdapter: an error is left that nobody can mend, such as a missing factor or two different copies.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing was written.
    """
    options = options or NormalizeOptions()
    output = Path(os.path.realpath(path)) if options.in_place else output  # a link stays one
    if not (options.force or options.in_place) and os.path.lexists(output):
        raise OutputExists(output)
    file = read_safetensors(path)
    source = read_known_or_not(file, options.architecture)
    if is_unknown(source):
        hint = "`hubtool convert` still rewrites its suffixes and alphas."
        raise UnknownArchitecture(f"No known base model has the modules of {path.name}.", hint=hint)
    copies = equal_duplicates(source)
    single = without_duplicates(source, copies)
    refuse_broken(file, single)
    removed = [Fix("W_EQUAL_COPIES", key, f"{printable(key)} was an equal copy and is gone.") for key in copies]
    modules = regular_modules(file, single, removed)
    certain = options.architecture is not None
    metadata, metadata_fixes = regular_metadata(file, modules, certain=certain)
    left = problems_left(file, replace(file, tensors=modules.tensors, metadata=metadata))
    regular = header_bytes(modules.tensors, metadata) == file.file.view(0, file.body_start)
    if not (options.dry_run or (options.in_place and regular)):
        with atomic_output(output, force=options.force or options.in_place) as out:
            write_safetensors(out, modules.tensors, metadata)
    return Normalization(
        input=path,
        output=output,
        dialect=source.dialect,
        architecture=source.architecture.id,
        fixes=(*modules.fixes, *metadata_fixes),
        problems_left=tuple(left),
        sha256=None if options.dry_run else sha256_of(output),
    )
