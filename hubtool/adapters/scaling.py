"""Alpha when the target dialect has no tensor for it: folded into a factor or recorded; and restored on the way back.

Folding is exact when the scale is a power of two and nothing under- or overflows: then only exponents change. Everything
else is recorded in `lora_adapter_metadata`, which diffusers honours. The original alphas are kept either way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hubtool.adapters.recorded import (
    OURS_KEY,
    PEFT_KEY,
    OriginalAlpha,
    peft_record,
    recall_alphas,
    record_alphas,
)
from hubtool.errors import NotRepresentable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import ModuleRef, Role
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer

AlphaMode = Literal["auto", "keep", "fold", "record"]
AlphaOutcome = Literal["kept", "folded", "recorded"]

#: Relative error of storing a product once, per dtype: half of the machine epsilon.
ROUNDING: Mapping[str, float] = {"F64": 2.0**-53, "F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}

#: The factor that a scale is multiplied into; the change is linear in it. The first that is there.
_FOLD_INTO: Mapping[str, tuple[Role, ...]] = {
    "lora": (Role.UP, Role.EMBEDDING_UP),
    "loha": (Role.HADA_W1_A,),
    "lokr": (Role.LOKR_W1, Role.LOKR_W1_A),
}


@dataclass(frozen=True, slots=True)
class AlphaPlan:
    """How the scales of an adapter will be said in a dialect; made before modules are split, carried out after."""

    outcome: AlphaOutcome
    originals: Mapping[ModuleRef, OriginalAlpha | None]  # of the modules as the source has them
    inexact: Mapping[ModuleRef, float]  # relative rounding of each module that folding rounds


def plan_alphas(adapter: Adapter, dialect_id: str, mode: AlphaMode = "auto") -> AlphaPlan:
    """Decide where every module's scale goes.

    Raises:
        NotRepresentable: `mode` asks for what the dialect cannot say.
        MissingExtra: finding out whether folding is exact needs torch.
    """
    if dialect(dialect_id).says(Role.ALPHA):
        return AlphaPlan("kept", {}, {})
    if mode == "keep":
        hint = "Use `--alpha fold` or `--alpha record`."
        raise NotRepresentable("", f"The {dialect_id} dialect has no alpha tensors.", hint=hint)
    outcome = _outcome(adapter, mode)
    originals = {module: _original(layer) for module, layer in adapter.layers.items()}
    inexact: dict[ModuleRef, float] = {}
    for module, layer in adapter.layers.items():
        original, role = originals[module], _factor(layer)
        if outcome != "folded" or layer.scale == 1 or role is None:
            continue
        error = 0.0 if mode == "auto" else _folding_error(layer, role)
        if error:
            inexact[module] = error
        else:
            originals[module] = original and original._replace(folded=layer.scale)
    return AlphaPlan(outcome, originals, inexact)


# ---------------------------------------------------------------- towards a dialect with alpha


def with_alpha_tensors(adapter: Adapter) -> Adapter:
    """For a dialect that has alpha: what an earlier conversion folded or recorded becomes tensors again."""
    originals = recall_alphas(adapter.metadata, adapter.layers)
    layers = {
        module: _restored(layer, originals[module]) if originals.get(module) else _stated(layer)
        for module, layer in adapter.layers.items()
    }
    metadata = {key: text for key, text in adapter.metadata.items() if key not in {PEFT_KEY, OURS_KEY}}
    return replace(adapter, layers=layers, metadata=metadata)


def _restored(layer: Layer, original: OriginalAlpha | None) -> Layer:
    """The alpha tensor of the file this one was made from, and the factor as it was before folding.

    Only if that gives the scale that is in force now: somebody may have changed ranks meanwhile.
    """
    if original is None or Role.ALPHA in layer.tensors:
        return layer
    rank, now = layer.rank, original.folded * layer.scale
    if rank and original.alpha / rank != now:
        return _stated(layer)
    tensors = dict(layer.tensors)
    role = _factor(layer)
    if original.folded != 1 and role is not None:
        tensors |= {role: multiplied(tensors[role], 1 / original.folded) for role in _scaled(layer, role)}
    tensors[Role.ALPHA] = scalar_tensor(original.alpha, original.dtype, original.shape)
    return layer.having(tensors)


def _stated(layer: Layer) -> Layer:
    """A scale that only metadata knows, as an alpha tensor; other readers ignore the metadata."""
    if layer.recorded_scale in {None, 1.0} or Role.ALPHA in layer.tensors or not layer.rank:
        return layer
    return layer.having({**layer.tensors, Role.ALPHA: scalar_tensor(layer.scale * layer.rank)})


# ---------------------------------------------------------------- towards a dialect without


def without_alpha_tensors(adapter: Adapter, plan: AlphaPlan) -> Adapter:
    """For a dialect that has no alpha: carry out the plan on modules that are already as the dialect has them.

    Raises:
        NotRepresentable: a scale can neither be folded nor recorded.
    """
    layers: dict[ModuleRef, Layer] = {}
    multiplied_now = False
    for module, layer in adapter.layers.items():
        tensors, role = layer.without(Role.ALPHA, Role.SCALE), _factor(layer)
        if plan.outcome == "folded" and layer.scale != 1:
            multiplied_now = True
            if role is None:
                raise NotRepresentable(module.path, f"The scale of {module.path} cannot be folded into its tensors.")
            tensors |= {role: multiplied(tensors[role], layer.scale) for role in _scaled(layer, role)}
        layers[module] = replace(layer.having(tensors), recorded_scale=None)
    metadata = {key: text for key, text in adapter.metadata.items() if key not in {PEFT_KEY, OURS_KEY}}
    if plan.outcome == "recorded":
        metadata[PEFT_KEY] = _peft(adapter)
    if any(plan.originals.values()):
        metadata[OURS_KEY] = record_alphas(plan.originals)
    elif OURS_KEY in adapter.metadata and not multiplied_now:  # from one dialect without alphas to another
        metadata[OURS_KEY] = adapter.metadata[OURS_KEY]
    return replace(adapter, layers=layers, metadata=metadata)


def _outcome(adapter: Adapter, mode: AlphaMode) -> AlphaOutcome:
    if mode in {"fold", "record"}:
        return "folded" if mode == "fold" else "recorded"
    for layer in adapter.layers.values():
        role = _factor(layer)
        if layer.scale != 1 and (role is None or _folding_error(layer, role)):
            return "recorded"
    return "folded"


def _peft(adapter: Adapter) -> str:
    """diffusers' record of the scales.

    Raises:
        NotRepresentable: a module is no LoRA; the record has no place for its scale.
    """
    layers = {}
    for module, layer in adapter.layers.items():
        kind = layer.parametrization
        if kind is None or kind.id != "lora" or not layer.rank:
            if layer.scale != 1:
                message = f"The scale of {module.path} cannot be recorded: it is no LoRA."
                raise NotRepresentable(module.path, message, hint="Use `--alpha fold`.")
            continue
        layers[module] = layer
    return peft_record(adapter.architecture, layers)


def _original(layer: Layer) -> OriginalAlpha | None:
    tensor = layer.tensors.get(Role.ALPHA)
    return None if tensor is None else OriginalAlpha(tensor.scalar(), tensor.dtype, tensor.shape, 1.0)


def _factor(layer: Layer) -> Role | None:
    kind = layer.parametrization
    return next((role for role in _FOLD_INTO.get(kind.id, ()) if role in layer.tensors), None) if kind else None


def _scaled(layer: Layer, factor: Role) -> list[Role]:
    """What a scale is multiplied into: one factor, and the bias that goes with the update."""
    return [role for role in (factor, Role.UP_BIAS) if role in layer.tensors]


def _folding_error(layer: Layer, factor: Role) -> float:
    return max(folding_error(layer.tensors[role], layer.scale) for role in _scaled(layer, factor))


# ---------------------------------------------------------------- arithmetic


def is_power_of_two(value: float) -> bool:
    """Whether multiplying by this changes exponents only.

    >>> is_power_of_two(0.125), is_power_of_two(0.3)
    (True, False)
    """
    return math.isfinite(value) and abs(math.frexp(value)[0]) == 0.5


def folding_error(tensor: LazyTensor, scale: float) -> float:
    """The relative error of each element when a tensor is multiplied in its own dtype; 0 if every bit survives."""
    return 0.0 if _folds_exactly(tensor, scale) else ROUNDING.get(tensor.dtype, 2.0**-4)


def _folds_exactly(tensor: LazyTensor, scale: float) -> bool:
    if not is_power_of_two(scale):
        return False
    from hubtool.adapters.tensors import to_torch  # noqa: PLC0415  # renames do without torch

    values = to_torch(tensor)
    if values.dtype.itemsize == 1:
        values = values.float()
    return bool(((values * scale) / scale == values).all()) and _survives(tensor, scale)


def _survives(tensor: LazyTensor, scale: float) -> bool:
    """Whether the product, once stored in the tensor's dtype, still holds every bit."""
    from hubtool.adapters.tensors import to_torch  # noqa: PLC0415

    values = to_torch(tensor)
    product = (values.float() * scale).to(values.dtype)
    return bool((product.float() / scale == values.float()).all())


def multiplied(tensor: LazyTensor, factor: float, name: str = "") -> LazyTensor:
    """The tensor times a number, in its own dtype, computed when its bytes are asked for; `name` is for the error."""

    def product() -> memoryview:
        from hubtool.adapters.tensors import stored_as, to_torch  # noqa: PLC0415

        return stored_as(to_torch(tensor).double() * factor, tensor.dtype, name).view()

    compute: Callable[[], memoryview] = product
    return LazyTensor(tensor.dtype, tensor.shape, compute)
