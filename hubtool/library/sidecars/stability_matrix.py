"""`<name>.cm-info.json`: Stability Matrix' record of a model that came from Civitai; also read by SwarmUI.

Its reader wants whole numbers for the ids, so a model of another hub gets none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from hubtool.library.record import Origin, Own
from hubtool.library.sidecar import Card, Sidecar, Table, number_or_text, words


def _fields(card: Card) -> Table:
    origin = card.origin
    if not origin or not (origin.model_id.isdecimal() and origin.version_id.isdecimal()):
        return {}
    version = origin.snapshot
    inside = version.get("model")
    model: Mapping[str, object] = inside if isinstance(inside, Mapping) else {}
    file = _file(version.get("files"), origin.file_id)
    fields: Table = {
        "ModelId": int(origin.model_id),
        "ModelName": origin.model_name,
        "ModelDescription": model.get("description") or card.description,
        "Nsfw": bool(model.get("nsfw")),
        "Tags": list(card.tags),
        "ModelType": model.get("type") or "LORA",
        "VersionId": int(origin.version_id),
        "VersionName": origin.version_name,
        "VersionDescription": version.get("description"),
        "AuthorUsername": origin.creator or None,
        "BaseModel": origin.base_model or None,
        "RemoteFileName": file.get("name"),
        "RemoteFileId": file.get("id"),
        "FileMetadata": file.get("metadata"),
        "ImportedAt": datetime.now(timezone.utc).isoformat(),
        "Hashes": file.get("hashes") or {"SHA256": card.sha256.upper()},
        "TrainedWords": list(card.trigger_words),
        "Source": "Civitai",
    }
    return {key: value for key, value in fields.items() if value is not None}  # null keys are left out


def _file(files: object, id: str) -> Mapping[str, object]:
    known = [file for file in files if isinstance(file, Mapping)] if isinstance(files, Sequence) else []
    return next((file for file in known if str(file.get("id")) == id), known[0] if known else {})


def _origin(table: Table) -> Origin | None:
    if not isinstance(table.get("ModelId"), int) or not isinstance(table.get("VersionId"), int):
        return None
    return Origin(
        hub="civitai",
        model_id=number_or_text(table["ModelId"]),
        version_id=number_or_text(table["VersionId"]),
        file_id=number_or_text(table.get("RemoteFileId")),
        model_name=number_or_text(table.get("ModelName")),
        version_name=number_or_text(table.get("VersionName")),
        creator=number_or_text(table.get("AuthorUsername")),
        base_model=number_or_text(table.get("BaseModel")),
        trigger_words=words(table.get("TrainedWords")),
    )


def _own(table: Table) -> Own:
    title = table.get("UserTitle")
    return Own(notes=title.strip() if isinstance(title, str) else "")


SIDECAR = Sidecar(
    id="stability_matrix",
    source="LykosAI/StabilityMatrix StabilityMatrix.Core/Models/ConnectedModelInfo.cs",
    suffix=".cm-info.json",
    identity="VersionId",
    fields=_fields,
    own=_own,
    origin=_origin,
)
