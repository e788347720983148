"""Rules about alpha: one finite number, of a plausible size, as the metadata says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubtool.adapters.irregular import has_integer_alpha, has_shaped_alpha, lacking_alpha
from hubtool.adapters.recorded import PEFT_KEY
from hubtool.formats.safetensors import printable
from hubtool.naming.address import Role
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.adapters.layer import Layer

_HUGE = 64  # times the rank; LoRA+ and rsLoRA stay below 16


def numbers(subject: Subject) -> Iterator[Problem]:
    """Each alpha by itself; of many equal findings the first is told."""
    seen: set[str] = set()
    for layer in subject.layers:
        for found in _judge(layer):
            if found.code not in seen:
                seen.add(found.code)
                yield found


def _judge(layer: Layer) -> Iterator[Problem]:
    for role in {Role.ALPHA, Role.SCALE} & layer.tensors.keys():
        try:
            number = layer.tensors[role].scalar()
        except ValueError as error:
            yield problem("E_ALPHA", f"{printable(layer.base)}: {role.value} is {error}.", layer.base)
            return
        if not layer.rank:  # alone, a constraint (OFT) or without meaning (LoKr with whole factors)
            continue
        if not math.isfinite(number):
            yield problem("E_NONFINITE", f"{printable(layer.base)}: {role.value} is {number}.", layer.base)
        elif role is Role.ALPHA and (found := _judge_size(layer, number, printable(layer.base))):
            yield found


def forms(subject: Subject) -> Iterator[Problem]:
    """Alphas that careless readers stumble over, and alphas that are not there."""
    integers = [layer for layer in subject.layers if has_integer_alpha(layer)]
    if integers:
        message = f"{len(integers)} alphas are integers; diffusers refuses such files."
        yield problem("W_ALPHA_INTEGER", message, integers[0].base)
    shaped = [layer for layer in subject.layers if has_shaped_alpha(layer)]
    if shaped:
        message = f"{len(shaped)} alphas have a dimension; a number has none."
        yield problem("W_ALPHA_SHAPE", message, shaped[0].base)
    lacking = lacking_alpha(subject.adapter) if subject.adapter else []
    if lacking and subject.adapter:
        message = f"{len(lacking)} of {len(subject.layers)} modules have no alpha; their scale is 1."
        yield problem("W_ALPHA_MISSING", message, subject.adapter.layers[lacking[0]].base)


def recorded(subject: Subject) -> Iterator[Problem]:
    """Scales that only metadata know, or that nothing knows any more."""
    adapter = subject.adapter
    if adapter is None:
        return
    scales = {layer.recorded_scale for layer in subject.layers} - {None, 1.0}
    if scales:
        message = "The scale is in the metadata, which diffusers honours and ComfyUI ignores."
        yield problem("W_RECORDED_SCALE", message, PEFT_KEY)
    elif adapter.dialect == "peft" and PEFT_KEY not in adapter.metadata:
        message = "There is no adapter_config.json beside it; alpha is taken to be the rank."
        yield problem("W_NO_CONFIG", message)


def _judge_size(layer: Layer, alpha: float, name: str) -> Problem | None:
    if alpha == 0:
        return problem("W_ALPHA_ZERO", f"{name}: alpha is 0, the module has no effect.", layer.base)
    if alpha < 0:
        return problem("W_ALPHA_NEGATIVE", f"{name}: alpha is {alpha:g}, the effect is inverted.", layer.base)
    if layer.rank and alpha > _HUGE * layer.rank:
        return problem("W_ALPHA_HUGE", f"{name}: alpha is {alpha:g} at rank {layer.rank}.", layer.base)
    return None


def against_metadata(subject: Subject) -> Iterator[Problem]:
    """What the trainer wrote into the header against what the tensors say."""
    stated = (("ss_network_alpha", "W_ALPHA_METADATA", "alpha"), ("ss_network_dim", "W_DIM_METADATA", "rank"))
    for key, code, word in stated:
        value = _number(subject.file.metadata.get(key, ""))
        found = {n for layer in subject.layers if (n := _stored(layer, word)) is not None}
        if value and found and value not in found:
            there = ", ".join(f"{n:g}" for n in sorted(found)[:3])
            yield problem(code, f"The metadata says {key} {value:g}, the tensors {there}.", key)


def _stored(layer: Layer, word: str) -> float | None:
    if word == "rank":
        return layer.rank
    try:
        return layer.alpha
    except ValueError:
        return None  # named by `numbers`


def _number(text: str) -> float | None:
    try:
        value = float(text) if len(text) < 40 else math.nan
    except ValueError:
        return None  # "None", "Dynamic": nothing stated
    return value if math.isfinite(value) else None


RULES = (numbers, forms, recorded, against_metadata)
