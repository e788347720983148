"""InvokeAI: `invokeai_metadata`, JSON whose `loras` name model and weight; its hashes are BLAKE3."""

from __future__ import annotations

from collections.abc import Mapping

from hubtool.library.mention import Generator, Mention, hex_digits, json_of, number

#: What it writes before the colon → kind; of its others, `random` says nothing of the file, and no hub knows the rest.
_KINDS = {"": "blake3", "blake3": "blake3", "blake3_single": "blake3", "blake3_multi": "blake3", "sha256": "sha256"}


def read(texts: Mapping[str, str]) -> list[Mention] | None:
    """The LoRAs of a picture of InvokeAI 3 or later; None if it is none."""
    table = json_of(texts.get("invokeai_metadata"))
    if not isinstance(table, dict):
        return None
    listed = table.get("loras")
    found = []
    for entry in listed if isinstance(listed, list) else ():
        model = (entry.get("model") or entry.get("lora")) if isinstance(entry, Mapping) else None  # `lora` in 3.x
        if isinstance(model, Mapping):
            name = str(model.get("name") or model.get("model_name") or model.get("key") or "")
            kind, _, digits = str(model.get("hash") or "").rpartition(":")
            weight = number(entry.get("weight"))
            known = _KINDS.get(kind, "")
            found.append(Mention(name, weight, hash=hex_digits(digits) if known else "", hash_kind=known))
    return found


GENERATOR = Generator(
    id="invokeai",
    source="invoke-ai/InvokeAI invokeai/app/invocations/metadata.py",
    read=read,
)
