"""Merging without loss: factors side by side, vectors added up, and a layer alone at another strength.

Values are computed when they are written, so that memory holds one tensor at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubtool.adapters.layer import Layer
from hubtool.adapters.rewriting import computed
from hubtool.adapters.scaling import multiplied
from hubtool.errors import NonFinite, NotRepresentable
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.dialect import dialect
from hubtool.operations.adapter_output import lora_layer
from hubtool.operations.factors import Factors, added, truncated
from hubtool.operations.ranks import FixedRank

# after our own modules: hubtool.adapters.tensors says what to install where torch is missing
import torch  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hubtool.formats.tensor import LazyTensor
    from hubtool.operations.merge import Term

VECTOR_ROLES = frozenset({Role.NORM_WEIGHT, Role.NORM_BIAS, Role.DIFF_BIAS, Role.UP_BIAS})
_ALONE = (Role.DIFF, Role.DIFF_BIAS, Role.DIFF_MODULATION, Role.NORM_WEIGHT, Role.NORM_BIAS)  # never scaled by alpha


def scaled_layer(layer: Layer, strength: float) -> Layer:
    """The same layer at another strength: alpha takes it where there is one, so that the factors stay bit for bit."""
    if strength == 1:
        return layer
    tensors = {role: multiplied(t, strength, layer.base) if role in _ALONE else t for role, t in layer.tensors.items()}
    kind = layer.parametrization
    if layer.rank and kind and kind.id in {"lora", "loha", "lokr"}:
        tensors.pop(Role.SCALE, None)
        tensors[Role.ALPHA] = _alpha(layer.scale * abs(strength) * layer.rank, layer.base)
        if strength < 0:  # readers differ about negative alphas
            tensors = _negated(tensors)
    elif kind and kind.id == "lokr":  # both factors whole: alpha means nothing
        tensors[Role.LOKR_W1] = multiplied(tensors[Role.LOKR_W1], strength, layer.base)
    return Layer(tensors, layer.base)


def _alpha(value: float, name: str) -> LazyTensor:
    try:
        return scalar_tensor(value)
    except OverflowError:
        message = f"An alpha of {value:.3g} for {name} does not fit F32."
        raise NonFinite(name, message, hint="Choose a smaller strength.") from None


def _negated(tensors: dict[Role, LazyTensor]) -> dict[Role, LazyTensor]:
    firsts = (Role.UP, Role.EMBEDDING_UP, Role.HADA_W1_A, Role.LOKR_W1, Role.LOKR_W1_A)
    first = next(role for role in firsts if role in tensors)
    found = {**tensors, first: multiplied(tensors[first], -1)}
    if Role.UP_BIAS in found:
        found[Role.UP_BIAS] = multiplied(found[Role.UP_BIAS], -1)
    return found


def joined(module: ModuleRef, terms: Sequence[Term], beside: Layer | None, dtype: str) -> Layer | None:
    """All factors of a module side by side at alpha = rank; plain differences as their sum.

    Raises:
        NotRepresentable: a change has no thin factors, and others that it would have to stand beside have.
    """
    more = dict(beside.tensors) if beside else {}
    shape = terms[0].share.shape
    ranks = [term.share.rank for term in terms]
    if all(Role.DIFF in term.share.layer.tensors for term in terms):
        whole = computed(
            dtype, shape, lambda: added([term.factors() for term in terms]).dense().reshape(shape), module.path
        )
        return Layer({Role.DIFF: whole, **more}, module.path)
    if None in ranks:
        base = next(term.share.layer.base for term, rank in zip(terms, ranks, strict=True) if rank is None)
        message = f"The change of {base} has no thin factors that could stand beside another's in {module.path}."
        raise NotRepresentable(base, message, hint="Use `--method svd --rank N`.")
    total = sum(rank for rank in ranks if rank)
    if total > min(shape[0], math.prod(shape[1:])):  # more directions than the weight has
        found = truncated(
            added([term.factors() for term in terms]), FixedRank(min(shape[0], math.prod(shape[1:]))), module.path
        )
        layer = lora_layer(found, shape, module.path, (dtype, 1.0)).layer
        return layer.having({**layer.tensors, **more})
    if not total:
        return beside
    up = computed(dtype, (shape[0], total, *(1,) * len(shape[2:])), lambda: _lefts(terms), module.path)
    down = computed(dtype, (total, *shape[1:]), lambda: _rights(terms), module.path)
    return Layer({Role.UP: up, Role.DOWN: down, Role.ALPHA: scalar_tensor(total), **more}, module.path)


def _lefts(terms: Sequence[Term]) -> Tensor:
    return torch.cat([term.share.factors().left * (term.strength / _balance(term)) for term in terms], 1)


def _rights(terms: Sequence[Term]) -> Tensor:
    rights = ((term, term.share.factors().right) for term in terms)
    return torch.cat([right * _balance(term) for term, right in rights if right is not None])


def _balance(term: Term) -> float:
    """The power of two that goes to `down`: half of the whole scale, so that neither factor becomes too small for float16."""
    scale = abs(term.strength * term.share.layer.scale)
    return 2.0 ** round(math.log2(scale) / 2) if scale else 1.0


def vectors(terms: Sequence[Term], spoken: str, dtype: str) -> Layer | None:
    """Changes of norms and biases, added up; None if no file has any."""
    found: dict[Role, list[tuple[Term, float, Role]]] = {}
    for term in terms:
        for role in sorted(VECTOR_ROLES & term.share.layer.tensors.keys()):
            scale = term.share.layer.scale if role is Role.UP_BIAS else 1.0
            kept = _bias_role(spoken, term) if role in {Role.DIFF_BIAS, Role.UP_BIAS} else role
            found.setdefault(kept, []).append((term, scale * term.strength, role))
    if not found:
        return None
    rows = terms[0].share.shape[0]
    return Layer({role: _vector_sum(parts, rows, dtype) for role, parts in found.items()}, terms[0].share.layer.base)


def _bias_role(spoken: str, term: Term) -> Role:
    """PEFT's word for a bias or the others', as the dialect has it; beside a scale of 1 they mean the same."""
    return Role.DIFF_BIAS if dialect(spoken).says(Role.DIFF_BIAS, term.share.source.component) else Role.UP_BIAS


def _vector_sum(parts: Sequence[tuple[Term, float, Role]], rows: int, dtype: str) -> LazyTensor:
    def total() -> Tensor:
        columns = []
        for term, scale, role in parts:
            share, vector = term.share, Factors(term.share.layer.float(role).reshape(-1, 1) * scale, None)
            whole = vector.halves_swapped() if share.swapped else vector.rows(*share.taken)
            columns.append(whole.among(share.start, rows))
        return added(columns).dense().flatten()

    return computed(dtype, (rows,), total, parts[0][0].share.layer.base)
