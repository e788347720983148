"""Scales and alphas kept in the header's metadata, for dialects whose keys have no alpha.

`lora_adapter_metadata` is diffusers' (since 0.35): a JSON string of PEFT's config, flat, prefixed with the component
(`transformer.lora_alpha`, `transformer.rank_pattern`, …). `hubtool.alpha` is ours: the alphas of the file that was converted,
and what they were folded into, so that converting back restores every byte.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.layer import PEFT_TERMS
from hubtool.adapters.metadata import read_json, read_number
from hubtool.adapters.patterns import Patterns
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import Shape
    from hubtool.naming.architecture import Architecture

PEFT_KEY = "lora_adapter_metadata"
OURS_KEY = "hubtool.alpha"
_FIELDS = ("lora_alpha", "alpha", "r", "rank_pattern", "alpha_pattern", "use_rslora")
_MAX_CONFIG = 4_000_000  # bytes; a million patterns are no configuration


class OriginalAlpha(NamedTuple):
    """An alpha tensor as a source file had it; `folded` is what its factor was multiplied with (1: nothing)."""

    alpha: float
    dtype: str
    shape: Shape
    folded: float


# ---------------------------------------------------------------- diffusers' record


def component_name(target: Architecture, component: Component) -> str:
    """What diffusers calls a component: unet, transformer, text_encoder and so on."""
    return target.denoiser if component is Component.DENOISER else target.encoders[component].diffusers


def recorded_scales(
    target: Architecture, metadata: Mapping[str, str], layers: Mapping[ModuleRef, Layer]
) -> dict[ModuleRef, float]:
    """The scale that diffusers applies to each module because of `lora_adapter_metadata`; empty without it.

    alpha / r, or alpha / √r with `use_rslora`. Patterns name modules as PEFT's do.
    """
    table = _json_object(metadata.get(PEFT_KEY, ""))
    found: dict[ModuleRef, float] = {}
    for component in {module.component for module in layers} if table else ():
        config = _config(table, component_name(target, component))
        patterns, general = Patterns(config.get("alpha_pattern")), config.get("lora_alpha", config.get("alpha"))
        root = config.get("use_rslora") is True
        for module, layer in layers.items():
            rank = layer.rank
            if module.component is not component or not rank:
                continue
            # transformers >= 5.6 has no text_model level
            stated = patterns.value(module.path.removeprefix("text_model."), patterns.value(module.path, general))
            alpha = read_number(stated)
            if alpha is not None:
                found[module] = alpha / math.sqrt(rank) if root else alpha / rank
    return found


def recorded_terms(metadata: Mapping[str, str]) -> int:
    """How PEFT's OFT computes its rotations (see `Values.series_terms`), as its config says or by default."""
    table = _json_object(metadata.get(PEFT_KEY, ""))
    fields = {key.rpartition(".")[2]: value for key, value in table.items()}
    if fields.get("use_cayley_neumann") is False:
        return 0
    terms = fields.get("num_cayley_neumann_terms")
    return terms if type(terms) is int and 1 <= terms <= 100 else PEFT_TERMS


def _config(table: Mapping[str, object], component: str) -> dict[str, object]:
    """One component's part; files of a single component leave the prefix out."""
    prefixed = {field: table[f"{component}.{field}"] for field in _FIELDS if f"{component}.{field}" in table}
    return prefixed or {field: table[field] for field in _FIELDS if field in table}


def config_beside(path: Path) -> dict[str, str]:
    """`adapter_config.json`, which PEFT writes beside `adapter_model.safetensors`, in the form of header metadata.

    Its `alpha` (LoHa, LoKr) or `lora_alpha` is nowhere in the file itself.
    """
    config = path.with_name("adapter_config.json")
    if path.name != "adapter_model.safetensors" or not config.is_file() or config.stat().st_size > _MAX_CONFIG:
        return {}
    return {PEFT_KEY: config.read_text("utf-8", errors="replace")}


