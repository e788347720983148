"""SwarmUI: JSON in `parameters` (PNG) or UserComment; lists of LoRAs and weights, hashes of tensors in `sui_models`."""

from __future__ import annotations

from collections.abc import Mapping

from hubtool.library.mention import Generator, Mention, hex_digits, json_of, number, stem

_LISTS = ("loras", "loraweights", "loratencweights", "lorasectionconfinement")
_EVERYWHERE = "0"  # the number of no section


def read(texts: Mapping[str, str]) -> list[Mention] | None:
    """The LoRAs of `sui_image_params`; None if there are no such."""
    table = next((found for key in ("parameters", "UserComment", "text") if (found := json_of(texts.get(key)))), None)
    used = table.get("sui_image_params") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(used, Mapping):
        return None
    names, weights, encoders, sections = (_listed(used.get(key)) for key in _LISTS)
    models = table.get("sui_models")
    hashes = {
        stem(str(model.get("name"))): hex_digits(model.get("hash"))
        for model in (models if isinstance(models, list) else ())
        if isinstance(model, Mapping)
    }
    return [
        Mention(
            name,
            number(weights[place]) if place < len(weights) else 1.0,
            number(encoders[place]) if place < len(encoders) else None,
            hashes.get(stem(name), ""),
            hash_kind="tensors_sha256",
            section=sections[place] if place < len(sections) and sections[place] != _EVERYWHERE else "",
        )
        for place, name in enumerate(names)
    ]


def _listed(value: object) -> list[str]:
    """A JSON list, or a text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(entry) for entry in value] if isinstance(value, list) else []


GENERATOR = Generator(
    id="swarmui",
    source="mcmonkeyprojects/SwarmUI src/Text2Image/T2IParamInput.cs",
    read=read,
)
