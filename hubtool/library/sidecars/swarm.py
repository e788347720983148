"""`<name>.swarm.json`: modelspec keys as SwarmUI merges them over the file's own header.

Two keys are SwarmUI's own: `modelspec.lora_default_weight` and `modelspec.lora_default_confinement`.
"""

from __future__ import annotations

from hubtool.library.record import Own, split_words
from hubtool.library.sidecar import Card, Sidecar, Table, strength


def _fields(card: Card) -> Table:
    origin, own = card.origin, card.own
    said = {
        "modelspec.title": f"{origin.model_name} {origin.version_name}".strip() if origin else "",
        "modelspec.author": origin.creator if origin else "",
        "modelspec.description": card.description,
        "modelspec.trigger_phrase": ", ".join(own.trigger_words or card.trigger_words),
        "modelspec.tags": ", ".join(own.tags or card.tags),
        "modelspec.usage_hint": own.notes,
        "modelspec.lora_default_weight": f"{own.preferred_weight:g}" if own.preferred_weight is not None else "",
    }
    return {key: text for key, text in said.items() if text}


def _own(table: Table) -> Own:
    phrase, weight = table.get("modelspec.trigger_phrase"), table.get("modelspec.lora_default_weight")
    hint = table.get("modelspec.usage_hint")
    return Own(
        preferred_weight=strength(weight),
        trigger_words=split_words(phrase) if isinstance(phrase, str) else (),
        notes=hint.strip() if isinstance(hint, str) else "",
    )


SIDECAR = Sidecar(
    id="swarm",
    source="mcmonkeyprojects/SwarmUI src/Text2Image/T2IModelHandler.cs, T2IModel.cs",
    suffix=".swarm.json",
    fields=_fields,
    own=_own,
)
