"""What two files have in common and what not: header, tensors, and, for adapters, what they do to the model.

The last is compared module by module at the finest granularity, so that dialect, parametrization, rank, alpha and dtype do not
matter: ‖ΔW_A − ΔW_B‖ and the cosine come from the factors' inner products. Families whose change depends on the base model are
compared by their tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.scaling import ROUNDING
from hubtool.adapters.tensors import TORCH_DTYPES, to_torch
from hubtool.errors import NotAnAdapter, NotRegularFile, UnknownArchitecture
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors
from hubtool.formats.tensor import FileBytes
from hubtool.naming.address import Role
from hubtool.operations.diff_modules import ModuleDiff, compare_module
from hubtool.operations.per_module import for_each
from hubtool.operations.placement import placed
from hubtool.operations.sources import candidates
from hubtool.operations.validate import refuse_broken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.tensor import LazyTensor

_BLOCK = 1 << 22
_ROUNDINGS = 4  # a value may have been rounded that often between two files that mean the same
_FLOOR = 2e-6  # relative error that float32 arithmetic itself makes


@dataclass(frozen=True, slots=True)
class HeaderDiff:
    """Metadata: keys that one of the two has, and keys with different values."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A key of both files whose tensors differ."""

    key: str
    dtype: tuple[str, str]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    relative_error: float | None  # ‖A − B‖ / ‖A‖; None where the shapes differ or A is nothing


