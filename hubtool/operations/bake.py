"""Adapters written into a checkpoint, or taken out of it again.

Tensor by tensor: what no adapter changes is copied as it lies on the disk, the rest is computed when its turn comes, so
that memory holds one tensor whatever the checkpoint weighs. Order, names and dtypes of the tensors stay.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hubtool import __version__
from hubtool.adapters.checkpoint import Checkpoint, read_checkpoint
from hubtool.adapters.metadata import read_json
from hubtool.errors import IncompatibleAdapters, NotRepresentable, UsageProblem
from hubtool.formats.hashing import hash_file
from hubtool.operations.adapter_output import STALE, check_output
from hubtool.operations.bake_edits import Edits, plan_edits
from hubtool.operations.bake_files import Written, check_folder, check_kind, gives_folder, write_checkpoint
from hubtool.operations.bake_tensors import Bake, Rounding, baked, recast
from hubtool.operations.extract_report import peak_memory_bytes
from hubtool.operations.factors import is_additive
from hubtool.operations.sources import Source, Weighted, candidates, nothing_left, off_notes, read_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hubtool.formats.tensor import LazyTensor

RECORD_KEY = "hubtool.bake"
_FLOATS = ("F64", "F32", "BF16", "F16", "F8_E5M2", "F8_E4M3")
_NOISY = 0.25  # share of the change lost in rounding from which on it is worth a warning


@dataclass(frozen=True, slots=True)
class BakeOptions:
    """How to bake."""

    reverse: bool = False  # take the adapters out
    dtype: str | None = None  # of all float tensors; None: each keeps its own
    architecture: str | None = None
    force: bool = False
    dry_run: bool = False
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Modules of an adapter that the checkpoint does not have."""

    file: str
    modules: int
    first: str


@dataclass(frozen=True, slots=True)
class Baking:
    """What a bake did."""

    output: Path
    checkpoint: Path
    inputs: tuple[Source, ...]
    reverse: bool
    architecture: str
    modules: int  # changed
    tensors_changed: int
    tensors_copied: int
    dtypes: dict[str, int]  # of the tensors changed, as they were
    skipped: tuple[Skipped, ...]
    rounding: float | None  # share of the change that storing it lost, estimated
    size_bytes: int | None
    seconds: float
    peak_memory_bytes: int | None  # of this process so far, mapped pages included
    notes: tuple[str, ...]


