"""`<name>.hubtool.json`: what the user says about a LoRA and no other program has a place for.

Tags, favourites, ratings and outfits live in this file, so that the index can be deleted and a moved folder keeps them.
"""

from __future__ import annotations

from hubtool.library.record import Own
from hubtool.library.sidecar import Card, Sidecar, Table, strength, words


def _fields(card: Card) -> Table:
    own = card.own
    if own == Own():
        return {}
    return {
        "tags": list(own.tags),
        "favourite": own.favourite,
        "rating": own.rating,
        "preferred_weight": own.preferred_weight,
        "trigger_words": list(own.trigger_words),
        "negative": own.negative,
        "outfits": list(own.outfits),
        "notes": own.notes,
    }


def _own(table: Table) -> Own:
    rating = table.get("rating")
    outfits = table.get("outfits")
    return Own(
        tags=words(table.get("tags")),
        favourite=table.get("favourite") is True,
        preferred_weight=strength(table.get("preferred_weight")),
        trigger_words=words(table.get("trigger_words")),
        notes=_text(table.get("notes")),
        negative=_text(table.get("negative")),
        rating=rating if isinstance(rating, int) and not isinstance(rating, bool) and 0 <= rating <= 5 else 0,
        outfits=tuple(one for one in outfits if isinstance(one, str)) if isinstance(outfits, list) else (),
    )


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


SIDECAR = Sidecar(
    id="hubtool",
    source="our own",
    suffix=".hubtool.json",
    fields=_fields,
    own=_own,
)
