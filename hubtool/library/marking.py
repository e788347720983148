"""What the user says about a LoRA, written where every UI reads it, and into our own sidecar for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.errors import NotInstalled, UsageProblem
from hubtool.library.describing import card_of
from hubtool.library.history import keep
from hubtool.library.record import Own, split_words
from hubtool.library.sidecar import all_sidecars, fill, read_sidecars, read_table
from hubtool.library.target import target_named
from hubtool.library.walking import look_again

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.library.sidecar import Card, Sidecar

STRONGEST = 100  # the largest strength, either way, that anybody can mean
#: What an `Own` field is called in each sidecar that has it.
_KEYS: Mapping[str, Mapping[str, str]] = {
    "a1111": {
        "preferred_weight": "preferred weight",
        "trigger_words": "activation text",
        "negative": "negative text",
        "notes": "notes",
    },
    "swarm": {
        "preferred_weight": "modelspec.lora_default_weight",
        "trigger_words": "modelspec.trigger_phrase",
        "notes": "modelspec.usage_hint",
    },
    "lora_manager": {
        "preferred_weight": "usage_tips",
        "trigger_words": "trainedWords",
        "notes": "notes",
        "favourite": "favorite",
        "tags": "tags",
    },
}


def mark(index: Index, model: Installed, change: Callable[[Own], Mapping[str, object]]) -> Own:
    """Say something about a file: `change` turns what was said so far into new values of fields of `Own`.

    Our own sidecar gets all of it; those of UIs that are there, or that the target reads, get what they have a key for. So do
    those of the same file in other folders (known by its hash), for one LoRA in several UIs is one LoRA. It is done under the
    library's lock and from what the sidecars say then, so that of two processes neither undoes the other's words.

    Returns:
        Everything that was said.

    Raises:
        NotInstalled: the file was moved meanwhile. UsageProblem: a value that cannot be.
        StorageProblem: a sidecar cannot be written.
    """
    with index.writing():
        known = index.at(model.path)
        if known is None:
            raise NotInstalled(model.name)
        changes = change(_said_now(index, known))
        _check(changes)
        own = _mark_one(index, known, changes)
        for twin in copies_of(index, known):
            _mark_one(index, twin, changes)
    return own


def _check(changes: Mapping[str, object]) -> None:
    rating, weight = changes.get("rating", 0), changes.get("preferred_weight")
    if not isinstance(rating, int) or not 0 <= rating <= 5:
        raise UsageProblem(f"A rating is a number from 0 to 5: {rating}")
    if weight is not None and not (isinstance(weight, (int, float)) and abs(weight) <= STRONGEST):  # NaN is neither
        raise UsageProblem(f"A strength is a number from -{STRONGEST} to {STRONGEST}: {weight}")


def said_after(index: Index, model: Installed, change: Callable[[Own], Mapping[str, object]]) -> Own:
    """What `mark` would answer; nothing is written.

    Raises:
        UsageProblem: a value that cannot be.
    """
    before = _said_now(index, model)
    changes = change(before)
    _check(changes)
    return replace(before, **changes)  # type: ignore[arg-type]  # fields of Own, as the caller asks


def copies_of(index: Index, model: Installed) -> list[Installed]:
    """The same bytes at other places, as far as hashes are known."""
    digest = model.digests.sha256
    twins = index.with_content(digest) if digest else []
    return [twin for twin in twins if twin.path != model.path and twin.digests.sha256 == digest and twin.is_there()]


def _said_now(index: Index, model: Installed) -> Own:
    """What the user said, by the sidecars as they are now."""
    own, _ = read_sidecars(model.path)
    return index.with_snapshot(replace(model, own=own)).said


def _mark_one(index: Index, model: Installed, changes: Mapping[str, object]) -> Own:
    before = _said_now(index, model)
    own = replace(before, **changes)  # type: ignore[arg-type]  # fields of Own, as the caller asks
    untagged = tuple(tag for tag in before.tags if tag not in own.tags)
    _write(replace(model, own=own), replace(card_of(index, replace(model, own=own)), untagged=untagged), changes)
    read, _ = read_sidecars(model.path)
    for seen in look_again([str(model.path)]):
        index.store(replace(model, own=read, origin=None), seen.sidecars)
    return own


def _write(model: Installed, card: Card, changed: Collection[str]) -> None:
    mine = all_sidecars()["hubtool"]
    path = mine.path(model.path)
    if model.own == Own():
        if before := read_table(path):
            keep(path, model.path.stem, before)
        path.unlink(missing_ok=True)
    else:
        fields = mine.fields(card)
        fill(path, fields, placed=tuple(fields))
    for id, keys in _KEYS.items():
        sidecar = all_sidecars()[id]
        if sidecar.is_beside(model.path) or id in target_named(model.target).sidecars:
            _tell(sidecar, card, tuple(keys[name] for name in changed if name in keys))


def _tell(sidecar: Sidecar, card: Card, keys: tuple[str, ...]) -> None:
    """Write these keys, and what else is missing: SwarmUI reads words from one file only, and a poor one would hide others.

    A value that was taken back becomes empty.
    """
    if not keys or card.model is None:
        return
    path = sidecar.path(card.model)
    said = sidecar.fields(card) | (sidecar.changed(read_table(path) or {}, card) if sidecar.changed else {})
    fill(path, said | {key: said.get(key, "") for key in keys}, placed=keys)


def outfit(text: str) -> str:
    """An outfit as it is kept, from `name: words` or `name: words / negative words`.

    Raises:
        UsageProblem: no name, or no words.
    """
    name, colon, rest = text.partition(":")
    if not colon or not name.strip() or not rest.strip():
        raise UsageProblem(f"Write NAME: WORDS, or NAME: WORDS / NEGATIVE WORDS: {text}")
    return f"{name.strip()}: {' '.join(rest.split())}"


def changes_from(own: Own, said: Mapping[str, object]) -> dict[str, object]:
    """The fields of `Own` that the options of `mark` change.

    Raises:
        UsageProblem: an outfit that is none.
    """
    found: dict[str, object] = {}
    added, removed = _texts(said.get("tags")), {text.casefold() for text in _texts(said.get("untags"))}
    if added or removed:
        tags = dict.fromkeys([*own.tags, *added])
        found["tags"] = tuple(tag for tag in tags if tag.casefold() not in removed)
    if said.get("weight") is not None:
        found["preferred_weight"] = said["weight"] or None
    if isinstance(words := said.get("triggers"), str):
        found["trigger_words"] = split_words(words)
    if outfits := [outfit(text) for text in _texts(said.get("outfits"))]:
        names = {text.partition(":")[0].casefold() for text in outfits}
        found["outfits"] = (*(one for one in own.outfits if one.partition(":")[0].casefold() not in names), *outfits)
    return found | {key: said[key] for key in ("favourite", "rating", "negative", "notes") if said.get(key) is not None}


def _texts(value: object) -> list[str]:
    return [text.strip() for text in value if text.strip()] if isinstance(value, tuple) else []
