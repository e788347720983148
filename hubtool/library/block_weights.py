"""Strengths by block: what sd-webui-lora-block-weight reads out of A1111's tags.

`<lora:NAME:1:lbw=MIDD>` or `<lora:NAME:1:lbw=1,0,0,…>`, with `lbwe=` (by element), `start=`, `stop=` or `step=FROM-TO` beside it;
an older form has the preset or the list as third item. A list has as many numbers as one of its layouts has blocks, `R` and `U`
stand for random numbers, `X` for the one in `x=`. Source: hako-mikan/sd-webui-lora-block-weight scripts/lora_block_weight.py
(loradealer, syntaxdealer, stepsdealer, to26), README.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Weight = float | str  # a text: R, U or X, of which nobody knows the number before the picture is made


def _blocks(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[str, ...]:
    names = (*(f"IN{number:02}" for number in inputs), "M00", *(f"OUT{number:02}" for number in outputs))
    return ("BASE", *names)


_FLUX = ("CLIP", "T5", "IN", *(f"D{n:02}" for n in range(19)), *(f"S{n:02}" for n in range(38)), "OUT")
#: Number of weights → the blocks that they are for: SDXL LoRA, SD 1 LoRA, SDXL with convolutions, SD 1 with them, FLUX.
LAYOUTS: Mapping[int, tuple[str, ...]] = {
    12: _blocks((4, 5, 7, 8), range(6)),
    17: _blocks((1, 2, 4, 5, 7, 8), range(3, 12)),
    20: _blocks(range(9), range(9)),
    26: _blocks(range(12), range(12)),
    61: _FLUX,
}
#: The presets that the extension brings along; users change theirs in its lbwpresets.txt.
PRESETS: Mapping[str, tuple[float, ...]] = {
    "NONE": (0,) * 17,
    "ALL": (1,) * 17,
    "INS": (1,) * 4 + (0,) * 13,
    "IND": (1, 0, 0, 0, 1, 1, 1) + (0,) * 10,
    "INALL": (1,) * 7 + (0,) * 10,
    "MIDD": (1, 0, 0, 0) + (1,) * 8 + (0,) * 5,
    "OUTD": (1,) + (0,) * 7 + (1,) * 4 + (0,) * 5,
    "OUTS": (1,) + (0,) * 11 + (1,) * 5,
    "OUTALL": (1,) + (0,) * 7 + (1,) * 9,
    "ALL0.5": (0.5,) * 17,
    "FLUXALL": (1,) * 61,
}
KEYS = frozenset({"lbw", "lbwe", "start", "stop", "step", "x"})
_RANDOM = frozenset({"R", "U"})
_INHERITED = re.compile(r"X(?:[+-][\d.]*)?")


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """What a tag says about single blocks, and about when the LoRA counts."""

    preset: str  # its name; empty where the weights stand in the tag
    weights: Mapping[str, Weight]  # block → multiplier of the strength; empty: a preset of the user's own, or none
    elements: str  # name of a set of rules by element
    start: int | None  # step from which on the LoRA counts
    stop: int | None  # step from which on it does not


def read_block_weights(items: Sequence[str], problems: list[str]) -> BlockWeights | None:
    """Read the items of a tag behind its name; None if none of them is about blocks.

    `problems` gets why the extension will not read one as it was meant.

    >>> found = read_block_weights(["1", "lbw=INS", "stop=10"], [])
    >>> found.preset, found.weights["IN04"], found.weights["OUT11"], found.stop
    ('INS', 1, 0, 10)
    """
    named = {key: text for key, equals, text in (item.partition("=") for item in items) if equals}
    old = old_form(items)
    text = named.get("lbw", old)
    if text is None and named.keys().isdisjoint({"lbwe", "start", "stop", "step"}):
        return None
    if old is not None:
        problems.append("blocks in third place are read no more: write lbw=")
    start, stop = _steps(named, problems)
    return BlockWeights(
        preset=text if text and not _is_list(text) else "",
        weights=_weights(text, problems) if text else {},
        elements=named.get("lbwe", ""),
        start=start,
        stop=stop,
    )


def old_form(items: Sequence[str]) -> str | None:
    """The preset or list in third place, as the extension had it before `lbw=`; None if that place holds something else."""
    third = items[1] if len(items) > 1 else ""
    return third if _is_list(third) or third in PRESETS else None


def _is_list(text: str) -> bool:
    return text.count(",") + 1 in LAYOUTS


def _weights(text: str, problems: list[str]) -> dict[str, Weight]:
    if text in PRESETS:
        numbers: Sequence[Weight] = PRESETS[text]
    elif _is_list(text):
        numbers = [_weight(part.strip(), problems) for part in text.split(",")]
    else:
        if "," in text:
            counts = ", ".join(map(str, LAYOUTS))
            problems.append(f"{text.count(',') + 1} weights fit no layout; there are such for {counts}")
        return {}  # a preset of the user's own, which only the extension knows
    return dict(zip(LAYOUTS[len(numbers)], numbers, strict=True))


def finite(text: str) -> float | None:
    """The number that a text is; None for none, and for infinity and NaN."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _weight(text: str, problems: list[str]) -> Weight:
    if text in _RANDOM or _INHERITED.fullmatch(text):
        return text
    number = finite(text)
    if number is not None:
        return number
    problems.append(f"{text or 'nothing'} is no weight")
    return 1.0


def _steps(named: Mapping[str, str], problems: list[str]) -> tuple[int | None, int | None]:
    """(start, stop); `step=A-B` goes before both."""
    start, stop = named.get("start"), named.get("stop")
    if "-" in named.get("step", ""):
        start, _, stop = named["step"].partition("-")
    return _step(start, problems), _step(stop, problems)


def _step(text: str | None, problems: list[str]) -> int | None:
    if text is None:
        return None
    if text.strip().isdecimal() and text.isascii():
        return int(text[:9])
    problems.append(f"{text or 'nothing'} is no step")
    return None
