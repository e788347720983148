"""The site's half of the hub: `/api/v1/…` and `/api/download/…`, as functions from a request to an answer."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hubtool.hubs.sample.catalogue import EARLY_ACCESS_ENDS, MODELS, USER, Offer, offers
from hubtool.hubs.sample.exchange import Answer, Json, Refused, invalid, json_answer, number
from hubtool.hubs.sample.made import made
from hubtool.hubs.sample.records import (
    Origins,
    brief_version,
    offers_of,
    picture_records,
    whole_model,
    whole_version,
)
from hubtool.hubs.sample.search import MODEL_TYPES, search_models
from hubtool.hubs.sample.storage import signed_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hubtool.hubs.sample.catalogue import Model, Version
    from hubtool.hubs.sample.exchange import Request

MAX_ID = 2**31 - 1
MAX_BY_HASH, MAX_IDS_BY_HASH = 100, 10_000
_BASE_MODELS = ("Flux.1 D", "Pony", "SD 1.5", "SDXL 1.0")


def answer(request: Request, origins: Origins) -> Answer:
    """The site's answer to a request."""
    try:
        for method, pattern, respond in _ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                return respond(request, origins, *match.groups())
        known = any(re.fullmatch(pattern, request.path) for _, pattern, _ in _ROUTES)
        raise Refused(405, {"error": "Method not allowed"}) if known else Refused(404, {"error": "Not found"})
    except Refused as refusal:
        return json_answer(refusal.body, refusal.status)


# ---------------------------------------------------------------- models and versions


def _models(request: Request, origins: Origins) -> Answer:
    if not request.is_signed_in and request.parameters.keys() & {"favorites", "hidden"}:
        raise Refused(401, {"error": "Unauthorized"})
    return json_answer(search_models(request.parameters, origins))


def _model(_: Request, origins: Origins, id: str) -> Answer:
    if not 1 <= int(id) <= MAX_ID:
        raise invalid("id", f"expected a number from 1 to {MAX_ID}")
    model = next((model for model in MODELS if model.id == int(id)), None)
    if model is None:
        raise Refused(404, {"error": f"No model with id {id}"})
    return json_answer(whole_model(model, origins))


def _version(_: Request, origins: Origins, id: str) -> Answer:
    return json_answer(whole_version(*_named_version(id), origins))


def _brief_version(_: Request, origins: Origins, id: str) -> Answer:
    return json_answer(brief_version(*_named_version(id), origins))


def _named_version(id: str, otherwise: str = "Model not found") -> tuple[Model, Version]:
    for model in MODELS:
        for version in model.versions:
            if str(version.id) == id:
                return model, version
    raise Refused(404, {"error": otherwise})


# ---------------------------------------------------------------- hashes


@lru_cache(maxsize=1)
def _by_digits() -> Mapping[str, Offer]:
    """Hash of any kind → the file of the oldest version that has it."""
    aged = sorted(offers(), key=lambda offer: offer.version.released, reverse=True)
    return {digits: offer for offer in aged for digits in made(offer).hashes.values()}


def _by_hash(_: Request, origins: Origins, digits: str) -> Answer:
    offer = _by_digits().get(digits.upper())
    if offer is None:
        raise Refused(404, {"error": "Model not found"})
    return json_answer(whole_version(offer.model, offer.version, origins))


def _by_hashes(request: Request, origins: Origins) -> Answer:
    found = {offer.version.id: offer for offer in _offers_by_sha256(request, MAX_BY_HASH)}
    return json_answer([whole_version(offer.model, offer.version, origins) for offer in found.values()])


def _ids_by_hashes(request: Request, _: Origins) -> Answer:
    found = _offers_by_sha256(request, MAX_IDS_BY_HASH)
    rows = ((offer.version.id, offer.model.id, made(offer).hashes["SHA256"]) for offer in found)
    return json_answer([dict(zip(("modelVersionId", "modelId", "hash"), row, strict=True)) for row in rows])


def _offers_by_sha256(request: Request, limit: int) -> list[Offer]:
    try:
        wanted = json.loads(request.body)
    except ValueError:
        wanted = None
    is_list = isinstance(wanted, list) and len(wanted) <= limit
    if not is_list or not all(isinstance(digits, str) and len(digits) == 64 for digits in wanted):
        raise Refused(400, {"error": f"Request must include an array of SHA256 Hashes. At most {limit}."})
    return [_by_digits()[digits.upper()] for digits in wanted if digits.upper() in _by_digits()]


# ---------------------------------------------------------------- the rest of the catalogue


def _images(request: Request, origins: Origins) -> Answer:
    wanted = {key: request.parameters.get(key, [""])[0] for key in ("modelId", "modelVersionId", "username")}
    items: list[Json] = []
    for model in MODELS:
        for version in model.versions:
            named = {"modelId": str(model.id), "modelVersionId": str(version.id), "username": model.creator}
            if all(value in {"", named[key]} for key, value in wanted.items()):
                items += picture_records(model, version, origins)
    return json_answer({"items": items[: number(request.parameters, "limit", 100, range(201))], "metadata": {}})


