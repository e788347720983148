"""Modules made regular: copies removed, keys spelt in one dialect, alphas as plain numbers. No module's change is altered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode, encode
from hubtool.adapters.fusion import RECORD_KEY, fit
from hubtool.adapters.irregular import has_integer_alpha, has_shaped_alpha, lacking_alpha, misspelt
from hubtool.adapters.recorded import PEFT_KEY
from hubtool.adapters.rewriting import magnitudes_for
from hubtool.adapters.scaling import plan_alphas, with_alpha_tensors, without_alpha_tensors
from hubtool.errors import KeyClash, MissingExtra, NotRepresentable
from hubtool.formats.safetensors import printable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Address, ModuleRef, Role
from hubtool.naming.dialect import dialect
from hubtool.operations.fix import Fix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.safetensors import SafetensorsFile

_ALPHA_DTYPES = ("F16", "BF16", "F32", "F64")
_EXACT_INTEGERS = 1 << 24  # F32 holds all up to here


@dataclass(frozen=True, slots=True, eq=False)
class RegularModules:
    """The tensors to write, what they are, and what was mended."""

    tensors: Mapping[str, LazyTensor]
    adapter: Adapter  # the tensors read back: what the output will be taken for
    metadata: Mapping[str, str]
    fixes: tuple[Fix, ...]


def regular_modules(file: SafetensorsFile, source: Adapter, fixes: list[Fix]) -> RegularModules:
    """Everything about the tensors of a sound file that can be mended, after what `fixes` say was mended already."""
    keys = {tensor: key for key, tensor in file.tensors.items()}
    adapter, more = _without_strays(source, keys)
    fixes = fixes + more
    adapter, more = _with_regular_alphas(adapter)
    fixes += more
    tensors, metadata, more = _spelt(adapter, {**keys, **_keys_of_alphas(adapter, source, keys)}, source.metadata)
    fixes += more
    again = decode(replace(file, tensors=tensors), architecture_id=source.architecture.id)
    return RegularModules(tensors, again, metadata, tuple(fixes))


def _without_strays(adapter: Adapter, keys: Mapping[LazyTensor, str]) -> tuple[Adapter, list[Fix]]:
    """Alphas of modules that have nothing else: no program does anything with them."""
    strays = [module for module, layer in adapter.layers.items() if layer.tensors.keys() <= {Role.ALPHA, Role.SCALE}]
    if len(strays) == len(adapter.layers):
        return adapter, []
    gone = [keys[tensor] for module in strays for tensor in adapter.layers[module].tensors.values()]
    layers = {module: layer for module, layer in adapter.layers.items() if module not in strays}
    fixes = [Fix("W_ORPHAN_KEY", key, f"{printable(key)} belongs to no module and was removed.") for key in gone]
    return replace(adapter, layers=layers), fixes


# ---------------------------------------------------------------- alphas


def _with_regular_alphas(adapter: Adapter) -> tuple[Adapter, list[Fix]]:
    """Alphas as plain floating-point numbers, and one for each module where the dialect has them."""
    lacking, layers, fixes = set(lacking_alpha(adapter)), dict(adapter.layers), list[Fix]()
    common = _common_dtype(adapter)
    for module, layer in adapter.layers.items():
        name, shown = layer.base, printable(layer.base)
        if module in lacking and layer.rank:
            layers[module] = _with_alpha(layer, _number(layer.rank, common))
            fixes.append(Fix("W_ALPHA_MISSING", name, f"{shown}: alpha is the rank, {layer.rank}."))
        elif has_integer_alpha(layer) or has_shaped_alpha(layer):
            code = "W_ALPHA_INTEGER" if has_integer_alpha(layer) else "W_ALPHA_SHAPE"
            layers[module] = _with_alpha(layer, _plain(layer.tensors[Role.ALPHA]))
            fixes.append(Fix(code, name, f"{shown}: alpha is the plain number {layer.alpha:g}."))
    return replace(adapter, layers=layers), fixes


def _with_alpha(layer: Layer, alpha: LazyTensor) -> Layer:
    return layer.having({**layer.tensors, Role.ALPHA: alpha})


def _common_dtype(adapter: Adapter) -> str:
    alphas = [layer.tensors[Role.ALPHA].dtype for layer in adapter.layers.values() if Role.ALPHA in layer.tensors]
    usual = Counter(dtype for dtype in alphas if dtype in _ALPHA_DTYPES).most_common(1)
    return usual[0][0] if usual else "F32"


def _number(value: float, dtype: str) -> LazyTensor:
    """A number in this dtype, or in F32 where it would be rounded."""
    tensor = scalar_tensor(value, dtype)
    return tensor if tensor.scalar() == value else scalar_tensor(value)


def _plain(tensor: LazyTensor) -> LazyTensor:
    """The same number without dimensions, as a float."""
    if tensor.dtype in _ALPHA_DTYPES:
        return tensor.reshaped(())
    value = tensor.scalar()
    return scalar_tensor(value, "F32" if abs(value) <= _EXACT_INTEGERS else "F64")


def _keys_of_alphas(adapter: Adapter, source: Adapter, keys: Mapping[LazyTensor, str]) -> dict[LazyTensor, str]:
    """What the alphas made here are called: as the ones they replace, else as the dialect has it."""
    spoken, found = dialect(adapter.dialect), {}
    for module, layer in adapter.layers.items():
        alpha = layer.tensors.get(Role.ALPHA)
        if alpha is None or alpha in keys:
            continue
        old = source.layers[module].tensors.get(Role.ALPHA)
        found[alpha] = layer.base + spoken.suffix(Address(*module, Role.ALPHA)) if old is None else keys[old]
    return found


# ---------------------------------------------------------------- keys


def _spelt(
    adapter: Adapter, keys: Mapping[LazyTensor, str], metadata: Mapping[str, str]
) -> tuple[dict[str, LazyTensor], Mapping[str, str], list[Fix]]:
    """Every tensor under its key: its own where that is one of the dialect's, else as the dialect writes it."""
    odd = [module for module in _to_respell(adapter, keys) if _is_sayable(adapter, module)]
    respelt = _respelt(adapter, odd, metadata)
    tensors = dict(adapter.leftovers)
    for module, layer in adapter.layers.items():
        if respelt is None or module not in odd:
            tensors |= {keys[tensor]: tensor for tensor in layer.tensors.values()}
    if respelt is None or tensors.keys() & respelt.tensors.keys():
        kept = {keys[tensor]: tensor for layer in adapter.layers.values() for tensor in layer.tensors.values()}
        return {**adapter.leftovers, **kept}, metadata, []
    code = "W_MALFORMED" if adapter.malformed else "W_MIXED_DIALECT"
    bases = [adapter.layers[module].base for module in odd]
    fixes = [Fix(code, base, f"{printable(base)} is spelt as {adapter.dialect} spells it.") for base in bases]
    return {**tensors, **respelt.tensors}, respelt.metadata, fixes


