"""`<name>.json` for SD.Next: the hub's answer for the whole model, of which it looks up trained words and base model.

The file is A1111's too: SD.Next ignores its keys, and it ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from hubtool.library.record import Origin
from hubtool.library.sidecar import Card, Sidecar, Table, number_or_text, words


def _fields(card: Card) -> Table:
    if not card.origin or not card.origin.version:
        return {}
    version = dict(card.origin.version)
    model = version.pop("model", None)
    details = dict(model) if isinstance(model, Mapping) else {}
    return {"id": version.get("modelId"), "name": card.origin.model_name, **details, "modelVersions": [version]}


def _origin(table: Table) -> Origin | None:
    versions = table.get("modelVersions")
    version = versions[0] if isinstance(versions, list) and len(versions) == 1 else None  # which of several is unknown
    if not isinstance(version, Mapping) or not isinstance(table.get("id"), (int, str)):
        return None
    creator = table.get("creator")
    return Origin(
        hub="civitai",
        model_id=number_or_text(table.get("id")),
        version_id=number_or_text(version.get("id")),
        model_name=number_or_text(table.get("name")),
        version_name=number_or_text(version.get("name")),
        creator=number_or_text(creator.get("username")) if isinstance(creator, Mapping) else "",
        base_model=number_or_text(version.get("baseModel")),
        trigger_words=words(version.get("trainedWords")),
    )


SIDECAR = Sidecar(
    id="sdnext",
    source="vladmandic/sdnext modules/ui_extra_networks_lora.py, modules/civitai",
    suffix=".json",
    marker="modelVersions",
    fields=_fields,
    origin=_origin,
)
