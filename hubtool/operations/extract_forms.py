"""The forms in which one module's change is stored: low-rank factors, with a Tucker core, a Kronecker product, or whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple

from hubtool.adapters.tensors import TORCH_DTYPES, from_torch
from hubtool.errors import AdapterProblem
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations import svd
from hubtool.operations.as_lokr import nearest
from hubtool.operations.as_lora import Factors
from hubtool.operations.extract_difference import Workspace
from hubtool.operations.ranks import FixedRank

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from hubtool.operations.extract_pairs import Pair
    from hubtool.operations.ranks import RankRule

Form = Literal["lora", "tucker", "lokr", "full"]
_ROWS = 64  # compared at once
_ROUNDS = 2  # of alternating between the sides of a Tucker core; more gain less than a thousandth


@dataclass(frozen=True, slots=True)
class Plan:
    """How every module is to be treated."""

    rule: Callable[[Pair], RankRule]
    dtype: str  # safetensors name of the stored factors
    exact: bool = False  # all eigenvectors in float64 instead of the randomized method
    form: Callable[[Pair], Form] = lambda _: "lora"
    device: str = "cpu"
    seed: int = 0  # of the randomized method


class Made(NamedTuple):
    """A module's change in one form."""

    tensors: dict[Role, LazyTensor]
    rank: int
    squared_error: float  # with the tensors as stored
    energies: Tensor  # σ² of each direction


def _lora(pair: Pair, matrix: svd.Matrix, plan: Plan) -> Made:
    found = svd.truncate(matrix, plan.rule(pair), exact=plan.exact)
    rank = found.up.shape[1]
    if not rank:
        return Made({}, 0, matrix.squared_norm, found.energies)
    up, down = (_stored(factor, plan.dtype, pair.module) for factor in (found.up, found.down))
    tensors = {
        Role.UP: from_torch(up.reshape(pair.shape[0], rank, *(1,) * len(pair.shape[2:]))),
        Role.DOWN: from_torch(down.reshape(rank, *pair.shape[1:])),
        Role.ALPHA: alpha_tensor(rank, plan.dtype),
    }
    return Made(tensors, rank, _stored_error(matrix, found, up, down), found.energies)


def _tucker(pair: Pair, matrix: svd.Matrix, plan: Plan) -> Made:
    """A kernel as two small factors and a core (LyCORIS `use_tucker`), of one rank, which has to be a number."""
    change = matrix.exact.reshape(pair.shape)
    rank = min(plan.rule(pair).expected(matrix.side), pair.shape[0], pair.shape[1])
    parts = [_stored(part, plan.dtype, pair.module) for part in tucker(change, rank, plan.seed)]
    up, core, down = (part.float() for part in parts)
    error = float(
        (change - torch.einsum("om,mnk,ni->oik", up, core.flatten(2), down).reshape(pair.shape)).square().sum()
    )
    ones = (1,) * len(pair.shape[2:])
    tensors = {
        Role.UP: from_torch(parts[0].reshape(*up.shape, *ones)),
        Role.DOWN: from_torch(parts[2].reshape(*down.shape, *ones)),
        Role.MID: from_torch(parts[1]),
        Role.ALPHA: alpha_tensor(rank, plan.dtype),
    }
    return Made(tensors, rank, error, torch.empty(0))


def _lokr(pair: Pair, matrix: svd.Matrix, plan: Plan) -> Made:
    """The nearest Kronecker product; its rank is that of the larger factor, which is kept whole."""
    found = nearest(Factors(matrix.exact, None), pair.shape, pair.module.path)
    share = math.sqrt(max(float(torch.linalg.vector_norm(found.second)), 1e-30))  # first has norm 1: both get the same
    first, second = found.first * share, found.second / share
    stored = [_stored(part, plan.dtype, pair.module) for part in (first, second)]
    rounding = sum(
        float((part - kept.float()).square().sum() * other.square().sum())
        for part, kept, other in ((first, stored[0], second), (second, stored[1], first))
    )
    shape = (pair.shape[0] // first.shape[0], pair.shape[1] // first.shape[1], *pair.shape[2:])
    tensors = {Role.LOKR_W1: from_torch(stored[0]), Role.LOKR_W2: from_torch(stored[1].reshape(shape))}
    rank = min(shape[0], prod(shape[1:]))
    return Made(
        tensors | {Role.ALPHA: alpha_tensor(1, plan.dtype)}, rank, found.squared_error + rounding, torch.empty(0)
    )


def _full(pair: Pair, matrix: svd.Matrix, plan: Plan) -> Made:
    """The change itself, computed again when it is written: all modules' together would not fit into memory."""
    dtype = TORCH_DTYPES[plan.dtype]
    stored = _stored(matrix.exact, plan.dtype, pair.module)
    strips = [slice(start, start + _ROWS) for start in range(0, len(stored), _ROWS)]
    error = sum(svd.squared_norm(matrix.exact[rows] - stored[rows].float()) for rows in strips)

    def change() -> memoryview:
        with torch.inference_mode():
            again = Workspace().difference(pair)
            values = again.exact if again else torch.zeros(pair.shape)
            return from_torch(values.to(dtype)).view()

    return Made({Role.DIFF: LazyTensor(plan.dtype, pair.shape, change)}, matrix.side, error, torch.empty(0))


_MAKE: Mapping[Form, Callable[[Pair, svd.Matrix, Plan], Made]] = {
    "lora": _lora, "tucker": _tucker, "lokr": _lokr, "full": _full,
}  # fmt: skip


def made_of(pair: Pair, matrix: svd.Matrix, plan: Plan) -> Made:
    """The change in the form that the plan has for this module.

    Raises:
        AdapterProblem: values that the dtype cannot hold.
    """
    return _MAKE[plan.form(pair)](pair, matrix, plan)


def tucker(change: Tensor, rank: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(out, rank), (rank, rank, *kernel), (rank, in), whose product is near the change; all of about one size.

    De Lathauwer, De Moor & Vandewalle 2000: the leading directions of each side, each then sought again within the other's.
    """
    out, ins = change.shape[:2]
    cube = change.flatten(2)  # (out, in, k)
    right = _leading(cube.transpose(0, 1).reshape(ins, -1), rank, seed)
    left = right
    for _ in range(_ROUNDS):
        left = _leading(torch.einsum("oik,in->onk", cube, right).reshape(out, -1), rank, seed)
        right = _leading(torch.einsum("oik,om->imk", cube, left).reshape(ins, -1), rank, seed)
    core = torch.einsum("oik,om,in->mnk", cube, left, right)
    size = (float(torch.linalg.vector_norm(core)) / math.sqrt(rank) or 1.0) ** (1 / 3)
    return left * size, (core / size**2).reshape(rank, rank, *change.shape[2:]), right.T * size


def _leading(matrix: Tensor, rank: int, seed: int) -> Tensor:
    """Nearly the leading left singular vectors, (rows, rank)."""
    up = svd.truncate(svd.Matrix.of(matrix, seed), FixedRank(rank)).up
    vectors: Tensor = up / torch.linalg.vector_norm(up, dim=0).clamp_min(1e-30)
    return vectors


def alpha_tensor(rank: int, dtype: str) -> LazyTensor:
    """alpha = rank: scale 1. bfloat16 has no 257, and every reader takes any float."""
    return scalar_tensor(rank, "F32" if dtype == "BF16" else dtype)


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