def _to_respell(adapter: Adapter, keys: Mapping[LazyTensor, str]) -> list[ModuleRef]:
    """Misspelt modules and, if there are any, all others that are not spelt as these will be."""
    odd = set(misspelt(adapter, keys))
    written = dialect(adapter.dialect).written(adapter.architecture) if odd else {}
    return [
        module
        for module, layer in adapter.layers.items()
        if odd and (module in odd or written.get(module) != layer.base)
    ]


def _is_sayable(adapter: Adapter, module: ModuleRef) -> bool:
    spoken, roles = dialect(adapter.dialect), adapter.layers[module].tensors.keys() - {Role.ALPHA}
    return all(spoken.says(role, module.component) for role in roles)


@dataclass(frozen=True, slots=True, eq=False)
class _Respelt:
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]


def _respelt(adapter: Adapter, modules: list[ModuleRef], metadata: Mapping[str, str]) -> _Respelt | None:
    """These modules in the adapter's own dialect; None where that cannot be done without losing or moving anything."""
    if not modules:
        return None
    some = replace(
        adapter, layers={module: adapter.layers[module] for module in modules}, leftovers={}, metadata=metadata
    )
    try:
        plan = plan_alphas(some, adapter.dialect)
        fitted = fit(some, adapter.dialect)
        kept = plan.outcome == "kept"
        if plan.outcome == "recorded" or plan.inexact or fitted.inexact or (PEFT_KEY in metadata and not kept):
            return None
        made = with_alpha_tensors(fitted.adapter) if kept else without_alpha_tensors(fitted.adapter, plan)
        joined = {key: text for key, text in fitted.adapter.metadata.items() if key == RECORD_KEY}
        return _Respelt(encode(magnitudes_for(made, adapter.dialect), adapter.dialect), {**metadata, **joined})
    except (NotRepresentable, KeyClash, MissingExtra):
        return None
