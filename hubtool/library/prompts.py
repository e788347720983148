"""The tags that use adapters inside prompts, as each UI reads them.

A1111, Forge and SD.Next share one lexer (modules/extra_networks.py): `<(\\w+):([^>]+)>`, the body split at `:`; an item
with exactly one `=` is a named argument, every other is positional. There is no escape, so a name can hold neither
`:` nor `>`, and a name with one `=` is lost. What the two numbers mean differs:

| dialect | `<lora:NAME:A:B>` | source |
|---|---|---|
| a1111, forge | A text encoder, B denoiser | extensions-builtin/Lora/extra_networks_lora.py |
| sdnext | A both; `te=` and `unet=` alone tell them apart | modules/lora/extra_networks_lora.py |
| comfyui | A denoiser, B text encoder; A required | ComfyUI-Lora-Manager py/nodes/utils.py |
| swarmui | A denoiser, B text encoder | T2IPromptHandling.cs |
| fooocus | A both and required, no B | modules/util.py LORAS_PROMPT_PATTERN |
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
_COMFY_TAG = re.compile(r"<(lora):([^:>]+:[^:>]+(?::[^:>]+)?)>")
_SWARM_TAG = re.compile(r"<(lora):([^>]+)>")
_FOOOCUS_TAG = re.compile(r"<(lora):([^:>]+:[+-]?(?:\d+\.?\d*|\.\d+))>")
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


DIALECTS: Mapping[str, PromptDialect] = {
    dialect.id: dialect
    for dialect in (
        PromptDialect("a1111", _A1111_TAG, named=True, dyn=True),
        PromptDialect("comfyui", _COMFY_TAG, denoiser_first=True),
        PromptDialect("swarmui", _SWARM_TAG, denoiser_first=True),
        PromptDialect("sdnext", _A1111_TAG, named=True, second=False),
        PromptDialect("fooocus", _FOOOCUS_TAG, second=False),
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
    return Parsed(tags, grammar.pattern.sub("", text))


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
        kind=match[1],
        name=positional[0] if positional else "",
        text_encoder=text_encoder,
        denoiser=denoiser,
        dyn=int(dyn) if dyn else None,
        raw=match[0],
        problem="; ".join(problems),
    )


def _strengths(
    grammar: PromptDialect, positional: Sequence[str], named: Mapping[str, str], problems: list[str]
) -> tuple[float, float]:
    """(text encoder, denoiser), 1.0 for what is not said."""
    numbers = [_number(item, problems) for item in positional[: 2 if grammar.second else 1]] or [1.0]
    first, second = numbers[0], numbers[-1]  # one number is for both
    if grammar.denoiser_first:
        return second, first
    if "te" in named:  # comes before the second number is looked for, so that it holds for the denoiser too
        first = _number(named["te"], problems)
        second = first if len(numbers) == 1 else second
    return first, _number(named["unet"], problems) if "unet" in named else second


def _number(text: str, problems: list[str]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    problems.append(f"{text} is no strength")
    return 1.0
