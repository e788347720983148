"""Changes of biases and norms, which are vectors: kept as they are, beside the factors, where that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.tensors import stored_as, to_torch
from hubtool.errors import AdapterProblem, NonFinite
from hubtool.naming.address import ModuleRef, Role

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.extract_pairs import Comparison, Pair


class SmallChange(NamedTuple):
    """A vector's change."""

    module: ModuleRef
    role: Role
    names: tuple[str, ...]  # as `Comparison.beside` has them
    values: LazyTensor


class Wanted(NamedTuple):
    """Which vectors, and how they are stored."""

    biases: bool
    norms: bool
    dtype: str  # safetensors name


def small_changes(comparison: Comparison, pairs: Sequence[Pair], wanted: Wanted) -> list[SmallChange]:
    """The changes of biases of the modules compared, and of norms; only what did change.

    Raises:
        NonFinite: NaN or infinity among the values. AdapterProblem: a change is too large for the dtype.
    """
    found: list[SmallChange] = []
    if wanted.biases:
        found += _biases(comparison, pairs, wanted.dtype)
    if wanted.norms:
        found += _norms(comparison, wanted.dtype)
    return found


def _biases(comparison: Comparison, pairs: Sequence[Pair], dtype: str) -> Iterator[SmallChange]:
    for pair in pairs:
        fused = comparison.architecture.fused.get(pair.module.path) if len(pair.rows) > 1 else None
        paths = fused.parts if fused else (pair.module.path,)
        modules = [ModuleRef(pair.module.component, path) for path in paths]
        both = comparison.base.biases, comparison.tuned.biases
        if not all(module in biases for module in modules for biases in both):
            continue
        names = tuple(f"{path}.bias" for path in paths)
        changes = [
            _change(name, *(biases[module] for biases in both)) for name, module in zip(names, modules, strict=True)
        ]
        if any(bool(change.any()) for change in changes):
            yield SmallChange(pair.module, Role.DIFF_BIAS, names, _stored(names[0], torch.cat(changes), dtype))


def _norms(comparison: Comparison, dtype: str) -> Iterator[SmallChange]:
    base, tuned = comparison.base, comparison.tuned
    for module, weight in base.weights.items():
        if len(weight.tensor.shape) != 1 or module not in tuned.weights:
            continue
        parts = {Role.NORM_WEIGHT: (weight.tensor, tuned.weights[module].tensor)}
        if module in base.biases and module in tuned.biases:
            parts[Role.NORM_BIAS] = (base.biases[module], tuned.biases[module])
        names = {Role.NORM_WEIGHT: module.path, Role.NORM_BIAS: f"{module.path}.bias"}
        changes = {role: _change(names[role], *both) for role, both in parts.items()}
        if any(bool(change.any()) for change in changes.values()):  # both or none: loaders look for the weight's
            for role, change in changes.items():
                yield SmallChange(module, role, (names[role],), _stored(names[role], change, dtype))


def _change(name: str, base: LazyTensor, tuned: LazyTensor) -> torch.Tensor:
    for which, tensor in (("base", base), ("tuned", tuned)):
        if not bool(torch.isfinite(to_torch(tensor).float()).all()):
            raise NonFinite(name, f"The {which} model holds NaN or infinity in {name}.")
    return to_torch(tuned).float() - to_torch(base).float()


def _stored(name: str, change: torch.Tensor, dtype: str) -> LazyTensor:
    try:
        return stored_as(change, dtype)
    except NonFinite as error:
        message = f"The change of {name} is too large to be stored as {dtype}."
        raise AdapterProblem(name, message, hint="Use `--dtype fp32`.") from error


def joined(
    factors: Mapping[ModuleRef, Mapping[Role, LazyTensor]], small: Sequence[SmallChange]
) -> dict[ModuleRef, dict[Role, LazyTensor]]:
    """Tensors of each module, vectors included."""
    found = {module: dict(tensors) for module, tensors in factors.items()}
    for change in small:
        found.setdefault(change.module, {})[change.role] = change.values
    return found