@dataclass(frozen=True, slots=True)
class TensorsDiff:
    """Tensors by key."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    same: int  # byte for byte
    changed: tuple[TensorChange, ...]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files."""

    path: Path
    size_bytes: int
    tensors: int
    architecture: str | None  # None: no adapter
    dialect: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What `diff` found."""

    a: Side
    b: Side
    verdict: str  # "identical", "same tensors", "equal" or "different"
    equal: bool  # any of the first three
    header: HeaderDiff
    tensors: TensorsDiff
    tolerance: float | None  # relative error up to which modules count as equal: the rounding of their dtypes
    cosine: float | None  # of all changes together
    relative_error: float | None  # ‖ΔW_A − ΔW_B‖ / ‖ΔW_A‖ over all modules
    modules: tuple[ModuleDiff, ...]
    notes: tuple[str, ...]


def diff(
    first: Path,
    second: Path,
    architecture_id: str | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diff:
    """Compare two safetensors files.

    Raises:
        FileProblem: one of them is no sound safetensors file.
        BrokenAdapter: tensors of a module are missing or do not go together.
    """
    for path in (first, second):
        if path.is_dir():
            message = f"{path} is a folder; diff compares two safetensors files, LoRAs above all."
            raise NotRegularFile(path, message, hint="Name a file in it.")
    files = read_safetensors(first), read_safetensors(second)
    adapters = tuple(_adapter(file, architecture_id) for file in files)
    header = _header(files[0].metadata, files[1].metadata)
    tensors = _tensors(files[0].tensors, files[1].tensors)
    notes: list[str] = []
    rows: list[ModuleDiff] = []
    pair = _of_one_architecture(files, adapters, notes)
    tolerance = None
    if pair is not None:
        tolerance = max(_FLOOR, _ROUNDINGS * _coarsest(*pair))
        one, two = placed(pair[0]), placed(pair[1])
        modules = [*one, *(module for module in two if module not in one)]
        limit = tolerance
        rows = for_each(
            modules,
            lambda module: compare_module(module, one.get(module, []), two.get(module, []), limit),
            workers=workers,
            progress=progress,
        )
    same_tensors = not (tensors.only_a or tensors.only_b or tensors.changed)
    same_header = not (header.only_a or header.only_b or header.changed)
    alike = bool(rows) and all(row.status in {"equal", "nothing"} for row in rows) and not _leftovers_differ(pair)
    verdict = "same tensors" if same_tensors else "equal" if alike else "different"
    verdict = "identical" if same_tensors and same_header else verdict
    cosine, error = _totals(rows)
    return Diff(
        a=_side(files[0], adapters[0]),
        b=_side(files[1], adapters[1]),
        verdict=verdict,
        equal=verdict != "different",
        header=header,
        tensors=tensors,
        tolerance=tolerance,
        cosine=cosine,
        relative_error=error,
        modules=tuple(rows),
        notes=tuple(notes),
    )


def _adapter(file: SafetensorsFile, architecture_id: str | None) -> Adapter | None:
    try:
        adapter = decode(file, architecture_id=architecture_id)
        refuse_broken(file, adapter)
    except (NotAnAdapter, UnknownArchitecture):
        return None  # a checkpoint, an embedding: compared by its tensors
    return adapter


def _side(file: SafetensorsFile, adapter: Adapter | None) -> Side:
    names = (adapter.architecture.id, adapter.dialect) if adapter else (None, None)
    return Side(file.path, file.size_bytes, len(file.tensors), *names)


def _of_one_architecture(
    files: tuple[SafetensorsFile, ...], adapters: tuple[Adapter | None, ...], notes: list[str]
) -> tuple[Adapter, Adapter] | None:
    """Both as the first architecture that explains both; None, and a note, if there is none."""
    one, two = adapters
    if one is None or two is None:
        names = " and ".join(file.path.name for file, adapter in zip(files, adapters, strict=True) if adapter is None)
        notes.append(f"{names}: no adapter, so only header and tensors are compared.")
        return None
    shared = [id for id in candidates(one) if id in candidates(two)]
    if not shared:
        notes.append(
            f"{files[0].path.name} is for {one.architecture.title}, {files[1].path.name} for {two.architecture.title}."
        )
        return None
    if one.architecture.id == two.architecture.id == shared[0]:
        return one, two
    return decode(files[0], architecture_id=shared[0]), decode(files[1], architecture_id=shared[0])


def _leftovers_differ(pair: tuple[Adapter, Adapter] | None) -> bool:
    """Whether there are tensors that were not understood, so that nobody knows if they mean the same."""
    if pair is None:
        return False
    one, two = (adapter.leftovers for adapter in pair)
    return one.keys() != two.keys() or any(not _same(one[key], two[key]) for key in one)


def _coarsest(*adapters: Adapter) -> float:
    dtypes = {
        tensor.dtype
        for adapter in adapters
        for layer in adapter.layers.values()
        for role, tensor in layer.tensors.items()
        if tensor.shape and role not in {Role.ALPHA, Role.SCALE}
    }
    return max((ROUNDING.get(dtype, 2.0**-4) for dtype in dtypes), default=0.0)


def _totals(rows: list[ModuleDiff]) -> tuple[float | None, float | None]:
    """Cosine and relative error of all modules whose change is known."""
    norms = [(row, row.norm_a, row.norm_b) for row in rows if row.norm_a is not None and row.norm_b is not None]
    energy_a, energy_b = sum(a * a for _, a, _ in norms), sum(b * b for _, _, b in norms)
    if not energy_a:
        return None, None
    product = sum((row.cosine or 0.0) * a * b for row, a, b in norms)
    error = sum(((row.relative_error or 0.0) * a) ** 2 if a else b * b for row, a, b in norms)
    cosine = product / math.sqrt(energy_a * energy_b) if energy_b else None
    return cosine, math.sqrt(error / energy_a)


# ---------------------------------------------------------------- header and tensors


def _header(one: Mapping[str, str], two: Mapping[str, str]) -> HeaderDiff:
    changed = tuple(key for key in one if key in two and one[key] != two[key])
    return HeaderDiff(tuple(k for k in one if k not in two), tuple(k for k in two if k not in one), changed)


def _tensors(one: Mapping[str, LazyTensor], two: Mapping[str, LazyTensor]) -> TensorsDiff:
    shared = [key for key in one if key in two]
    changed = tuple(_change(key, one[key], two[key]) for key in shared if not _same(one[key], two[key]))
    only = (tuple(k for k in one if k not in two), tuple(k for k in two if k not in one))
    return TensorsDiff(*only, same=len(shared) - len(changed), changed=changed)


def _same(one: LazyTensor, two: LazyTensor) -> bool:
    if one.dtype != two.dtype or one.shape != two.shape:
        return False
    return all(a == b for a, b in zip(one.blocks(_BLOCK), two.blocks(_BLOCK), strict=True))


def _change(key: str, one: LazyTensor, two: LazyTensor) -> TensorChange:
    error = None
    if one.shape == two.shape and {one.dtype, two.dtype} <= TORCH_DTYPES.keys():
        a, b = to_torch(one).double(), to_torch(two).double()
        size = float(a.norm())
        error = float((a - b).norm()) / size if size else None
        error = error if error is not None and math.isfinite(error) else None
    for tensor in (one, two):
        if isinstance(tensor.data, FileBytes):
            tensor.data.file.forget(tensor.data.start, tensor.data.stop)
    return TensorChange(key, (one.dtype, two.dtype), (one.shape, two.shape), error)
