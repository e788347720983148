"""`<name>.civitai.info`: the hub's answer for the version, as Civitai Helper keeps it.

Also read by LoRA Manager on its first scan and by SwarmUI; the only sidecar that says where a file came from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.library.record import Origin
from hubtool.library.sidecar import Card, Sidecar, Table, words

if TYPE_CHECKING:
    from collections.abc import Mapping


def _fields(card: Card) -> Table:
    return dict(card.origin.snapshot) if card.origin else {}


def _origin(table: Table) -> Origin | None:
    if not isinstance(table.get("id"), (int, str)):
        return None
    model = table.get("model")
    details: Mapping[str, object] = model if isinstance(model, dict) else {}
    creator = details.get("creator") or table.get("creator")
    return Origin(
        hub="civitai",
        model_id=_text(table.get("modelId")),
        version_id=_text(table.get("id")),
        model_name=_text(details.get("name")),
        version_name=_text(table.get("name")),
        creator=_text(creator.get("username")) if isinstance(creator, dict) else "",
        base_model=_text(table.get("baseModel")),
        trigger_words=words(table.get("trainedWords")),
        snapshot=table,
    )


def _text(value: object) -> str:
    return str(value) if isinstance(value, (str, int)) else ""


SIDECAR = Sidecar(
    id="civitai_info",
    source="zixaphir/Stable-Diffusion-Webui-Civitai-Helper ch_lib/model.py",
    suffix=".civitai.info",
    identity="id",
    fields=_fields,
    origin=_origin,
)