def bake(path: Path, sources: Sequence[Source], output: Path, options: BakeOptions) -> Baking:
    """Write the checkpoint at `path` with the changes of `sources` added (or subtracted) to `output`.

    A single file gives a file; a folder or an index of shards gives a folder with everything that was in it.

    Raises:
        UsageProblem: options that cannot be meant.
        FileProblem, CheckpointProblem, NotAnAdapter, UnknownArchitecture, BrokenAdapter: an input cannot be read.
        IncompatibleAdapters: an adapter is for another model.
        AdapterProblem: every strength is 0.
        NotRepresentable: `reverse` of a change that cannot be undone exactly.
        NonFinite: NaN or infinity among the values.
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    started = time.perf_counter()
    if gives_folder(path):
        check_folder(path, output)
    else:
        check_output(output, [path, *(source.path for source in sources)], None, force=options.force)
    checkpoint, adapters = _read(path, sources, options)
    if gives_folder(path):
        check_kind(checkpoint.files)
    if all(adapter.is_off for adapter in adapters):
        raise nothing_left("bake")
    if options.reverse:
        _check_reversible(adapters)
        flipped = [_flipped(adapter.source) for adapter in adapters]
        adapters = [replace(adapter, source=source) for adapter, source in zip(adapters, flipped, strict=True)]
    edits = plan_edits(checkpoint, adapters)
    if not edits.by_key:
        message = f"{path.name} has none of the modules that {_names(adapters)} would change."
        raise IncompatibleAdapters(path.name, message)
    rounding = Rounding()
    written = [] if options.dry_run else _write(checkpoint, edits, adapters, (output, options, rounding))
    stored = Counter(checkpoint.files[number].tensors[key].dtype for number, key in edits.by_key)
    return Baking(
        output=output,
        checkpoint=path,
        inputs=tuple(sources),
        reverse=options.reverse,
        architecture=checkpoint.architecture.id,
        modules=len(edits.modules),
        tensors_changed=len(edits.by_key),
        tensors_copied=sum(len(file.tensors) for file in checkpoint.files) - len(edits.by_key),
        dtypes=dict(stored),
        skipped=tuple(Skipped(name, len(rows), rows[0].path) for name, rows in edits.absent.items()),
        rounding=rounding.share,
        size_bytes=sum(file.size_bytes for file in written) if written else None,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=peak_memory_bytes(),
        notes=(*_notes(checkpoint, edits, rounding, options), *off_notes(adapters)),
    )


def _read(path: Path, sources: Sequence[Source], options: BakeOptions) -> tuple[Checkpoint, list[Weighted]]:
    """The checkpoint and the adapters as the one architecture that fits all."""
    checkpoint, adapters = read_checkpoint(path), read_sources(sources, options.architecture)
    possible = candidates(adapters[0].adapter)
    shared = [id for id in possible if id in checkpoint.fits and all(id in candidates(a.adapter) for a in adapters)]
    if not shared:
        name, title = adapters[0].source.path.name, adapters[0].adapter.architecture.title
        message = f"{name} is for {title}, but {path.name} is {checkpoint.architecture.title}."
        raise IncompatibleAdapters(name, message)
    if shared[0] != adapters[0].adapter.architecture.id:
        adapters = read_sources(sources, shared[0])
    return checkpoint.read_as(shared[0]), adapters


def _flipped(source: Source) -> Source:
    encoder = None if source.text_encoder is None else -source.text_encoder
    return replace(source, strength=-source.strength, text_encoder=encoder)


def _check_reversible(adapters: Sequence[Weighted]) -> None:
    for adapter in adapters:
        for layer in adapter.adapter.layers.values():
            if not is_additive(layer):
                kind = layer.parametrization.id if layer.parametrization else "its family"
                kind = "DoRA" if "dora" in layer.modifiers else kind
                name = adapter.source.path.name
                message = f"{name} cannot be taken out: what {kind} adds depends on the weight before, which is gone."
                raise NotRepresentable(layer.base, message, hint="Keep the checkpoint that it was baked into.")


def _names(adapters: Sequence[Weighted]) -> str:
    return ", ".join(adapter.source.path.name for adapter in adapters)


# ---------------------------------------------------------------- writing


def _write(
    checkpoint: Checkpoint, edits: Edits, adapters: Sequence[Weighted], to: tuple[Path, BakeOptions, Rounding]
) -> list[Written]:
    output, options, rounding = to
    if options.dtype and any(weight.scale != 1 for weight in checkpoint.weights.values()):
        message = f"{checkpoint.path.name} holds scaled float8 weights, which keep their dtype."
        raise UsageProblem(message, hint="Leave `--dtype` out.")
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if options.progress:
            options.progress(done, len(edits.by_key))

    work = Bake(checkpoint, rounding, tick)
    record = _record(adapters, options)
    rows: list[Written] = []
    for number, file in enumerate(checkpoint.files):
        tensors: dict[str, LazyTensor] = {}
        for key, tensor in file.tensors.items():
            place, dtype = (number, key), _dtype(tensor, options)
            if place in edits.by_key:
                stored = (dtype, edits.scales.get(place, 1.0))
                tensors[key] = baked(tensor, key, edits.by_key[place], stored, work)
            else:
                tensors[key] = tensor if dtype == tensor.dtype else recast(tensor, dtype)
        changed = any(place[0] == number for place in edits.by_key)
        metadata = _metadata(file.metadata, record) if changed else dict(file.metadata)
        rows.append(Written(file, tensors, metadata))
    write_checkpoint(checkpoint.path, rows, output, force=options.force)
    return rows


def _dtype(tensor: LazyTensor, options: BakeOptions) -> str:
    return options.dtype if options.dtype and tensor.dtype in _FLOATS and tensor.shape else tensor.dtype


def _record(adapters: Sequence[Weighted], options: BakeOptions) -> list[dict[str, object]]:
    """What was baked: enough to find the files again and to take them out."""
    rows: list[dict[str, object]] = []
    for adapter in adapters:
        source = _flipped(adapter.source) if options.reverse else adapter.source
        row: dict[str, object] = {"name": source.path.name, "strength": source.strength}
        if source.text_encoder is not None:
            row["text_encoder"] = source.text_encoder
        if source.blocks.text:
            row["blocks"] = source.blocks.text
        row["sha256"] = hash_file(source.path).sha256
        rows.append(row | ({"reverse": True} if options.reverse else {}))
    return rows


def _metadata(before: Mapping[str, str], record: list[dict[str, object]]) -> dict[str, str]:
    """The file's own metadata and the record; an adapter that is taken out leaves it if it stands there."""
    kept = {key: text for key, text in before.items() if key not in STALE}
    table = read_json(kept.pop(RECORD_KEY, None))
    old = table.get("files") if isinstance(table, dict) else None
    rows: list[object] = list(old) if isinstance(old, list) else []
    for row in record:
        plain = {key: value for key, value in row.items() if key not in {"reverse", "name"}}
        same = [
            entry
            for entry in rows
            if isinstance(entry, dict) and {k: v for k, v in entry.items() if k != "name"} == plain
        ]
        if row.get("reverse") and same:
            rows.remove(same[-1])
        else:
            rows.append(row)
    return kept | (
        {RECORD_KEY: json.dumps({"version": __version__, "files": rows}, ensure_ascii=False)} if rows else {}
    )


def _notes(checkpoint: Checkpoint, edits: Edits, rounding: Rounding, options: BakeOptions) -> list[str]:
    notes = [note for note in checkpoint.notes if "EMA" not in note]
    averaged = sum(key.startswith("model_ema.") for key in checkpoint.others)
    notes += [f"{averaged} averaged (EMA) tensors stay as they are."] * bool(averaged)
    notes += [
        f"{count} changes in {name} (biases, modulations) have no place in the checkpoint and are left out."
        for name, count in edits.unheard.items()
        if count
    ]
    if rounding.share and rounding.share > _NOISY:
        stored = sorted({checkpoint.files[number].tensors[key].dtype for number, key in edits.by_key})
        dtypes = options.dtype or " and ".join(stored)
        notes.append(f"Rounding to {dtypes} loses about {min(rounding.share, 1):.0%} of the change; see `--dtype`.")
    return notes
