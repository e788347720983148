"""The arithmetic of an extraction, module by module: difference, factors, rounding, and what each cost in accuracy.

Peak memory is one workspace per worker, as large as the module at hand, and the factors. A worker computes with one thread:
modules in parallel use two cores better than one module does. The largest modules come first: no worker is left with one at
the end, and the workspaces shrink while the factors gather.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.tensors import TORCH_DTYPES, from_torch, to_torch
from hubtool.errors import AdapterProblem
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations import svd
from hubtool.operations.extract_difference import Strips, Workspace, prefetch

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from hubtool.operations.extract_pairs import Pair
    from hubtool.operations.ranks import RankRule

    Progress = Callable[[int, int], None]  # bytes compared, bytes in all

_SAMPLE = 1 << 12  # elements from which the size of a weight's values is estimated
#: Bits of the significand that are stored; a value's rounding error is relative to 2^-bits.
_SIGNIFICAND: Mapping[str, int] = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2}
_ROUNDING_SHARE = 0.0451  # mean of (relative error · 2^bits)²: error uniform in half a unit, values log-uniform


@dataclass(frozen=True, slots=True)
class Plan:
    """How every module is to be treated."""

    rule: Callable[[Pair], RankRule]
    dtype: str  # safetensors name of the stored factors
    exact: bool  # all eigenvectors in float64 instead of the randomized method


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """One changed module: its factors as they are stored, and how far they are from the change."""

    module: ModuleRef
    tensors: Mapping[Role, LazyTensor]  # empty at rank 0
    rank: int
    squared_norm: float  # ‖ΔW‖²
    squared_error: float  # ‖ΔW − BA‖² with the stored factors
    rounding: float  # the part of ‖ΔW‖² that the rounding of both checkpoints is expected to make
    energies: tuple[float, ...]  # σ² of each direction, descending

    @property
    def bytes_per_rank(self) -> int:
        """What one direction takes in the file."""
        return (self.tensors[Role.UP].nbytes + self.tensors[Role.DOWN].nbytes) // self.rank

    def cut(self, rank: int) -> Extracted:
        """Only the first directions; what the others held becomes error."""
        if rank >= self.rank:
            return self
        lost = sum(self.energies[rank:])
        return replace(
            self,
            tensors=_cut(self.tensors, rank) if rank else {},
            rank=rank,
            squared_error=self.squared_error + lost if rank else self.squared_norm,
            energies=self.energies[:rank],
        )


def extract_layers(
    pairs: Sequence[Pair], plan: Plan, workers: int, progress: Progress | None = None
) -> list[Extracted | None]:
    """Factors of every pair, in the order given; None for a module that did not change.

    The result does not depend on the number of workers.

    Raises:
        NonFinite: NaN or infinity among the weights of a module.
        AdapterProblem: factors that the dtype cannot hold.
    """
    order = sorted(range(len(pairs)), key=lambda index: (-pairs[index].size, index))
    own = threading.local()
    results: list[Extracted | None] = [None] * len(pairs)

    def prepare() -> None:
        torch.set_num_threads(1)
        own.workspace = Workspace()

    def work(position: int) -> int:
        if position + workers < len(order):
            prefetch(pairs[order[position + workers]])
        index = order[position]
        results[index] = _extract(pairs[index], own.workspace, plan)
        return pairs[index].size

    threads_before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "extract", prepare)
    try:
        done, total = 0, sum(pair.size for pair in pairs)
        for future in as_completed([pool.submit(work, position) for position in range(len(order))]):
            done += future.result()
            if progress:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads_before)
    return results


def _extract(pair: Pair, workspace: Workspace, plan: Plan) -> Extracted | None:
    with torch.inference_mode():
        matrix = workspace.difference(pair)
        if matrix is None or not matrix.squared_norm:
            return None
        rounding = _expected_rounding(pair)
        found = svd.truncate(matrix, plan.rule(pair), exact=plan.exact)
        rank = found.up.shape[1]
        if not rank:
            return Extracted(pair.module, {}, 0, matrix.squared_norm, matrix.squared_norm, rounding, ())
        up, down = (_stored(factor, plan.dtype, pair.module) for factor in (found.up, found.down))
        error = _stored_error(matrix, found, up, down)
        tensors = {
            Role.UP: from_torch(up.reshape(pair.shape[0], rank, *(1,) * len(pair.shape[2:]))),
            Role.DOWN: from_torch(down.reshape(rank, *pair.shape[1:])),
            Role.ALPHA: _alpha(rank, plan.dtype),
        }
        energies = tuple(found.energies.tolist())
        return Extracted(pair.module, tensors, rank, matrix.squared_norm, error, rounding, energies)


def _alpha(rank: int, dtype: str) -> LazyTensor:
    """alpha = rank: scale 1. bfloat16 has no 257, and every reader takes any float."""
    return scalar_tensor(rank, "F32" if dtype == "BF16" else dtype)


def _cut(tensors: Mapping[Role, LazyTensor], rank: int) -> dict[Role, LazyTensor]:
    up = to_torch(tensors[Role.UP])[:, :rank].contiguous()
    down = tensors[Role.DOWN].rows(0, rank)
    return {Role.UP: from_torch(up), Role.DOWN: down, Role.ALPHA: _alpha(rank, down.dtype)}


def _stored(factor: Tensor, dtype: str, module: ModuleRef) -> Tensor:
    """A factor in the dtype of the file.

    Raises:
        AdapterProblem: it overflows, or nothing is left of it.
    """
    stored = factor.to(TORCH_DTYPES[dtype])
    largest = float(stored.abs().max())
    if math.isfinite(largest) and largest > 0:
        return stored.contiguous()
    problem = "large" if largest else "small"
    message = f"The change of {module.path} is too {problem} to be stored as {dtype}."
    raise AdapterProblem(module.path, message, hint="Use `--dtype fp32`.")


def _stored_error(matrix: svd.Matrix, found: svd.Truncation, up: Tensor, down: Tensor) -> float:
    """‖ΔW − BA‖² of the factors as stored: measured where it is small, else with their rounding added to first order."""
    if up.dtype is torch.float32:
        return found.squared_error
    if found.squared_error < svd.DIRECT * matrix.squared_norm:
        return svd.squared_distance(matrix, up, down)
    rounded_up, rounded_down = found.up - up.float(), found.down - down.float()
    # the directions are orthogonal, so their errors add up one by one
    shares = rounded_up.square().sum(0) * found.down.square().sum(1)
    shares += found.up.square().sum(0) * rounded_down.square().sum(1)
    return found.squared_error + float(shares.sum())


def _expected_rounding(pair: Pair) -> float:
    """The energy that rounding both weights to their dtypes makes, from the size of the first values."""
    base, tuned = pair.rows[0]
    sample = Strips().read(base.tensor, slice(0, min(_SAMPLE, prod(base.tensor.shape)))).float() * base.scale
    energy = float(sample.double().square().mean()) * prod(pair.shape) if sample.numel() else 0.0
    bits = [_SIGNIFICAND.get(weight.tensor.dtype, 23) for weight in (base, tuned)]
    return energy * _ROUNDING_SHARE * sum(4.0**-count for count in bits)
