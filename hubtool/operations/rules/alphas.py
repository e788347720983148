"""Rules about alpha: one finite number, of a plausible size, as the metadata says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
        found = _judge(layer)
        if found and found.code not in seen:
            seen.add(found.code)
            yield found


def _judge(layer: Layer) -> Problem | None:
    tensor = layer.tensors.get(Role.ALPHA)
    kind = layer.parametrization
    if tensor is None or kind is None:
        return None
    name = printable(layer.base)
    try:
        alpha = tensor.scalar()
    except ValueError as error:
        return problem("E_ALPHA", f"{name}: alpha is {error}.", layer.base)
    if not math.isfinite(alpha) and layer.rank:
        return problem("E_NONFINITE", f"{name}: alpha is {alpha}.", layer.base)
    if kind.rank(layer.shapes) is None:  # a constraint (OFT) or without meaning (LoKr with whole factors)
        return None
    return _judge_size(layer, alpha, name)


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


RULES = (numbers, against_metadata)
