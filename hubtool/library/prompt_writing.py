"""Prompts rewritten: tags spelt for another UI, added, removed, renamed, or weighed against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.library.block_weights import KEYS
from hubtool.library.prompts import DIALECTS, LORA_KINDS, dialect_named, parse
from hubtool.library.schedules import at_strongest, scaled, spelt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hubtool.library.prompts import PromptDialect, Tag


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A prompt after a change, and what could not be kept."""

    prompt: str
    lost: tuple[str, ...] = ()  # sentences
    changed: int = 0  # tags


def spell(tag: Tag, dialect: str) -> tuple[str, str]:
    """A LoRA's tag as a UI reads it, and what is lost by that (empty: nothing).

    >>> from hubtool.library.prompts import parse
    >>> spell(parse("<lora:ink:0.5:0.8>", "a1111").tags[0], "comfyui")
    ('<lora:ink:0.8:0.5>', '')

    Raises:
        NotRepresentable: the name cannot stand in a tag of this dialect, or it has no tags.
    """
    grammar = DIALECTS[dialect]
    tag = tag if grammar.parts else _strongest(tag)
    if not grammar.reads:
        message = f"InvokeAI reads no LoRAs in prompts: choose {tag.name} beside the prompt, at {spelt(tag.denoiser)}."
        raise NotRepresentable(tag.name, message, hint="Leave the tag out.")
    _check_name(tag.name, dialect)
    te, denoiser = spelt(tag.text_encoder), spelt(tag.denoiser)
    lost = [
        f"{tag.name}: {what} cannot be said for {dialect}."
        for what, is_lost in (
            ("the rank of a DyLoRA", tag.dyn is not None and not grammar.named),
            ("strengths by block", tag.blocks is not None and not grammar.parts),
            (
                f"a strength that changes by step ({denoiser}, the largest, is kept)",
                bool(tag.steps) and not grammar.parts,
            ),
            (f"that it is for {tag.section} alone", bool(tag.section) and not grammar.section),
            ("a strength of the text encoder of its own", te != denoiser and dialect == "fooocus"),
            *((f"{item} (as {_meaning(item)})", not _has(grammar, item)) for item in tag.extras),
        )
        if is_lost
    ]
    if tag.steps and grammar.parts:
        return tag.raw, ""  # only SD.Next has steps: it is SD.Next's tag already
    kept = [item for item in tag.extras if _has(grammar, item)]
    return f"<lora:{':'.join([tag.name, *_strengths(tag, dialect, te, denoiser), *kept])}>", " ".join(lost)


def _strongest(tag: Tag) -> Tag:
    """The tag with the largest of its strengths by step: that of the first step often is zero."""
    if not tag.steps:
        return tag
    (flat,) = parse(at_strongest(tag.raw), "sdnext").tags  # nobody else has steps
    return replace(tag, text_encoder=flat.text_encoder, denoiser=flat.denoiser, blocks=flat.blocks)


def _has(grammar: PromptDialect, item: str) -> bool:
    return item.partition("=")[0] in grammar.extras


def _meaning(item: str) -> str:
    """What one of `Tag.extras` is for."""
    key = item.partition("=")[0]
    if key in {"start", "stop", "step"}:
        return "the steps during which it counts"
    if key in KEYS:
        return "strengths by block"
    return "one of several transformers" if key in {"high", "low", "module"} else "typed"


def _strengths(tag: Tag, dialect: str, te: str, denoiser: str) -> list[str]:
    if te == denoiser or dialect == "fooocus":
        parts = [denoiser]
    elif DIALECTS[dialect].denoiser_first:
        parts = [denoiser, te]
    else:
        parts = [te, denoiser] if DIALECTS[dialect].second else [f"te={te}", f"unet={denoiser}"]
    if tag.blocks and DIALECTS[dialect].parts:
        parts += [f"{part}={spelt(value)}" for part, value in zip(("in", "mid", "out"), tag.blocks, strict=True)]
    if tag.dyn is not None and DIALECTS[dialect].named:
        parts.append(f"dyn={tag.dyn}")
    return parts


def _check_name(name: str, dialect: str) -> None:
    grammar = DIALECTS[dialect]
    bad = [character for character in (":", ">") if character in name]
    if grammar.named and name.count("=") == 1:
        bad.append("=")
    if dialect == "fooocus" and "," in name:
        bad.append(",")
    if bad or not name:
        message = f"The name {name!r} cannot stand in a tag for {dialect}" + (f": it has a {bad[0]}." if bad else ".")
        raise NotRepresentable(name, message, hint="Give the file another name.")


