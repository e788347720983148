"""Civitai's answer for one version, as several programs keep it beside the model."""

from __future__ import annotations

from collections.abc import Mapping

from hubtool.library.record import Origin
from hubtool.library.sidecar import number_or_text, words


def origin_of_version(version: Mapping[str, object]) -> Origin | None:
    """Where a file came from, by the hub's own record of the version; None if this is none."""
    if not isinstance(version.get("id"), (int, str)):
        return None
    inside = version.get("model")
    model: Mapping[str, object] = inside if isinstance(inside, Mapping) else {}
    creator = model.get("creator") or version.get("creator")
    return Origin(
        hub="civitai",
        model_id=number_or_text(version.get("modelId")),
        version_id=number_or_text(version.get("id")),
        model_name=number_or_text(model.get("name")),
        version_name=number_or_text(version.get("name")),
        creator=number_or_text(creator.get("username")) if isinstance(creator, Mapping) else "",
        base_model=number_or_text(version.get("baseModel")),
        trigger_words=words(version.get("trainedWords")),
        snapshot=dict(version),
    )
