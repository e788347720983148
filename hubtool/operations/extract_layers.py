"""The arithmetic of an extraction, module by module: difference, factors, rounding, and what each cost in accuracy.

Peak memory is one workspace per worker, as large as the module at hand, and the factors. A worker computes with one thread:
modules in parallel use two cores better than one module does. The largest modules come first: no worker is left with one at
the end, and the workspaces shrink while the factors gather.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.tensors import from_torch, to_torch
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.extract_difference import Strips, Workspace, prefetch
from hubtool.operations.extract_forms import Plan, alpha_tensor, made_of

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.extract_pairs import Pair

    Progress = Callable[[int, int], None]  # bytes compared, bytes in all


_SAMPLE = 1 << 12  # elements from which the size of a weight's values is estimated
#: Bits of the significand that are stored; a value's rounding error is relative to 2^-bits.
_SIGNIFICAND: Mapping[str, int] = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2}
_ROUNDING_SHARE = 0.0451  # mean of (relative error · 2^bits)²: error uniform in half a unit, values log-uniform


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
        own.workspace = Workspace(plan.device, plan.seed)

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
        made = made_of(pair, matrix, plan)
        norm = matrix.squared_norm
        error = min(max(made.squared_error, 0.0), norm) if made.tensors else norm
        return Extracted(
            pair.module, made.tensors, made.rank, norm, error, _expected_rounding(pair), tuple(made.energies.tolist())
        )


def _cut(tensors: Mapping[Role, LazyTensor], rank: int) -> dict[Role, LazyTensor]:
    up = to_torch(tensors[Role.UP])[:, :rank].contiguous()
    down = tensors[Role.DOWN].rows(0, rank)
    return {Role.UP: from_torch(up), Role.DOWN: down, Role.ALPHA: alpha_tensor(rank, down.dtype)}


def _expected_rounding(pair: Pair) -> float:
    """The energy that rounding both weights to their dtypes makes, from the size of the first values."""
    base, tuned = pair.rows[0]
    sample = Strips().read(base.tensor, slice(0, min(_SAMPLE, prod(base.tensor.shape)))).float() * base.scale
    energy = float(sample.double().square().mean()) * prod(pair.shape) if sample.numel() else 0.0
    bits = [_SIGNIFICAND.get(weight.tensor.dtype, 23) for weight in (base, tuned)]
    return energy * _ROUNDING_SHARE * sum(4.0**-count for count in bits)
