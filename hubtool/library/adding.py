"""An installed LoRA put into a prompt, with its trigger words and the strength that its user prefers."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import NotInstalled, UsageProblem
from hubtool.library.prompt_writing import Rewritten, add, spell
from hubtool.library.prompts import LORA_KINDS, Tag, parse
from hubtool.library.record import split_words
from hubtool.library.resolve import Names

if TYPE_CHECKING:
    from hubtool.library.index import Index
    from hubtool.library.record import Installed


@dataclass(frozen=True, slots=True)
class Words:
    """Which trigger words come along."""

    most: int | None = None  # so many of them, from the first; None: all
    outfit: str = ""  # those of this group instead (`hubtool mark --outfit`)


def added(index: Index, text: str, wish: str, dialect: str, words: Words) -> Rewritten:
    """The prompt with the LoRA that `NAME` or `NAME:STRENGTH` names; what belongs into the negative prompt is in `lost`.

    Raises:
        NotInstalled: no such file here. UsageProblem: no number after the colon, or no such outfit.
        NotRepresentable: its name cannot stand in a tag.
    """
    name, colon, number = wish.partition(":")
    found = find_installed(index, name, dialect)
    strength = _strength(number) if colon else found.own.preferred_weight or 1.0
    tag = Tag("lora", found.name, strength, strength, None, raw="")
    written, _ = spell(tag, dialect)
    chosen, negative = _outfit(found, words.outfit) if words.outfit else (found.trigger_words, found.own.negative)
    said = [f"The negative prompt of {found.name}: {negative}"] if negative else []
    said += [f"{found.name} is in the prompt already: {raw}" for raw in _already(index, text, dialect, found)]
    return replace(add(text, written, chosen[: words.most]), lost=tuple(said))


def _already(index: Index, text: str, dialect: str, found: Installed) -> list[str]:
    """The tags of a prompt that mean this file."""
    names = Names(index.labels())
    tags = [(tag, names.find(tag.name, dialect)) for tag in parse(text, dialect).tags if tag.kind in LORA_KINDS]
    return [tag.raw for tag, label in tags if label and label.path == str(found.path)]


def _outfit(found: Installed, name: str) -> tuple[tuple[str, ...], str]:
    """The words of a group, and what it wants in the negative prompt."""
    groups = {title.strip().casefold(): rest for title, _, rest in (one.partition(":") for one in found.own.outfits)}
    if name.casefold() not in groups:
        known = ", ".join(one.partition(":")[0] for one in found.own.outfits) or "none"
        hint = f"`{shlex.join(['hubtool', 'mark', found.name, '--outfit', f'{name}: WORDS'])}` makes one."
        raise UsageProblem(f"{found.name} has no outfit {name}; it has {known}.", hint=hint)
    positive, _, negative = groups[name.casefold()].partition(" / ")
    return split_words(positive), negative.strip() or found.own.negative


def find_installed(index: Index, name: str, dialect: str = "a1111") -> Installed:
    """The installed file of this name.

    Raises:
        NotInstalled: there is none; says which names are close.
    """
    names = Names(index.labels())
    label = names.find(name, dialect)
    found = index.at(Path(label.path)) if label else None
    if found is None:
        close = names.suggestions(name)
        raise NotInstalled(name, close)
    return found


def _strength(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageProblem(f"{text!r} is no strength.", hint="Write it as NAME:0.8.")
    return number