def peft_record(target: Architecture, layers: Mapping[ModuleRef, Layer]) -> str:
    """`lora_adapter_metadata` for LoRA modules.

    diffusers builds PEFT's config from it, scales as it says, and loads magnitudes and biases only if it says so.
    """
    table: dict[str, object] = {}
    for component in dict.fromkeys(module.component for module in layers):
        own = {module: layer for module, layer in layers.items() if module.component is component}
        fields = lora_fields(own) | {"target_modules": [module.path.removeprefix("text_model.") for module in own]}
        table |= {f"{component_name(target, component)}.{field}": value for field, value in fields.items()}
    return json.dumps(table, indent=2, sort_keys=True)


def lora_fields(layers: Mapping[ModuleRef, Layer], alpha_field: str = "lora_alpha") -> dict[str, object]:
    """PEFT's fields for ranks, alphas and modifiers of one component's modules."""
    ranks = {module: rank for module, layer in layers.items() if (rank := layer.rank)}
    alphas = {module: layers[module].scale * rank for module, rank in ranks.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "r": rank,
        alpha_field: alpha,
        "rank_pattern": {_pattern(module): own for module, own in ranks.items() if own != rank},
        "alpha_pattern": {_pattern(module): own for module, own in alphas.items() if own != alpha},
        "use_dora": any(Role.MAGNITUDE in layer.tensors for layer in layers.values()),
        "lora_bias": any(Role.UP_BIAS in layer.tensors for layer in layers.values()),
        "use_rslora": False,
    }


def _pattern(module: ModuleRef) -> str:
    """A pattern of one module: anchored, but for encoders, whose first level depends on the version of transformers."""
    if module.component is Component.DENOISER:
        return "^" + re.escape(module.path)
    return re.escape(module.path.removeprefix("text_model."))


# ---------------------------------------------------------------- our record


def record_alphas(originals: Mapping[ModuleRef, OriginalAlpha | None]) -> str:
    """The value of `hubtool.alpha`: rows of equal alphas, the commonest without its list of modules."""
    groups: dict[OriginalAlpha | None, list[str]] = {}
    for module, original in originals.items():
        groups.setdefault(original, []).append(_name(module))
    commonest = max(groups, key=lambda row: len(groups[row]))
    rows: list[dict[str, object]] = []
    for original, modules in groups.items():
        row: dict[str, object] = {"alpha": None} if original is None else dict(original._asdict())
        if original != commonest:
            row["modules"] = modules
        rows.append(row)
    return json.dumps(rows, separators=(",", ":"))


def recall_alphas(
    metadata: Mapping[str, str], modules: Mapping[ModuleRef, object]
) -> dict[ModuleRef, OriginalAlpha | None]:
    """What `record_alphas` wrote, for the modules at hand; empty if there is no readable record."""
    rows = _json_rows(metadata.get(OURS_KEY, ""))
    named = {name: _original(row) for row in rows for name in _names(row)}
    rest = [row for row in rows if "modules" not in row]
    if not rows or len(rest) != 1:
        return {}
    common = _original(rest[0])
    return {module: named.get(_name(module), common) for module in modules}


def _name(module: ModuleRef) -> str:
    return f"{module.component.value}:{module.path}"


def _names(row: Mapping[str, object]) -> list[str]:
    modules = row.get("modules")
    return [str(name) for name in modules] if isinstance(modules, list) else []


def _original(row: Mapping[str, object]) -> OriginalAlpha | None:
    alpha, folded = read_number(row.get("alpha")), read_number(row.get("folded"))
    shape, dtype = row.get("shape"), str(row.get("dtype"))
    if alpha is None or not folded or not isinstance(shape, list) or shape not in ([], [1], [1, 1]):
        return None
    original = OriginalAlpha(alpha, dtype, (1,) * len(shape), folded)
    return original if _is_storable(original) else None


def _is_storable(original: OriginalAlpha) -> bool:
    """Whether a tensor of this dtype can hold exactly this number: what was read from one can, an edited record may not."""
    try:
        return scalar_tensor(original.alpha, original.dtype).scalar() == original.alpha
    except (KeyError, ValueError, OverflowError, struct.error):
        return False


def _json_object(text: str) -> dict[str, object]:
    value = read_json(text)
    return value if isinstance(value, dict) else {}


def _json_rows(text: str) -> list[dict[str, object]]:
    value = read_json(text)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
