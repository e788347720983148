"""The tags that use adapters inside prompts, as each UI reads them.

Every row was compared with what the program itself makes of a hundred prompts (tests/unit/library/test_prompt_vectors.py).

A1111, Forge and SD.Next share one lexer (modules/extra_networks.py): `<(\\w+):([^>]+)>`, the body split at `:`; an item
with exactly one `=` is a named argument, every other is positional. There is no escape, so a name can hold neither
`:` nor `>`, and a name with one `=` is lost. What the two numbers mean differs:

| dialect | `<lora:NAME:A:B>` | source |
|---|---|---|
| a1111, forge | A text encoder, B denoiser | extensions-builtin/Lora/extra_networks_lora.py |
| sdnext | A both; `te=` `unet=` `in=` `mid=` `out=` tell parts apart; `W@S` by step | modules/lora/extra_networks_lora.py |
| comfyui | A denoiser, B text encoder; A required; `LORA` is `lora` | ComfyUI-Lora-Manager py/nodes/utils.py |
| swarmui | A denoiser, B text encoder | T2IPromptHandling.cs |
| fooocus | A both and required, no B; no name holds a comma, and the rest of the prompt is tidied | modules/util.py |
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_A1111_TAG = re.compile(r"<(\w+):([^>]+)>")
_COMFY_TAG = re.compile(r"<(lora):([^:>]+:[^:>]+(?::[^:>]+)?)>", re.IGNORECASE)
_SWARM_TAG = re.compile(r"<(lora):([^>]+)>")
_FOOOCUS_TAG = re.compile(r"<(lora):([^:,]+:[+-]?(?:\d+\.?\d*|\.\d+))>")
LORA_KINDS = frozenset({"lora", "lyco"})  # A1111 1.5 and later read both the same


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of a prompt."""

    kind: str  # lora, lyco, hypernet, or whatever word opened it
    name: str
    text_encoder: float  # strengths; 1.0 where the tag says none, or none that is a number
    denoiser: float
    dyn: int | None  # DyLoRA's rank to use
    raw: str  # as it stands in the prompt
    blocks: tuple[float, float, float] | None = None  # strengths of input, middle and output blocks, where they differ
    steps: str = ""  # how SD.Next changes the strength while it samples; the numbers are those of the first step
    problem: str = ""  # why the UI will not read it as it was meant


@dataclass(frozen=True, slots=True)
class Parsed:
    """A prompt taken apart."""

    tags: tuple[Tag, ...]
    prompt: str  # without the tags; everything else as typed


@dataclass(frozen=True, slots=True)
class PromptDialect:
    """How one UI reads tags."""

    id: str
    pattern: re.Pattern[str]
    named: bool = False  # `te=`, `unet=`, `dyn=` are arguments
    second: bool = True  # a second number may follow the first
    denoiser_first: bool = False  # which of the two is which
    dyn: bool = False  # the fourth part is DyLoRA's rank
    parts: bool = False  # strengths by block (`in=`, `mid=`, `out=`) and by step (`0@0,1@0.5`)
    tidy: bool = False  # what is left of the prompt loses doubled blanks and empty parts


DIALECTS: Mapping[str, PromptDialect] = {
    dialect.id: dialect
    for dialect in (
        PromptDialect("a1111", _A1111_TAG, named=True, dyn=True),
        PromptDialect("comfyui", _COMFY_TAG, denoiser_first=True),
        PromptDialect("swarmui", _SWARM_TAG, denoiser_first=True),
        PromptDialect("sdnext", _A1111_TAG, named=True, second=False, parts=True),
        PromptDialect("fooocus", _FOOOCUS_TAG, second=False, tidy=True),
    )
}


def parse(text: str, dialect: str = "a1111") -> Parsed:
    """Take a prompt apart.

    >>> parse("a cat <lora:style:0.5:0.8>").tags[0].denoiser
    0.8

    Raises:
        UsageProblem: no such dialect.
    """
    if dialect not in DIALECTS:
        raise UsageProblem(f"There is no prompt dialect {dialect}; there are {', '.join(DIALECTS)}.")
    grammar = DIALECTS[dialect]
    tags = tuple(_tag(grammar, match) for match in grammar.pattern.finditer(text))
    rest = grammar.pattern.sub("", text)
    return Parsed(tags, _tidied(rest) if grammar.tidy else rest)


def _tidied(text: str) -> str:
    parts = (" ".join(filter(None, part.split(" "))) for part in text.split(","))
    return ", ".join(filter(None, (part.strip() for part in parts)))


def _tag(grammar: PromptDialect, match: re.Match[str]) -> Tag:
    items = match[2].split(":")
    # as the lexer does: the name too, if it holds one `=`
    arguments = {item for item in items if item.count("=") == 1} if grammar.named else set()
    positional = [item for item in items if item not in arguments]
    named = dict(item.split("=") for item in items if item in arguments)
    problems = [f"{items[0]} is read as an argument because of its '='"] if items[0] in arguments else []
    text_encoder, denoiser = _strengths(grammar, positional[1:], named, problems)
    dyn = named.get("dyn") or (positional[3] if grammar.dyn and len(positional) > 3 else "")
    if dyn and not dyn.strip().isdecimal():
        problems.append(f"{dyn} is no rank")
        dyn = ""
    return Tag(
        kind=match[1].lower() if grammar.pattern.flags & re.IGNORECASE else match[1],
        name=positional[0] if positional else "",
        text_encoder=text_encoder,
        denoiser=denoiser,
        dyn=int(dyn) if dyn else None,
        raw=match[0],
        blocks=_blocks(named, denoiser, problems) if grammar.parts else None,
        steps=" ".join(item for item in items[1:] if "@" in item) if grammar.parts else "",
        problem="; ".join(problems),
    )


def _blocks(named: Mapping[str, str], denoiser: float, problems: list[str]) -> tuple[float, float, float] | None:
    if named.keys().isdisjoint({"in", "mid", "out"}):
        return None
    first, middle, last = (
        _number(named[part], problems, stepwise=True) if part in named else denoiser for part in ("in", "mid", "out")
    )
    return first, middle, last


def _strengths(
    grammar: PromptDialect, positional: Sequence[str], named: Mapping[str, str], problems: list[str]
) -> tuple[float, float]:
    """(text encoder, denoiser), 1.0 for what is not said."""
    stepwise = grammar.parts
    numbers = [_number(item, problems, stepwise=stepwise) for item in positional[: 2 if grammar.second else 1]] or [1.0]
    first, second = numbers[0], numbers[-1]  # one number is for both
    if grammar.denoiser_first:
        return second, first
    if "te" in named:  # comes before the second number is looked for, so that it holds for the denoiser too
        first = _number(named["te"], problems, stepwise=stepwise)
        second = first if len(numbers) == 1 else second
    return first, _number(named["unet"], problems, stepwise=stepwise) if "unet" in named else second


def _number(text: str, problems: list[str], *, stepwise: bool = False) -> float:
    """A strength; 1.0, and a problem, for what is none."""
    if stepwise and "@" in text:
        text = _at_first_step(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    problems.append(f"{text} is no strength")
    return 1.0


def _at_first_step(text: str) -> str:
    """The weight with the lowest position of `W@S,W@S`; a weight without a position is the last."""
    pairs = [re.split("[@~]", pair) for pair in re.split("[,;]", text)]
    try:
        return min(pairs, key=lambda pair: float(pair[1]) if len(pair) == 2 else 1.0)[0]
    except ValueError:  # a position that is no number: reported as it was typed
        return text
