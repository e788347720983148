"""The tags that use adapters inside prompts, as each UI reads them.

Every row was compared with what the program itself makes of a hundred prompts (tests/unit/library/test_prompt_vectors.py).

A1111, Forge and SD.Next share one lexer (modules/extra_networks.py): `<(\\w+):([^>]+)>`, the body split at `:`; an item
with exactly one `=` is a named argument, every other is positional. There is no escape, so a name can hold neither
`:` nor `>`, and a name with one `=` is lost. What the two numbers mean differs:

| dialect | `<lora:NAME:A:B>` | source |
|---|---|---|
| a1111, forge | A text encoder, B denoiser; Forge knows no `<lyco:` | extensions-builtin/Lora/extra_networks_lora.py |
| sdnext | A both; `te=` `unet=` `in=` `mid=` `out=` tell parts apart; `W@S` by step | modules/lora/extra_networks_lora.py |
| comfyui | A denoiser, B text encoder; A required; `LORA` is `lora` | ComfyUI-Lora-Manager py/nodes/utils.py |
| swarmui | A denoiser, B text encoder; `LORA` is `lora`; behind `<segment:…>` it counts there only | T2IPromptHandling.cs |
| fooocus | A both and required, no B; no name holds a comma, and the rest of the prompt is tidied | modules/util.py |
| invokeai | nothing: LoRAs are chosen beside the prompt; 2.x had `withLora(NAME,A)` | docs, issues 4155 and 7439 |

Only SwarmUI and ComfyUI's text nodes read tags in a negative prompt; the others leave them there as words.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.library import block_weights
from hubtool.library.block_weights import finite, old_form, read_block_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hubtool.library.block_weights import BlockWeights

_A1111_TAG = re.compile(r"<(\w+):([^>]+)>")
_COMFY_TAG = re.compile(r"<(lora):([^:>]+:[^:>]+(?::[^:>]+)?)>", re.IGNORECASE)
_SWARM_TAG = re.compile(r"<(lora):(?!>)([^<>]*(?:<[^<>]*>[^<>]*)*)>", re.IGNORECASE)
_SWARM_SECTION = re.compile(
    r"<(?:base|refiner|pixeldecoder|video|videoswap|segment|object|region|extend)(?:\[[^<>\]]*\])?(?::[^<>]*)?>",
    re.IGNORECASE,
)
_FOOOCUS_TAG = re.compile(r"<(lora):([^:,]+:[+-]?(?:\d+(?:\.\d*)?|\.\d+))>")
_INVOKE_TAG = re.compile(r"<(lora|lyco):([^>]+)>|(withLora)\(([^()]+)\)")
_NEGATIVE = re.compile(r"^[ \t]*Negative prompt:", re.MULTILINE)
_MODELLED = frozenset({"te", "unet", "dyn"})
_PARTS = frozenset({"in", "mid", "out"})
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
    block_weights: BlockWeights | None = None  # of the extension for A1111 and Forge
    extras: tuple[str, ...] = ()  # further items, as typed: what extensions read, or nobody
    section: str = ""  # SwarmUI's tag of the part of the picture or of the work that it is for; empty: all
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
    kinds: frozenset[str] = frozenset({"lora"})  # words that open a LoRA's tag
    extras: frozenset[str] = frozenset()  # further items that it, or an extension of it, reads
    negative: bool = False  # tags count in a negative prompt, too
    reads: bool = True  # False: no tag is read at all
    section: re.Pattern[str] | None = None  # tags that begin a part, to which those behind belong


DIALECTS: Mapping[str, PromptDialect] = {
    dialect.id: dialect
    for dialect in (
        PromptDialect("a1111", _A1111_TAG, named=True, dyn=True, kinds=LORA_KINDS, extras=block_weights.KEYS),
        PromptDialect("forge", _A1111_TAG, named=True, dyn=True, extras=block_weights.KEYS),
        PromptDialect("comfyui", _COMFY_TAG, denoiser_first=True, negative=True),
        PromptDialect("swarmui", _SWARM_TAG, denoiser_first=True, negative=True, section=_SWARM_SECTION),
        PromptDialect(
            "sdnext",
            _A1111_TAG,
            named=True,
            second=False,
            parts=True,
            kinds=LORA_KINDS,
            extras=frozenset({"high", "low", "module"}),
        ),
        PromptDialect("fooocus", _FOOOCUS_TAG, second=False, tidy=True),
        PromptDialect("invokeai", _INVOKE_TAG, kinds=LORA_KINDS, reads=False),
    )
}


def parse(text: str, dialect: str = "a1111", *, negative: bool = False) -> Parsed:
    """Take a prompt apart; `negative`: it is a negative prompt. So is what follows `Negative prompt:` in a line of its own.

    >>> parse("a cat <lora:style:0.5:0.8>", "a1111").tags[0].denoiser
    0.8

    Raises:
        UsageProblem: no such dialect.
    """
    grammar = dialect_named(dialect)
    found = None if negative else _NEGATIVE.search(text)
    start = 0 if negative else found.start() if found else len(text)
    # nothing ends behind the last bracket; a thousand tags that do not end would each be looked for to the end of the text
    stop = max(text.rfind(">"), text.rfind(")")) + 1
    matches = list(grammar.pattern.finditer(text, 0, stop))
    tags = tuple(_tag(grammar, match, unread=match.start() >= start) for match in matches)
    if grammar.section:
        tags = tuple(_in_sections(grammar.section, text[:stop], tags, matches))
    rest = grammar.pattern.sub("", text[:stop]) + text[stop:] if grammar.reads else text
    return Parsed(tags, _tidied(rest) if grammar.tidy else rest)


def _in_sections(
    section: re.Pattern[str], text: str, tags: Sequence[Tag], matches: Sequence[re.Match[str]]
) -> Iterator[Tag]:
    """The tags with the sections that they stand in, each behind the tag that begins it."""
    begins = list(section.finditer(text))
    places = [match.start() for match in begins]
    for tag, match in zip(tags, matches, strict=True):
        before = bisect.bisect(places, match.start())
        yield replace(tag, section=begins[before - 1][0]) if before else tag


def dialect_named(id: str) -> PromptDialect:
    """The dialect with this id.

    Raises:
        UsageProblem: there is none.
    """
    if id not in DIALECTS:
        raise UsageProblem(f"There is no prompt dialect {id}; there are {', '.join(DIALECTS)}.")
    return DIALECTS[id]


def _tidied(text: str) -> str:
    parts = (" ".join(filter(None, part.split(" "))) for part in text.split(","))
    return ", ".join(filter(None, (part.strip() for part in parts)))


def _tag(grammar: PromptDialect, match: re.Match[str], *, unread: bool) -> Tag:
    kind, body = (group for group in match.groups() if group is not None)
    items = [body] if "<" in body and grammar.section else body.split("," if kind == "withLora" else ":")
    # as the lexer does: the name too, if it holds one `=`
    arguments = {item for item in items if item.count("=") == 1} if grammar.named else set()
    old = old_form(items[1:]) if grammar.named and not grammar.parts else None
    positional = [item for item in items if item not in arguments and item != old]
    named = dict(item.split("=") for item in items if item in arguments)
    problems = [f"{items[0]} is read as an argument because of its '='"] if items[0] in arguments else []
    if grammar.section:
        problems += _chosen_later(items)
    text_encoder, denoiser = _strengths(grammar, positional[1:], named, problems)
    dyn = _rank(named.get("dyn") or (positional[3] if grammar.dyn and len(positional) > 3 else ""), problems)
    kind = {"withLora": "lora"}.get(kind, kind.lower() if grammar.pattern.flags & re.IGNORECASE else kind)
    blocks = read_block_weights(items[1:], problems) if grammar.named and not grammar.parts else None
    problems += _unread(grammar, kind) + ([_IN_NEGATIVE] if unread and not grammar.negative else [])
    return Tag(
        kind=kind,
        name=positional[0] if positional else "",
        text_encoder=text_encoder,
        denoiser=denoiser,
        dyn=dyn,
        raw=match[0],
        blocks=_blocks(named, denoiser, problems) if grammar.parts else None,
        steps=" ".join(item for item in items[1:] if "@" in item) if grammar.parts else "",
        block_weights=blocks,
        extras=_extras(grammar, items[1:], positional[1:], old),
        problem="; ".join(problems),
    )


def _chosen_later(items: Sequence[str]) -> list[str]:
    """What SwarmUI only knows when it makes the picture, or fails at."""
    if "<" in items[0]:
        return ["which LoRA that is, is chosen when the picture is made"]
    return [f"{':'.join(items[2:])} is no strength"] if len(items) > 3 else []  # name and two numbers


_IN_NEGATIVE = "it stands in the negative prompt, where tags are words; a negative strength in the prompt takes away"


def _unread(grammar: PromptDialect, kind: str) -> list[str]:
    """Why no tag of this kind is read, if so."""
    if not grammar.reads:
        return ["InvokeAI reads no tags in prompts: choose the LoRA and its strength beside the prompt"]
    return [f"{grammar.id} knows no {kind}: tags"] if kind in LORA_KINDS - grammar.kinds else []


def _extras(
    grammar: PromptDialect, items: Sequence[str], positional: Sequence[str], old: str | None
) -> tuple[str, ...]:
    """What is not modelled: arguments with other keys, and items behind those that are read."""
    if not grammar.named:
        return ()
    read = [*positional[: 1 if grammar.parts else 3], *([old] if old else [])]
    keys = _MODELLED | (_PARTS if grammar.parts else frozenset())
    found = [f"lbw={old}"] if old else []
    for item in items:
        if item in read:
            read.remove(item)
        elif item.count("=") != 1 or item.partition("=")[0] not in keys:
            found.append(item)
    return tuple(found)


def _rank(text: str, problems: list[str]) -> int | None:
    """DyLoRA's rank; a text of a thousand digits is none."""
    if not text:
        return None
    if text.strip().isdecimal() and len(text) < 10:
        return int(text)
    problems.append(f"{text} is no rank")
    return None


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
    number = finite(text)
    if number is not None:
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
