"""What in a library will surprise its user: names that clash or cannot be spelt, files that no UI can use, left-overs.

Each rule is a function from the files of one LoRA folder to findings; `RULES` lists them, some are in `doctor_claims`. What UIs
do with names is said in `resolve`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.library.companions import MODELS
from hubtool.library.doctor_claims import (
    bogus_hashes,
    broken_sidecars,
    case_twins,
    dotted,
    reserved,
    unfinished,
    wrong_base,
)
from hubtool.library.journal import TRASH
from hubtool.library.problem import LibraryFinding, quoted, renaming
from hubtool.library.resolve import RESERVED
from hubtool.library.sidecar import all_sidecars
from hubtool.library.target import target_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Folder, Installed

    Rule = Callable[[Folder, Sequence[Installed]], Iterator[LibraryFinding]]

LONG_PATH = 259  # characters: Windows' MAX_PATH without its terminator
_WINDOWS = frozenset('<>:"|?*\\')
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python holds such a byte
_WILDCARD = re.compile(r"__[^_].*?__")  # `__name__`, also amid other words (sd-dynamic-prompts)


def examine(index: Index) -> Iterator[LibraryFinding]:
    """Every finding in every LoRA folder that is known."""
    for folder in index.folders():
        files = index.adapters(folder.path)
        for rule in RULES:
            yield from rule(folder, files)


def unusable(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Files that say nothing, are no adapters, or could run code."""
    del folder
    for one in files:
        if one.path.suffix.lower() not in {".safetensors", ".sft"}:
            message = f"{one.path.name} is no safetensors file; pickles can run code when they are loaded."
            yield LibraryFinding("pickle", "warning", one.path, message, "Get a .safetensors version of it.")
        elif one.facts.problem:
            yield LibraryFinding(
                "unreadable", "error", one.path, one.facts.problem, f"hubtool validate {quoted(one.path)}"
            )
        elif one.facts.kind != "adapter":
            message = f"{one.path.name} is no LoRA but of the kind {one.facts.kind}."
            yield LibraryFinding("not_an_adapter", "warning", one.path, message, "Move it to the folder for its kind.")


def equal_stems(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Two files of one name, letter by letter as UIs compare, of which a UI that knows names alone loads one."""
    if not target_named(folder.target).flat_names:
        return
    groups: dict[str, list[Installed]] = defaultdict(list)
    for one in files:
        groups[one.name].append(one)
    for group in groups.values():
        for one in group[1:]:
            message = f"{one.name} is also the name of {group[0].path}; {folder.target} loads one of them."
            yield LibraryFinding("equal_names", "warning", one.path, message, renaming(one.path))


def equal_aliases(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """An `ss_output_name` that several files have: A1111 and Forge forbid it then, and prompts that use it load nothing."""
    if folder.target not in {"a1111", "forge"}:
        return
    groups: dict[str, list[Installed]] = defaultdict(list)
    for one in files:
        if one.facts.alias and one.facts.alias != one.name:
            groups[one.facts.alias].append(one)
    stems = {one.name: one for one in files}
    for alias, group in groups.items():
        if alias.lower() in RESERVED or len(group) > 1 or alias in stems:
            others = ", ".join(str(one.path) for one in group[1:]) or str(
                stems[alias].path if alias in stems else "a reserved word"
            )
            message = (
                f"The alias {alias} of {group[0].name} is taken as well by {others}: only file names work in prompts."
            )
            yield LibraryFinding("equal_aliases", "warning", group[0].path, message, f"Use <lora:{group[0].name}:1>.")


def unspeakable(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Names that a prompt cannot hold, or not everywhere."""
    del folder
    for one in files:
        bad = [character for character in ":>" if character in one.name]
        if one.name.count("=") == 1:
            bad.append("=")
        if bad:
            message = f"The name {one.name} has a {bad[0]}, which ends or splits a <lora:…> tag."
            yield LibraryFinding("unspeakable", "error", one.path, message, renaming(one.path))
        elif _WILDCARD.search(one.name):
            message = f"The name {one.name} holds what reads like a wildcard, which prompt extensions replace."
            yield LibraryFinding("wildcard", "warning", one.path, message, renaming(one.path))


def unportable(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Names that another system cannot have, or spells otherwise."""
    del folder
    for one in files:
        name = one.path.name
        if _CONTROLS.search(name):
            message = (
                f"The name {name!r} holds a control character: Windows cannot have it, and a terminal may obey it."
            )
        elif _WINDOWS & set(name):
            message = f"Windows cannot have a file called {name}."
        elif len(str(one.path)) > LONG_PATH:
            message = f"The path is {len(str(one.path))} characters long; Windows' programs stop at {LONG_PATH}."
        elif unicodedata.normalize("NFC", name) != name:
            message = f"{name} is spelt with combining characters; prompts typed on other systems do not match it."
        else:
            continue
        yield LibraryFinding("unportable", "warning", one.path, message, renaming(one.path))


def left_overs(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """Links that lead nowhere, sidecars without a model, and models whose name no UI can write down."""
    del files
    if not folder.path.is_dir():
        return
    suffixes = tuple(sidecar.suffix for sidecar in all_sidecars().values() if sidecar.suffix != ".json")
    for parent, _, names in os.walk(folder.path):
        if TRASH in Path(parent).parts:
            continue
        for name in sorted(names):
            path = Path(parent) / name
            if path.suffix.lower() in MODELS and _NOT_UTF8.search(name):
                shown = os.fsencode(name).decode("utf-8", "backslashreplace")
                message = f"The name {shown} is not UTF-8, so hubtool passes the file over, as JSON and most UIs cannot hold it."
                yield LibraryFinding("not_utf8", "error", path, message, "Rename the file with `mv` or a file manager.")
            elif path.is_symlink() and not path.exists():
                message = f"{name} is a link that leads nowhere: {path.readlink()}"
                yield LibraryFinding(
                    "dangling_link", "error", path, message, "Delete the link, or bring its file back."
                )
            elif (suffix := next((end for end in suffixes if name.endswith(end)), "")) and not _has_model(path, suffix):
                message = f"{name} belongs to a model that is not here."
                yield LibraryFinding("orphan", "warning", path, message, "Delete it, or bring the model back.")


def _has_model(sidecar: Path, suffix: str) -> bool:
    stem = sidecar.name.removesuffix(suffix)
    return any(sidecar.with_name(stem + extension).exists() for extension in MODELS)


def pictures(folder: Folder, files: Sequence[Installed]) -> Iterator[LibraryFinding]:
    """A1111 shows one of several pictures, and does not say which."""
    if folder.target not in {"a1111", "forge"}:
        return
    for one in files:
        found = [
            path
            for ending in (".png", ".jpg", ".jpeg", ".webp", ".gif")
            for path in (one.path.with_name(f"{one.name}.preview{ending}"), one.path.with_name(f"{one.name}{ending}"))
            if path.is_file()
        ]
        if len(found) > 1:
            message = f"{one.name} has {len(found)} pictures: {', '.join(path.name for path in found)}."
            yield LibraryFinding("pictures", "warning", one.path, message, "Keep the one that you want to see.")


RULES: tuple[Rule, ...] = (
    unusable,
    equal_stems,
    equal_aliases,
    unspeakable,
    unportable,
    reserved,
    case_twins,
    dotted,
    wrong_base,
    bogus_hashes,
    broken_sidecars,
    left_overs,
    unfinished,
    pictures,
)
