"""PEFT's folders: `adapter_model.safetensors` and, beside it, the `adapter_config.json` that says what its tensors are.

huggingface/peft config.py and utils/save_and_load.py. A folder belongs to one model; text encoders have folders of their own
below it, as `PeftModel.from_pretrained(encoder, folder, subfolder="text_encoder")` finds them. Alphas live in the config alone.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.recorded import OURS_KEY, PEFT_KEY, component_name, lora_fields, record_alphas
from hubtool.adapters.unknown import is_unknown
from hubtool.errors import NotRepresentable
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import write_safetensors
from hubtool.naming.address import Component, ModuleRef, Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.adapters.recorded import OriginalAlpha
    from hubtool.formats.tensor import LazyTensor
    from hubtool.naming.architecture import Architecture

MODEL_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
Config = dict[str, object]
#: Fields of any LoRA; PEFT takes their defaults for granted, other readers of the file may not.
_LORA = {"peft_type": "LORA", "bias": "none", "fan_in_fan_out": False, "lora_dropout": 0.0}
_LOHA = {"peft_type": "LOHA", "rank_dropout": 0.0, "module_dropout": 0.0}
_COMMON = {"task_type": None, "base_model_name_or_path": None, "inference_mode": True, "modules_to_save": None}


def is_folder_of_peft(dialect_id: str, path: Path) -> bool:
    """Whether an output is the file that PEFT looks for in a folder, so that a config belongs beside it."""
    return dialect_id == "peft" and path.name == MODEL_NAME


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """An adapter without alphas, and the config of each component that says them instead."""

    adapter: Adapter
    configs: Mapping[Component, Config]  # the denoiser, which has the folder itself, first


def described(adapter: Adapter, originals: Mapping[ModuleRef, OriginalAlpha | None]) -> Described:
    """Move every scale into configs; our own record keeps the alphas as they were, for the way back.

    Raises:
        NotRepresentable: a component is not wholly LoRA or wholly LoHa, or only some of its modules have a magnitude; or the
            base model is unknown, so that nobody can say what its modules are called in PEFT.
    """
    if is_unknown(adapter):
        message = "A PEFT folder needs the names of the model's modules, and the base model is unknown."
        raise NotRepresentable("", message, hint="`-o FILE.safetensors` rewrites the suffixes alone.")
    present = {module.component for module in adapter.layers}
    configs = {component: _config(adapter, component) for component in Component if component in present}
    layers = {
        module: replace(layer.having(layer.without(Role.ALPHA, Role.SCALE)), recorded_scale=None)
        for module, layer in adapter.layers.items()
    }
    metadata = {key: text for key, text in adapter.metadata.items() if key not in {PEFT_KEY, OURS_KEY}}
    if any(originals.values()):
        metadata[OURS_KEY] = record_alphas(originals)
    return Described(replace(adapter, layers=layers, metadata=metadata), configs)


def write_directory(
    path: Path, found: Described, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], *, force: bool
) -> None:
    """Write `path` and its config, and folders below it for further components; `tensors` as the peft dialect has them.

    Raises:
        OutputExists, DiskFull, StorageProblem: from the disk; nothing was left behind.
    """
    target, rest = found.adapter.architecture, dict(tensors)
    names = {component: component_name(target, component) for component in found.configs}
    encoders: list[Component] = [component for component in found.configs if component is not Component.DENOISER]
    parts = {component: _taken(rest, f"{names[component]}.") for component in encoders}
    first = next(iter(found.configs))
    parts[first] = {**parts.get(first, {}), **rest}
    with ExitStack() as outputs:  # left in reverse, so that the folder's own model appears last
        for component, config in found.configs.items():
            folder = path.parent if component is first else path.parent / names[component]
            model = outputs.enter_context(atomic_output(folder / path.name, force=force))
            write_safetensors(model, parts[component], metadata)
            text = json.dumps(config, indent=2, sort_keys=True)
            outputs.enter_context(atomic_output(folder / CONFIG_NAME, force=force)).write(text.encode("utf-8"))


def _taken(rest: dict[str, LazyTensor], prefix: str) -> dict[str, LazyTensor]:
    """Tensors whose key begins so, without that beginning; they are gone from the rest."""
    return {key.removeprefix(prefix): rest.pop(key) for key in list(rest) if key.startswith(prefix)}


# ---------------------------------------------------------------- configs


def _config(adapter: Adapter, component: Component) -> Config:
    layers = {module: layer for module, layer in adapter.layers.items() if module.component is component}
    families = {kind.id if (kind := layer.parametrization) else "nothing" for layer in layers.values()}
    if families not in ({"lora"}, {"loha"}) or not all(layer.rank for layer in layers.values()):
        message = (
            f"A PEFT folder is wholly LoRA or wholly LoHa; the {component.value} has {', '.join(sorted(families))}."
        )
        raise NotRepresentable("", message, hint="`--parametrization lora` rewrites the others.")
    targets: Config = {"target_modules": _targets(adapter.architecture, layers)}
    if families == {"loha"}:
        whole = any(Role.HADA_T1 in layer.tensors for layer in layers.values())
        fields = lora_fields(layers, "alpha")
        own = {field: fields[field] for field in ("r", "alpha", "rank_pattern", "alpha_pattern")}
        return {**_COMMON, **_LOHA, "use_effective_conv2d": whole, **own, **targets}
    if len({Role.MAGNITUDE in layer.tensors for layer in layers.values()}) > 1:
        message = f"Only some modules of the {component.value} have a DoRA magnitude, which a PEFT folder cannot say."
        raise NotRepresentable("", message)
    return {**_COMMON, **_LORA, **lora_fields(layers), **targets}


def _targets(target: Architecture, layers: Mapping[ModuleRef, Layer]) -> list[str] | str:
    """Module paths; PEFT matches them as endings, so where one is the ending of another module too, an expression."""
    paths = [module.path for module in layers]
    known = target.modules if next(iter(layers)).component is Component.DENOISER else ()
    endings = tuple(f".{path}" for path in paths)
    if any(path.endswith(endings) and path not in paths for path in known):
        return "|".join(path.replace(".", r"\.") for path in paths)
    return paths
