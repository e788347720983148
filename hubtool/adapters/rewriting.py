"""Changes of one module's form that leave its meaning: Tucker cores folded, DoRA magnitudes reshaped, dtypes changed."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from hubtool.adapters.scaling import ROUNDING, folding_error, multiplied
from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.formats.tensor import LazyTensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import Shape

_PEFT = frozenset({"diffusers", "diffusers-old", "peft"})  # which have PEFT's magnitudes
#: What a module may have beside its factors, whatever these are; DoRA's magnitude only while nobody has worked it out.
BESIDE = frozenset({Role.DIFF_BIAS, Role.DIFF_MODULATION, Role.UP_BIAS, Role.MAGNITUDE, Role.ALPHA})
_INPUT_DORA = (
    "Keep it in the kohya or comfyui dialect, or work it out with `--parametrization lora --rank N --base CHECKPOINT`."
)
_FLOATS = ("F64", "F32", "BF16", "F16", "F8_E5M2", "F8_E4M3")


def is_to_be_rewritten(layer: Layer, shape: Shape | None, *, with_base: bool) -> bool:
    """Whether a module is something else than a plain LoRA of a matrix (norms and biases stay as they are)."""
    kind = layer.parametrization
    if kind is None or kind.id == "norm" or shape is None or len(shape) < 2 or layer.tensors.keys() <= BESIDE:
        return False
    if kind.id != "lora":
        return True
    whole = Role.UP not in layer.tensors and Role.EMBEDDING_UP not in layer.tensors
    return whole or Role.SPARSE_INDICES in layer.tensors or (with_base and Role.MAGNITUDE in layer.tensors)


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
    layers = {
        module: _with_magnitude(layer, to_peft=dialect_id in _PEFT, from_peft=adapter.dialect in _PEFT)
        for module, layer in adapter.layers.items()
    }
    return replace(adapter, layers=layers)


def _with_magnitude(layer: Layer, *, to_peft: bool, from_peft: bool) -> Layer:
    tensor = layer.tensors.get(Role.MAGNITUDE)
    # one number is no magnitude of anything: `validate` says so, and it is carried along as it is
    if tensor is None or not tensor.shape or (to_peft == from_peft and len(tensor.shape) > 1):
        return layer
    # only the writer tells (1, n, 1, 1) of PEFT's outputs from LyCORIS's inputs
    rows = layer.extent.rows or max(tensor.shape[:1], default=0)
    per_output = from_peft or len(tensor.shape) == 1 or (tensor.shape[0] == rows and rows > 1)
    if not per_output:
        message = f"{layer.base} has a DoRA magnitude per input column, which PEFT and diffusers do not know."
        raise NotRepresentable(layer.base, message, hint=_INPUT_DORA)
    like = layer.tensors.get(Role.DOWN, tensor)
    count, ones = prod(tensor.shape), (1,) * (max(len(like.shape), len(tensor.shape), 2) - 2)
    peft = (1, count, *ones) if ones else (count,)
    return layer.having({**layer.tensors, Role.MAGNITUDE: tensor.reshaped(peft if to_peft else (count, 1, *ones))})


def biases_for(adapter: Adapter, dialect_id: str) -> tuple[Adapter, dict[ModuleRef, float]]:
    """Biases of LoRAs as the dialect has them: PEFT's `lora_B.bias` is scaled like the update, `diff_b` is added as it is.

    ComfyUI reads `diff_b` alone (comfy/lora.py; for FLUX control LoRAs it renames the other), diffusers and PEFT the other.
    """
    spoken, layers, rounded = dialect(dialect_id), dict(adapter.layers), {}
    for module, layer in adapter.layers.items() if dialect_id != adapter.dialect else ():
        kind = layer.parametrization
        wanted = Role.DIFF_BIAS if spoken.says(Role.DIFF_BIAS, module.component) else Role.UP_BIAS
        other = Role.UP_BIAS if wanted is Role.DIFF_BIAS else Role.DIFF_BIAS
        tensor = layer.tensors.get(other)
        if tensor is None or kind is None or kind.id != "lora" or wanted in layer.tensors or not layer.scale:
            continue
        factor = layer.scale if wanted is Role.DIFF_BIAS else 1 / layer.scale
        if error := folding_error(tensor, factor) if factor != 1 else 0.0:
            rounded[module] = error
        bias = multiplied(tensor, factor) if factor != 1 else tensor
        layers[module] = layer.having({**layer.without(other), wanted: bias})
    return replace(adapter, layers=layers), rounded


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
            role: _cast(tensor, dtype, layer.base) if _is_factor(role, tensor) else tensor
            for role, tensor in layer.tensors.items()
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
    return new in {old, "F64"} or (new == "F32" and old != "F64") or (new in {"F16", "BF16"} and old.startswith("F8"))


def _cast(tensor: LazyTensor, dtype: str, name: str) -> LazyTensor:
    if tensor.dtype == dtype:
        return tensor

    def compute() -> Tensor:
        from hubtool.adapters.tensors import to_torch  # noqa: PLC0415  # renames do without torch

        return to_torch(tensor)

    return computed(dtype, tensor.shape, compute, name)


def computed(dtype: str, shape: tuple[int, ...], compute: Callable[[], Tensor], name: str = "") -> LazyTensor:
    """A tensor that is computed, cast and checked when its bytes are asked for; `name` is the module's, for the error."""

    def view() -> memoryview:
        from hubtool.adapters.tensors import stored_as  # noqa: PLC0415  # renames do without torch

        return stored_as(compute(), dtype, name).view()

    return LazyTensor(dtype, shape, view)
