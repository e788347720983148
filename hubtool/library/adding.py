"""An installed LoRA put into a prompt, with its trigger words and the strength that its user prefers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import NotInstalled, UsageProblem
from hubtool.library.prompt_writing import Rewritten, add, spell
from hubtool.library.prompts import Tag
from hubtool.library.resolve import Names

if TYPE_CHECKING:
    from hubtool.library.index import Index
    from hubtool.library.record import Installed


def added(index: Index, text: str, wish: str, dialect: str, *, triggers: bool = True) -> Rewritten:
    """The prompt with the LoRA that `NAME` or `NAME:STRENGTH` names.

    Raises:
        NotInstalled: no such file here. UsageProblem: no number after the colon.
        NotRepresentable: its name cannot stand in a tag.
    """
    name, colon, number = wish.partition(":")
    found = find_installed(index, name, dialect)
    strength = _strength(number) if colon else found.own.preferred_weight or 1.0
    tag = Tag("lora", found.name, strength, strength, None, raw="")
    written, _ = spell(tag, dialect)
    return add(text, written, found.trigger_words if triggers else ())


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
