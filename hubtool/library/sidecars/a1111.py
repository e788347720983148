"""`<name>.json`: what A1111's and Forge's "edit metadata" dialog stores.

Others keep their own keys in the same file (SD.Next the hub's answer, InvokeAI reads these keys, browsers add ids).
"""

from __future__ import annotations

import re

from hubtool.library.record import Own, split_words
from hubtool.library.sidecar import Card, Sidecar, Table, strength

_ADDRESS = re.compile(r"https?://\S+")
#: Architecture → the dialog's "Stable Diffusion version".
VERSIONS = {
    "sd1": "SD1",
    "sd2": "SD2",
    "sdxl": "SDXL",
    "sd3-medium": "SD3",
    "sd35-medium": "SD3",
    "sd35-large": "SD3",
    "flux1": "Flux",
}


def _fields(card: Card) -> Table:
    return {
        "description": card.description,
        "sd version": VERSIONS.get(card.architecture or "", "Unknown"),
        "activation text": ", ".join(card.own.trigger_words or card.trigger_words),  # put behind the tag on a click
        "preferred weight": card.own.preferred_weight or 0.0,  # the dialog's "not set"
        "negative text": card.own.negative,
        "notes": card.own.notes or (card.origin.url if card.origin else ""),
    }


def _own(table: Table) -> Own:
    text = table.get("activation text")
    notes, negative = table.get("notes"), table.get("negative text")
    return Own(
        preferred_weight=strength(table.get("preferred weight")) or None,
        trigger_words=split_words(text) if isinstance(text, str) else (),
        # an address alone is what we write there for want of notes, or a browser extension does
        notes=notes.strip() if isinstance(notes, str) and not _ADDRESS.fullmatch(notes.strip()) else "",
        negative=negative.strip() if isinstance(negative, str) else "",
    )


SIDECAR = Sidecar(
    id="a1111",
    source="stable-diffusion-webui modules/ui_extra_networks_user_metadata.py",
    suffix=".json",
    fields=_fields,
    own=_own,
)
