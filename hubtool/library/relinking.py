"""Names in a prompt replaced by the names that the same files have here."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.library.mention import hex_digits, is_of_name, named_hashes
from hubtool.library.mention import stem as last_part
from hubtool.library.prompt_writing import Rewritten, relink
from hubtool.library.prompts import LORA_KINDS
from hubtool.library.references import read_prompt
from hubtool.library.resolve import folded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.settings import Settings

_HASHES = re.compile(r'Lora hashes: "((?:\\.|[^"\\])*)"')
_UNQUOTABLE = str.maketrans("", "", ":,")


def lora_hashes(text: str) -> dict[str, str]:
    """Name → short hash, from the `Lora hashes` that A1111 and Forge write below a prompt.

    >>> lora_hashes('x, Lora hashes: "ink: 0123456789ab, old: 0xabcdef0123"')
    {'ink': '0123456789ab', 'old': '0xabcdef0123'}
    """
    found = _HASHES.search(text)
    return dict(named_hashes(found[1])) if found else {}


def relinked(index: Index, settings: Settings, text: str, dialect: str) -> Rewritten:
    """The prompt with every name that means nothing here replaced, where the file is certain.

    By hash where the text says hashes (an infotext does), else where exactly one file has the same name but for case,
    blanks and punctuation. What stays unknown is said.

    Raises:
        UsageProblem: no such dialect.
    """
    known = read_prompt(index, settings, text, dialect)
    hashes = lora_hashes(text)
    names: dict[str, str] = {}
    for tag in known.tags:
        if tag.kind in LORA_KINDS and (here := _here(index, tag.name, hashes) or (tag.name if tag.have else None)):
            names[tag.name] = here
    lost = [
        f"{name} is not here, nor is a file that is certainly the same." for name in known.missing if name not in names
    ]
    return replace(relink(text, dialect, names), lost=tuple(lost))


def _here(index: Index, name: str, hashes: Mapping[str, str]) -> str | None:
    """The stem of the file that has this name's hash, or else nearly this name."""
    digits = hex_digits(hashes.get(name.translate(_UNQUOTABLE)))
    said = "" if is_of_name(digits, name) else digits
    if said and (twins := index.with_short_hash(said)):
        return next((twin.name for twin in twins if twin.name == name), twins[0].name)
    if said:  # another file of a like name would be a guess against the evidence
        return None
    stems = {label.stem for label in index.labels()}
    wanted = folded(last_part(name))
    alike = {stem for stem in stems if folded(stem) == wanted}
    return name if name in stems else next(iter(alike)) if len(alike) == 1 else None


def hashes_line(index: Index, settings: Settings, text: str, dialect: str) -> str:
    """What A1111, Forge or SD.Next writes below a picture for the LoRAs of this prompt; empty if none is here.

    It is the tensors' hash, as headers have it; of a file without one in its header Forge takes the whole file's.

    Raises:
        UsageProblem: no such dialect.
    """
    files = {tag.name: index.at(tag.path) for tag in read_prompt(index, settings, text, dialect).tags if tag.path}
    known = {name.translate(_UNQUOTABLE): file for name, file in files.items() if file}
    if not known:
        return ""
    if dialect == "sdnext":
        short = ", ".join(file.digests.sha256[:8] for file in known.values())
        return f"LoRA networks: {_quoted(', '.join(known))}, LoRA hashes: {_quoted(short)}"
    return f'Lora hashes: "{", ".join(f"{name}: {_short(file, dialect)}" for name, file in known.items())}"'


def _short(file: Installed, dialect: str) -> str:
    return file.digests.sha256[:12] if dialect == "forge" and not file.facts.embedded_hash else file.digests.autov3


def _quoted(text: str) -> str:
    """A1111's rule for infotext values: quoted where they hold a comma."""
    return f'"{text}"' if "," in text else text
