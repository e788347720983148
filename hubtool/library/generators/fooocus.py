"""Fooocus' own scheme: JSON in `parameters` or UserComment with `lora_combined_N: "file : weight"` and `loras` with hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.library.mention import Generator, Mention, hex_digits, json_of, merged, number

if TYPE_CHECKING:
    from collections.abc import Mapping


def read(texts: Mapping[str, str]) -> list[Mention] | None:
    """The LoRAs of a picture of Fooocus; None if it is none (its a1111 scheme is an infotext)."""
    table = next((found for key in ("parameters", "UserComment", "text") if (found := json_of(texts.get(key)))), None)
    if not isinstance(table, dict) or not (
        "base_model" in table or any(key.startswith("lora_combined_") for key in table)
    ):
        return None
    listed = table.get("loras")
    found = [
        Mention(str(entry[0]), number(entry[1]), hash=hex_digits(entry[2]) if len(entry) > 2 else "")
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, list) and len(entry) > 1
    ]
    for key, value in table.items():
        if key.startswith("lora_combined_") and isinstance(value, str):
            name, _, weight = value.rpartition(" : ")
            found.append(Mention(name, number(weight)))
    return merged(found)


GENERATOR = Generator(
    id="fooocus",
    source="lllyasviel/Fooocus modules/meta_parser.py, modules/private_logger.py",
    read=read,
)
