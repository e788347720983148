"""A hub's records in the words of the library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubtool.hubs.addresses import public_url
from hubtool.library.licenses import terms
from hubtool.library.record import Origin

if TYPE_CHECKING:
    from hubtool.hubs.hub import Resolved

_SECRET = re.compile(r"[?&](token|api_?key|signature|x-amz-[\w-]+|expires|policy|key-pair-id)=", re.IGNORECASE)


def origin_of(resolved: Resolved) -> Origin:
    """Where a file comes from, with the hub's whole answer for the sidecars that store it."""
    model, version, file = resolved.model, resolved.version, resolved.file
    if not resolved.hub:  # named by its address alone
        return Origin(hub="", model_name=model.name, url=public_url(file.url))
    # only hubs that count their versions have an address for each
    page = f"{model.url}?modelVersionId={version.id}" if model.url and str(version.id).isdigit() else model.url
    return Origin(
        hub=resolved.hub,
        model_id=str(model.id),
        version_id=str(version.id),
        file_id=str(file.id),
        model_name=model.name,
        version_name=version.name,
        creator=model.creator,
        base_model=version.base_model,
        trigger_words=version.trigger_words,
        url=page,
        snapshot=_snapshot(resolved),
    )


def _snapshot(resolved: Resolved) -> dict[str, object]:
    """The version as the hub answers for it, its model's part completed: a list's answer has less in it."""
    model, raw = resolved.model, resolved.version.raw
    inside = raw.get("model")
    known = {"name": model.name, "type": model.type, "nsfw": model.nsfw, "poi": False}
    added: dict[str, object] = {
        "description": model.description,
        "tags": list(model.tags),
        "creator": {"username": model.creator},
    }
    added |= terms(model.license)
    details = {**known, **(inside if isinstance(inside, dict) else {})}
    if not raw:  # a hub without records of versions
        return {"license": model.license.name} if model.license.name else {}
    shown = {**raw, "modelId": raw.get("modelId") or model.id, "model": {**added, **details}}
    return {key: _public(value) for key, value in shown.items()}


def _public(value: object) -> object:
    """JSON without signatures and tokens in its addresses; sidecars are shared with strangers."""
    if isinstance(value, dict):
        return {key: _public(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_public(entry) for entry in value]
    return public_url(value) if isinstance(value, str) and "://" in value[:10] and _SECRET.search(value) else value
