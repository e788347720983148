"""`<name>.civitai.info`: the hub's answer for the version, as Civitai Helper keeps it.

Also read by LoRA Manager on its first scan and by SwarmUI.
"""

from __future__ import annotations

from hubtool.library.sidecar import Card, Sidecar, Table
from hubtool.library.version_record import origin_of_version


def _fields(card: Card) -> Table:
    return dict(card.origin.version) if card.origin else {}


SIDECAR = Sidecar(
    id="civitai_info",
    source="zixaphir/Stable-Diffusion-Webui-Civitai-Helper ch_lib/model.py",
    suffix=".civitai.info",
    identity="id",
    fields=_fields,
    origin=origin_of_version,
)
