"""Two adapters' changes of one module, compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import NonFinite
from hubtool.naming.address import Role
from hubtool.operations.factors import Factors, added, changes_weight, inner, is_additive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hubtool.naming.address import ModuleRef
    from hubtool.operations.placement import Share

_VECTORS = (Role.DIFF_BIAS, Role.UP_BIAS, Role.NORM_BIAS)


_Changes = tuple["Factors | None", "Factors | None"]  # of the weight and of the bias


@dataclass(frozen=True, slots=True)
class ModuleDiff:
    """One module. Norms are None where the change depends on the base model and was compared by its tensors."""

    module: str
    component: str
    status: str  # "equal", "differs", "only_a", "only_b", "nothing" (neither changes anything) or "unknown"
    norm_a: float | None
    norm_b: float | None
    cosine: float | None
    relative_error: float | None  # ‖ΔW_A − ΔW_B‖ / ‖ΔW_A‖; None where A's change is nothing


def compare_module(module: ModuleRef, one: Sequence[Share], two: Sequence[Share], tolerance: float) -> ModuleDiff:
    """Compare what two files do to a module; `tolerance` is the relative error up to which it is the same.

    Raises:
        NonFinite: NaN or infinity among the values.
        BrokenAdapter: tensors that do not go together.
    """
    if all(is_additive(share.layer) for share in (*one, *two)):
        row = _by_change(module, _sums(one), _sums(two), tolerance)
        # zeros are what the file says of a module, and no silence about it
        return replace(row, status="differs") if one and two and row.status in {"only_a", "only_b"} else row
    if not one or not two:
        return ModuleDiff(*_name(module), "only_a" if one else "only_b", None, None, None, None)
    return _by_tensors(module, one, two, tolerance)


def _by_change(module: ModuleRef, one: _Changes, two: _Changes, tolerance: float) -> ModuleDiff:
    """Weight and bias as two changes, each compared with its like."""
    pairs = [(_inner(a, a), _inner(b, b), _inner(a, b)) for a, b in zip(one, two, strict=True)]
    if not all(math.isfinite(number) for row in pairs for number in row):
        raise NonFinite(module.path, f"{module.path} holds NaN or infinity.")
    a, b, product = (sum(column) for column in zip(*pairs, strict=True))
    left = sum(max(x + y - 2 * z, 0.0) for x, y, z in pairs)
    if not a or not b:
        status = "nothing" if a == b else "only_a" if a else "only_b"
        return ModuleDiff(*_name(module), status, math.sqrt(a), math.sqrt(b), None, None if not a else 1.0)
    error = math.sqrt(left / a)
    worst = max(math.sqrt(max(x + y - 2 * z, 0.0) / max(x, y)) for x, y, z in pairs if x or y)
    status = "equal" if worst <= tolerance else "differs"
    cosine = max(-1.0, min(1.0, product / math.sqrt(a * b)))
    return ModuleDiff(*_name(module), status, math.sqrt(a), math.sqrt(b), cosine, error)


def _sums(shares: Sequence[Share]) -> _Changes:
    weights = [share.factors() for share in shares if changes_weight(share.layer)]
    biases = [_bias(share, role) for share in shares for role in _VECTORS if role in share.layer.tensors]
    return added(weights) if weights else None, added(biases) if biases else None


def _inner(one: Factors | None, two: Factors | None) -> float:
    return inner(one, two) if one and two else 0.0


def _bias(share: Share, role: Role) -> Factors:
    scale = share.layer.scale if role is Role.UP_BIAS else 1.0
    return share.rows_of(Factors(share.layer.float(role).reshape(-1, 1) * scale, None))


def _by_tensors(module: ModuleRef, one: Sequence[Share], two: Sequence[Share], tolerance: float) -> ModuleDiff:
    """Role by role: enough to say that two files are the same, never that they are not."""
    first, second = one[0], two[0]
    comparable = len(one) == len(two) == 1 and first.taken == second.taken
    roles = [role for role in first.layer.tensors if role not in {Role.ALPHA, Role.SCALE}]
    comparable &= set(roles) == set(second.layer.tensors) - {Role.ALPHA, Role.SCALE}
    comparable &= first.layer.scale == second.layer.scale
    if not comparable:
        return ModuleDiff(*_name(module), "unknown", None, None, None, None)
    errors = [_error(first.layer.float(role), second.layer.float(role)) for role in roles]
    if None in errors:
        return ModuleDiff(*_name(module), "unknown", None, None, None, None)
    worst = max((error for error in errors if error is not None), default=0.0)
    return ModuleDiff(*_name(module), "equal" if worst <= tolerance else "differs", None, None, None, worst)


def _error(one: Tensor, two: Tensor) -> float | None:
    """‖a − b‖ / ‖a‖ of as many elements; None of different numbers of them."""
    if one.numel() != two.numel():
        return None
    size = float(one.double().norm())
    left = float((one.double().flatten() - two.double().flatten()).norm())
    return left / size if size else (0.0 if not left else 1.0)


def _name(module: ModuleRef) -> tuple[str, str]:
    return module.path, module.component.value
