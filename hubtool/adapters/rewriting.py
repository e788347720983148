"""Changes of one module's form that leave its meaning: Tucker cores folded, DoRA magnitudes reshaped, dtypes changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.adapters.scaling import ROUNDING
from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.formats.tensor import DTYPE_BITS, LazyTensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer

_FLOATS = ("F64", "F32", "BF16", "F16", "F8_E5M2", "F8_E4M3")


def fold_tucker(adapter: Adapter, dialect_id: str) -> tuple[Adapter, dict[ModuleRef, float]]:
    """Tucker cores multiplied into `down` where the dialect has no word for them: the same change, one rounding more."""
    spoken = dialect(dialect_id)
    layers, rounded = dict(adapter.layers), {}
    for module, layer in adapter.layers.items():
        if Role.MID in layer.tensors and not spoken.says(Role.MID, module.component):
            layers[module] = _core_folded(layer)
            rounded[module] = ROUNDING.get(layer.tensors[Role.DOWN].dtype, 2.0**-4)
    return replace(adapter, layers=layers), rounded


def _core_folded(layer: Layer) -> Layer:
    mid, down = layer.tensors[Role.MID], layer.tensors[Role.DOWN]
    shape = (mid.shape[0], down.shape[1], *mid.shape[2:])

    def compute() -> Tensor:
        from hubtool.adapters.parametrizations.lora import whole_down  # noqa: PLC0415  # torch comes with it

        return whole_down(layer.float(Role.MID), layer.float(Role.DOWN))

    tensors = {**layer.without(Role.MID), Role.DOWN: computed(down.dtype, shape, compute)}
    return layer.having(tensors)


def magnitudes_for(adapter: Adapter, dialect_id: str) -> Adapter:
    """DoRA magnitudes in the shape the dialect has: PEFT's (out) or (1, out, 1, 1), LyCORIS's (out, 1…).

    Raises:
        NotRepresentable: PEFT has no magnitude per input column.
    """
    flat = dialect_id in {"diffusers", "peft"}
    layers = {}
    for module, layer in adapter.layers.items():
        tensor = layer.tensors.get(Role.MAGNITUDE)
        layers[module] = layer if tensor is None else _with_magnitude(layer, tensor, flat=flat)
    return replace(adapter, layers=layers)


def _with_magnitude(layer: Layer, tensor: LazyTensor, *, flat: bool) -> Layer:
    rows = layer.extent.rows
    kernel = max(0, len(layer.tensors[Role.DOWN].shape) - 2) if Role.DOWN in layer.tensors else 0
    peft_convolution = len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.shape[1] == rows and kernel > 0
    per_output = len(tensor.shape) == 1 or tensor.shape[0] == rows or peft_convolution
    if flat and not per_output:
        message = f"{layer.base} has a DoRA magnitude per input column, which PEFT and diffusers do not know."
        raise NotRepresentable(layer.base, message, hint="Keep it in the kohya or comfyui dialect.")
    count = tensor.nbytes * 8 // DTYPE_BITS[tensor.dtype]
    if not per_output:
        return layer
    if flat:
        shape: tuple[int, ...] = (1, count, *(1,) * kernel) if kernel else (count,)
    else:
        shape = (count, 1, *(1,) * kernel)
    return layer.having({**layer.tensors, Role.MAGNITUDE: tensor.reshaped(shape)})


def recast(adapter: Adapter, dtype: str) -> tuple[Adapter, dict[ModuleRef, float]]:
    """All factors in another dtype; alphas keep theirs. Widening is exact.

    Raises:
        UsageProblem: the dtype is none that weights are stored in.
    """
    if dtype not in _FLOATS:
        raise UsageProblem(f"Weights cannot be stored as {dtype}.", hint=f"Choose one of {', '.join(_FLOATS)}.")
    layers, rounded = {}, {}
    for module, layer in adapter.layers.items():
        tensors = {
            role: _cast(tensor, dtype) if _is_factor(role, tensor) else tensor for role, tensor in layer.tensors.items()
        }
        layers[module] = layer.having(tensors)
        narrowed = [t.dtype for role, t in layer.tensors.items() if _is_factor(role, t) and not _widens(t.dtype, dtype)]
        if narrowed:
            rounded[module] = ROUNDING.get(dtype, 2.0**-4)
    return replace(adapter, layers=layers), rounded


def _is_factor(role: Role, tensor: LazyTensor) -> bool:
    return tensor.dtype in _FLOATS and role not in {Role.ALPHA, Role.SCALE} and bool(tensor.shape)


def _widens(old: str, new: str) -> bool:
    """Whether every value of one dtype is a value of the other."""
    return new in {old, "F64"} or (new == "F32" and old != "F64") or (new == "F16" and old.startswith("F8"))


def _cast(tensor: LazyTensor, dtype: str) -> LazyTensor:
    if tensor.dtype == dtype:
        return tensor

    def compute() -> Tensor:
        from hubtool.adapters.tensors import to_torch  # noqa: PLC0415  # renames do without torch

        return to_torch(tensor)

    return computed(dtype, tensor.shape, compute)


def computed(dtype: str, shape: tuple[int, ...], compute: Callable[[], Tensor]) -> LazyTensor:
    """A tensor that is computed, cast and checked when its bytes are asked for."""

    def view() -> memoryview:
        from hubtool.adapters.tensors import stored_as  # noqa: PLC0415  # renames do without torch

        return stored_as(compute(), dtype).view()

    return LazyTensor(dtype, shape, view)
