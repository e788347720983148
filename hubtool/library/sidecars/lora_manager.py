"""`<name>.metadata.json`: ComfyUI LoRA Manager's record of a file, as its docs/metadata-json-schema.md has it.

`usage_tips` is a JSON document inside a string. Keys that we do not know stay, as LoRA Manager itself promises.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence

from hubtool.library.record import Origin, Own
from hubtool.library.sidecar import Card, Sidecar, Table, strength, words
from hubtool.library.version_record import origin_of_version


def _fields(card: Card) -> Table:
    if card.model is None:
        return {}
    origin, own = card.origin, card.own
    return {
        "file_name": card.model.stem,
        "model_name": origin.model_name if origin and origin.model_name else card.model.stem,
        "file_path": card.model.as_posix(),
        "size": card.size_bytes,
        "modified": time.time(),
        "sha256": card.sha256,
        "base_model": (origin.base_model if origin else "") or "Unknown",
        "preview_url": card.picture.as_posix() if card.picture else "",
        "preview_nsfw_level": 0,
        "notes": own.notes,
        "from_civitai": bool(origin and origin.hub == "civitai"),
        "civitai": dict(origin.version) if origin else {},
        "tags": _tags(card.tags, card),
        "modelDescription": card.description,
        "civitai_deleted": False,
        "favorite": own.favourite,
        "exclude": False,
        "hash_status": "completed" if card.sha256 else "pending",
        "trainedWords": list(own.trigger_words),
        "usage_tips": _tips({}, own),
    }


def _changed(table: Table, card: Card) -> Table:
    tags = table.get("tags", card.tags)
    there = [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, (list, tuple)) else []
    return {"usage_tips": _tips(_tips_of(table.get("usage_tips")), card.own), "tags": _tags(there, card)}


def _tags(before: Sequence[str], card: Card) -> list[str]:
    """LoRA Manager keeps the hub's tags and the user's in one list; what the user takes back stays if the hub says it."""
    taken_back = set(card.untagged) - set(card.tags)
    return [tag for tag in dict.fromkeys([*before, *card.own.tags]) if tag not in taken_back]


def _tips(before: Table, own: Own) -> str:
    """The tips with the user's strength; ranges, clip_skip and whatever else is there stay."""
    tips = {key: value for key, value in before.items() if key != "strength"}
    return json.dumps(tips if own.preferred_weight is None else {**tips, "strength": own.preferred_weight})


def _origin(table: Table) -> Origin | None:
    version = table.get("civitai")
    return origin_of_version(version) if isinstance(version, Mapping) else None


def _own(table: Table) -> Own:
    notes = table.get("notes")
    return Own(
        favourite=table.get("favorite") is True,
        preferred_weight=strength(_tips_of(table.get("usage_tips")).get("strength")),
        trigger_words=words(table.get("trainedWords")),
        notes=notes.strip() if isinstance(notes, str) else "",
    )


def _tips_of(text: object) -> Table:
    try:
        table = json.loads(text) if isinstance(text, str) and text else {}
    except (ValueError, RecursionError):  # somebody else's text: as good as none
        return {}
    return table if isinstance(table, dict) else {}


SIDECAR = Sidecar(
    id="lora_manager",
    source="willmiao/ComfyUI-Lora-Manager docs/metadata-json-schema.md, py/utils/models.py",
    suffix=".metadata.json",
    identity="sha256",
    placed=("file_name", "file_path", "preview_url"),
    fields=_fields,
    own=_own,
    origin=_origin,
    changed=_changed,
)
