"""Names in a prompt replaced by the names that the same files have here, or in another UI."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.library.mention import hex_digits, is_of_name, named_hashes
from hubtool.library.mention import stem as last_part
from hubtool.library.prompt_writing import Rewritten, convert, relink
from hubtool.library.prompts import LORA_KINDS, dialect_named, parse
from hubtool.library.references import Shelves, read_prompt
from hubtool.library.resolve import Names
from hubtool.library.resolving import hashes_unknown
from hubtool.library.target import target_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.library.index import Index
    from hubtool.library.record import Installed, Label
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
    shelves, hashes = Shelves(index, settings), lora_hashes(text)
    names: dict[str, str] = {}
    lost: dict[str, str] = {}
    for name in _used(text, dialect):
        if shelves.find(name, dialect):
            said = _digits(hashes, name)
            here = _with_hash(index, shelves.everything, name, said) if said else None
        else:
            here = _under_another_name(index, shelves, name, hashes)
            if here is None:
                lost[name] = f"{name} is not here, nor is a file that is certainly the same."
        spoken = shelves.everything.name_of(here, dialect, name) if here else None
        if here and spoken is None:
            lost[name] = f"{name} is {here.path}, for which {dialect} has no name of its own."
        names[name] = spoken or name
    unsure = hashes_unknown(index) if lost and hashes else ""
    return replace(relink(text, dialect, names), lost=(*lost.values(), *filter(None, [unsure])))


def converted(index: Index, settings: Settings, text: str, source: str, target: str) -> Rewritten:
    """The same prompt for another UI, each LoRA by the name by which that UI finds its file.

    Raises:
        UsageProblem: no such dialect. NotRepresentable: a name that the other UI cannot read.
    """
    if source == target or not dialect_named(target).reads:
        return convert(text, source, target)
    shelves, there = Shelves(index, settings), _Elsewhere(index, target)
    names: dict[str, str] = {}
    unsure: list[str] = []
    for name in _used(text, source):
        label = shelves.find(name, source)
        if label is None:
            unsure.append(f"{name} is not in the library: {target} may not find it by that name.")
            continue
        names[name], doubt = there.spoken(label, name)
        unsure.extend([doubt] if doubt else [])
    done = convert(text, source, target, names)
    return replace(done, lost=(*done.lost, *unsure))


class _Elsewhere:
    """The names of files in another UI: in its own LoRA folders, or else as if they lay there as they lie here."""

    def __init__(self, index: Index, dialect: str) -> None:
        self._dialect, self._labels = dialect, index.labels()
        folders = {str(one.path) for one in index.folders() if target_named(one.target).grammar == dialect}
        self._own = Names(label for label in self._labels if label.folder in folders)
        self._others: dict[str, Names] = {}

    def spoken(self, label: Label, name: str) -> tuple[str, str]:
        """The name there of a file that has this name here, and what is doubtful about it (empty: nothing)."""
        if found := self._own.name_of(label, self._dialect, name):
            return found, ""
        if label.folder not in self._others:
            self._others[label.folder] = Names(one for one in self._labels if one.folder == label.folder)
        found = self._others[label.folder].name_of(label, self._dialect, name)
        if found is None:
            return name, f"{name} is {label.path}, for which {self._dialect} has no name of its own."
        other = self._own.find(found, self._dialect)
        return found, f"{found} is another file for {self._dialect}: {other.path}" if other else ""


def _used(text: str, dialect: str) -> list[str]:
    """The LoRAs that a prompt names, each once."""
    return list(dict.fromkeys(tag.name for tag in parse(text, dialect).tags if tag.kind in LORA_KINDS))


def _digits(hashes: Mapping[str, str], name: str) -> str:
    """The hash that a text says for a name; empty where it is none."""
    digits = hex_digits(hashes.get(name.translate(_UNQUOTABLE)))
    return "" if is_of_name(digits, name) else digits


def _with_hash(index: Index, names: Names, name: str, digits: str) -> Label | None:
    """The file that has a hash, best the one that has the name as well."""
    twins = {str(twin.path) for twin in index.with_short_hash(digits)}
    found = names.at(twins)
    return next((label for label in found if label.stem == name), found[0] if found else None)


def _under_another_name(index: Index, shelves: Shelves, name: str, hashes: Mapping[str, str]) -> Label | None:
    """The file that has an unknown name's hash; where none is said, what has the alias, or nearly the name."""
    if said := _digits(hashes, name):  # another file of a like name would be a guess against the evidence
        return _with_hash(index, shelves.everything, name, said)
    return shelves.find(name, "a1111") or shelves.everything.called(last_part(name))


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
