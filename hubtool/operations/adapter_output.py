"""What `resize` and `merge` write: factors stored in a dtype, alphas, metadata that is still true, figures of each module."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hubtool.adapters.codec import encode
from hubtool.adapters.fusion import RECORD_KEY, fit
from hubtool.adapters.layer import Layer
from hubtool.adapters.recorded import OURS_KEY, PEFT_KEY
from hubtool.adapters.rewriting import magnitudes_for
from hubtool.adapters.scaling import plan_alphas, with_alpha_tensors, without_alpha_tensors
from hubtool.adapters.tensors import TORCH_DTYPES, from_torch
from hubtool.errors import NonFinite, OutputExists, UsageProblem
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import write_safetensors
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Role
from hubtool.naming.dialect import dialect
from hubtool.operations.per_module import one_thread

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.tensor import LazyTensor, Shape
    from hubtool.operations.factors import LowRank

Alpha = float | Literal["rank", "keep"]  # alpha = rank (scale 1), the scale as it was, or a number

#: Float dtypes by the digits they hold; what is computed from several dtypes gets the one furthest back. What is computed
#: from float8 gets F16, for another rounding to float8 would cost more than the computation is worth.
_DIGITS = ("BF16", "F16", "F32", "F64")
_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
#: Metadata about the tensors or scales of the file that was read; true of no other.
STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", OURS_KEY, PEFT_KEY, RECORD_KEY)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Smallest and largest rank."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class ModuleFigures:
    """One module of the result."""

    module: str
    component: str
    rank: int
    energy: float  # share of ‖ΔW‖² that the factors hold
    relative_error: float  # ‖ΔW − BA‖ / ‖ΔW‖ with the factors as stored


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A LoRA layer that was computed, and how far it is from the change it stands for."""

    layer: Layer
    rank: int
    squared_norm: float
    squared_error: float

    @property
    def relative_error(self) -> float:
        """‖ΔW − BA‖ / ‖ΔW‖; 0 for a change of nothing."""
        return math.sqrt(self.squared_error / self.squared_norm) if self.squared_norm else 0.0


def check_output(output: Path, inputs: Iterable[Path], dialect_id: str | None, *, force: bool) -> None:
    """What can be known before the work.

    Raises:
        UsageProblem: the output is one of the inputs, a folder, or has the name of a torch file.
        OutputExists: there is something, and it is not to be replaced.
        UnknownDialect: the dialect has no such id.
    """
    check_name(output)
    if output.is_dir():
        raise UsageProblem(
            f"{output} is a folder.", hint=f"Name a file in it, such as `-o {output / 'new.safetensors'}`."
        )
    if any(output.exists() and path.exists() and output.samefile(path) for path in inputs):
        raise UsageProblem(f"{output} is an input.", hint="Choose another name with `-o`.")
    if os.path.lexists(output) and not force:
        raise OutputExists(output)
    if dialect_id is not None:
        dialect(dialect_id)


def check_name(output: Path) -> None:
    """What is written is safetensors, and no name may say something else.

    Raises:
        UsageProblem: it is the name of a torch file.
    """
    if output.suffix.lower() in _TORCH_SUFFIXES:
        message = f"{output.name} would be a safetensors file under a torch file's name."
        raise UsageProblem(message, hint=f"Call it {output.stem}.safetensors.")


def common_dtype(adapters: Iterable[Adapter]) -> str:
    """The float dtype with the most digits among all factors; F16 of float8 alone."""
    found = {
        tensor.dtype
        for adapter in adapters
        for layer in adapter.layers.values()
        for role, tensor in layer.tensors.items()
        if tensor.shape and role not in {Role.ALPHA, Role.SCALE}
    }
    return max(found & set(_DIGITS), key=_DIGITS.index, default="F16")


def lora_layer(found: LowRank, shape: Shape, name: str, stored: tuple[str, float]) -> Made:
    """A LoRA layer for a weight of this shape; `stored` is its dtype and its scale.

    Raises:
        NonFinite: a value that the dtype cannot hold.
    """
    dtype, scale = stored
    rank, root = found.up.shape[1], math.sqrt(abs(scale))
    up, down = (found.up, found.down) if scale == 1 else (found.up * (root / scale), found.down / root)
    kept = [factor.to(TORCH_DTYPES[dtype]).contiguous() for factor in (up, down)]
    rounding = _rounding((up, down), kept) * scale * scale
    if not math.isfinite(rounding):
        largest = max(float(factor.abs().max()) for factor in (up, down))
        message = f"A value of {largest:.3g} in {name} does not fit {dtype}."
        raise NonFinite(name, message, hint="Choose a wider dtype with `--dtype`.")
    tensors = {
        Role.UP: from_torch(kept[0].reshape(shape[0], rank, *(1,) * len(shape[2:]))),
        Role.DOWN: from_torch(kept[1].reshape(rank, *shape[1:])),
        Role.ALPHA: scalar_tensor(rank * scale),
    }
    return Made(Layer(tensors, name), rank, found.squared_norm, found.squared_error + rounding)


def _rounding(factors: Sequence[Tensor], kept: Sequence[Tensor]) -> float:
    """‖up·down − its stored form‖², to first order: the directions are orthogonal, so their errors add up one by one."""
    if kept[0].dtype == factors[0].dtype:
        return 0.0
    lost = [factor - stored for factor, stored in zip(factors, kept, strict=True)]
    norms = [torch.linalg.vector_norm(each, dim=dim) for each, dim in zip((*factors, *lost), (0, 1, 0, 1), strict=True)]
    return float(((norms[0] * norms[3]).square() + (norms[2] * norms[1]).square()).sum())


def spelt(adapter: Adapter, dialect_id: str) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """Keys and metadata in a dialect: modules split and joined, scales where it has a place for them.

    Raises:
        NotRepresentable: the dialect cannot say something.
        KeyClash: two tensors would get one key.
    """
    alphas = plan_alphas(adapter, dialect_id)
    fitted = fit(adapter, dialect_id).adapter
    kept = alphas.outcome == "kept"
    fitted = with_alpha_tensors(fitted) if kept else without_alpha_tensors(fitted, alphas)
    return encode(magnitudes_for(fitted, dialect_id), dialect_id), dict(fitted.metadata)


def write(output: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], *, force: bool) -> None:
    """All at once or not at all.

    Raises:
        OutputExists, DiskFull, StorageProblem: from the disk; nothing is left behind.
    """
    with one_thread(), atomic_output(output, force=force) as out:
        write_safetensors(out, tensors, metadata)


def figures(module: tuple[str, str], made: Made) -> ModuleFigures:
    """One row of the report; `module` is its path and component."""
    error = made.relative_error
    return ModuleFigures(*module, rank=made.rank, energy=max(0.0, 1 - error * error), relative_error=error)


def rank_range(ranks: Iterable[int]) -> Ranks | None:
    """Smallest and largest; None of nothing."""
    found = list(ranks)
    return Ranks(min(found), max(found)) if found else None


def whole_error(made: Iterable[Made]) -> float | None:
    """Relative error of all modules together; None where nothing was approximated."""
    rows = list(made)
    norm = sum(row.squared_norm for row in rows)
    return math.sqrt(sum(row.squared_error for row in rows) / norm) if norm else None