def convert(text: str, source: str, target: str, names: Mapping[str, str] | None = None) -> Rewritten:
    """The same prompt for another UI; tags that are no LoRAs stay as they are. `names`: name in the prompt → name there.

    Raises:
        UsageProblem: no such dialect. NotRepresentable: a name that the other UI cannot read.
    """
    grammar = dialect_named(target)
    lost: list[str] = []

    def change(tag: Tag) -> str:
        if not grammar.reads:
            lost.append(
                f"{tag.name}: InvokeAI reads no tags; choose it beside the prompt, at {spelt(_strongest(tag).denoiser)}."
            )
            return ""
        there = names.get(tag.name, tag.name) if names else tag.name
        written, loss = spell(tag if there == tag.name else replace(tag, name=there), target)
        lost.extend([loss] if loss else [])
        return written

    done = _rewritten(text, source, change)
    return replace(done, lost=(*lost, *_misread(text, source)))


def _misread(text: str, dialect: str) -> list[str]:
    """What is wrong with the tags already; a dialect that reads none is read all the same, to be left."""
    if not DIALECTS[dialect].reads:
        return []
    return [f"{tag.raw}: {tag.problem}." for tag in parse(text, dialect).tags if tag.problem and tag.kind in LORA_KINDS]


def strip(text: str, dialect: str, names: Iterable[str] = ()) -> Rewritten:
    """The prompt without its LoRA tags, or without those that have one of the names."""
    wanted = frozenset(names)
    return _rewritten(text, dialect, lambda tag: "" if not wanted or tag.name in wanted else tag.raw)


def relink(text: str, dialect: str, names: Mapping[str, str]) -> Rewritten:
    """The prompt with LoRAs renamed: name in the prompt → name here. Everything else of a tag stays as it was typed.

    Raises:
        NotRepresentable: a name here cannot stand in a tag.
    """

    def change(tag: Tag) -> str:
        here = names.get(tag.name, tag.name)
        if here == tag.name:
            return tag.raw
        _check_name(here, dialect)
        opening = min(place for place in (tag.raw.find(":"), tag.raw.find("(")) if place > 0)
        at = tag.raw.index(tag.name, opening)
        return tag.raw[:at] + here + tag.raw[at + len(tag.name) :]

    return _rewritten(text, dialect, change)


def balance(text: str, dialect: str, total: float) -> Rewritten:
    """The prompt with all strengths scaled by one factor, so that the sizes of the denoiser's add up to at most `total`.

    Raises:
        UsageProblem: a total that is not above zero.
    """
    if not total > 0:
        raise UsageProblem(f"The total must be above zero: {total}")
    tags = [tag for tag in parse(text, dialect).tags if tag.kind in LORA_KINDS]
    factor = min(1.0, total / (sum(abs(_strongest(tag).denoiser) for tag in tags) or 1.0))
    if factor == 1.0:
        return Rewritten(text)

    def change(tag: Tag) -> str:
        if tag.problem:
            return tag.raw  # its strength is a guess
        if tag.steps:
            return scaled(tag.raw, factor)
        blocks = tag.blocks and tuple(round(value * factor, 4) for value in tag.blocks)
        smaller = replace(
            tag,
            text_encoder=round(tag.text_encoder * factor, 4),
            denoiser=round(tag.denoiser * factor, 4),
            blocks=(blocks[0], blocks[1], blocks[2]) if blocks else None,
        )
        return spell(smaller, dialect)[0]

    return replace(_rewritten(text, dialect, change), lost=tuple(_misread(text, dialect)))


def add(text: str, tag: str, trigger_words: Iterable[str] = ()) -> Rewritten:
    """The prompt with a tag at its end, and the trigger words that it lacks before that.

    Brackets in trigger words are escaped as A1111's card does, since they would change weights.
    """
    missing = [_escaped(word) for word in trigger_words if _escaped(word).casefold() not in text.casefold()]
    parts = [text.rstrip().rstrip(","), *missing]
    joined = ", ".join(part for part in parts if part)
    return Rewritten(f"{joined} {tag}".strip(), changed=1)


def _escaped(word: str) -> str:
    return "".join(f"\\{character}" if character in "()[]{}" else character for character in word)


def _rewritten(text: str, dialect: str, change: Callable[[Tag], str]) -> Rewritten:
    """Every LoRA tag replaced where it stands; the rest of the prompt is not touched."""
    pieces, start, changed = [], 0, 0
    for tag in parse(text, dialect).tags:
        at = text.index(tag.raw, start)
        written = change(tag) if tag.kind in LORA_KINDS else tag.raw
        pieces += [text[start:at], written]
        changed += written != tag.raw
        start = at + len(tag.raw)
    return Rewritten("".join([*pieces, text[start:]]), changed=changed)