def _tags(request: Request, origins: Origins) -> Answer:
    names = sorted({tag for model in MODELS for tag in model.tags})
    rows = [{"name": name, "link": f"{origins.api}/api/v1/models?tag={name}"} for name in names]
    return _paged(request, rows, "name")


def _creators(request: Request, origins: Origins) -> Answer:
    names = sorted({model.creator for model in MODELS})
    rows: list[Json] = [
        {
            "username": name,
            "modelCount": sum(model.creator == name for model in MODELS),
            "link": f"{origins.api}/api/v1/models?username={name}",
        }
        for name in names
    ]
    return _paged(request, rows, "username")


def _paged(request: Request, rows: Iterable[Mapping[str, object]], field: str) -> Answer:
    """A list that is turned by page numbers."""
    text = request.parameters.get("query", [""])[0].lower()
    found = [row for row in rows if text in str(row[field]).lower()]
    limit = number(request.parameters, "limit", 20, range(1, 201))
    page = number(request.parameters, "page", 1, range(1, 1 << 31))
    about = {
        "totalItems": len(found),
        "currentPage": page,
        "pageSize": limit,
        "totalPages": -(-len(found) // limit),
    }
    return json_answer({"items": found[(page - 1) * limit : page * limit], "metadata": about})


def _enums(_: Request, __: Origins) -> Answer:
    return json_answer(
        {
            "ModelType": list(MODEL_TYPES),
            "ModelFileType": ["Model", "Pruned Model", "Training Data", "Config", "Archive"],
            "ActiveBaseModel": list(_BASE_MODELS),
            "BaseModel": list(_BASE_MODELS),
            "BaseModelType": ["Standard", "Inpainting", "Refiner", "Pix2Pix"],
        }
    )


def _me(request: Request, _: Origins) -> Answer:
    if not request.is_signed_in:
        raise Refused(401, {"error": "Unauthorized"})
    row = {"id": 1, "username": USER, "tier": "free", "status": "active", "isMember": False, "subscriptions": []}
    return json_answer(row)


# ---------------------------------------------------------------- downloads


def _download(request: Request, origins: Origins, id: str) -> Answer:
    """A redirect to the storage, or why not; in the order in which Civitai looks."""
    offer = _chosen(request, id)
    if offer.version.access == "login" and not request.is_signed_in:
        message = "The creator of this asset requires you to be logged in to download it"
        raise Refused(401, {"error": "Unauthorized", "message": message})
    if offer.version.access == "early":
        message = "This asset is in Early Access. You can use Buzz access it now!"
        raise Refused(403, {"error": "Early Access", "deadline": EARLY_ACCESS_ENDS, "message": message})
    return Answer(307, b"", {"Location": origins.storage + signed_path(offer), "Cache-Control": "no-store"})


def _chosen(request: Request, id: str) -> Offer:
    """The file with the id asked for, or the one that is as described; without wishes the primary one."""
    _, version = _named_version(id, "File not found")
    parameters = request.parameters
    candidates = offers_of(version)
    if "fileId" in parameters:
        candidates = [offer for offer in candidates if str(offer.file.id) == parameters["fileId"][0]]
    else:
        size = parameters.get("size", [""])[0]
        candidates = [offer for offer in candidates if size in {"", offer.file.size}]
    if not candidates or any(parameters.get(key, [value])[0] != value for key, value in _ALIKE.items()):
        raise Refused(404, {"error": "File not found"})
    return candidates[0]


_ALIKE = {"type": "Model", "format": "SafeTensor", "fp": "fp16"}  # of every file here


#: Method, path, what answers; the groups of the path are its last arguments.
_ROUTES: Sequence[tuple[str, str, Callable[..., Answer]]] = (
    ("GET", r"/api/v1/models/?", _models),
    ("GET", r"/api/v1/models/(\d{1,10})", _model),
    ("GET", r"/api/v1/model-versions/(\d{1,10})", _version),
    ("GET", r"/api/v1/model-versions/mini/(\d{1,10})", _brief_version),
    ("GET", r"/api/v1/model-versions/by-hash/([0-9A-Za-z]+)", _by_hash),
    ("POST", r"/api/v1/model-versions/by-hash", _by_hashes),
    ("POST", r"/api/v1/model-versions/by-hash/ids", _ids_by_hashes),
    ("GET", r"/api/v1/images", _images),
    ("GET", r"/api/v1/tags", _tags),
    ("GET", r"/api/v1/creators", _creators),
    ("GET", r"/api/v1/enums", _enums),
    ("GET", r"/api/v1/me", _me),
    ("GET", r"/api/download/models/(\d{1,10})", _download),
)
