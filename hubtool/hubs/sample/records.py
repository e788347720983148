"""The catalogue in Civitai's JSON (docs/hubs.md): models, versions, files, pictures.

The places differ as they do there: the list gives pictures an id, `/models/{id}` leaves out what is null, and only
`/model-versions/{id}` has `model`, `air` and the pictures' `meta`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hubtool.hubs.sample.catalogue import EARLY_ACCESS_ENDS, Offer, offers
from hubtool.hubs.sample.made import made
from hubtool.hubs.sample.picture import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.hubs.sample.catalogue import Model, Version
    from hubtool.hubs.sample.exchange import Json

_AIR_TYPES: Mapping[str, str] = {"LORA": "lora", "LoCon": "lycoris", "DoRA": "dora"}
_ECOSYSTEMS: Mapping[str, str] = {"sd1": "sd1", "sdxl": "sdxl", "flux1": "flux1"}


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the two halves of the hub answer: scheme, host and port, no slash."""

    api: str
    storage: str


def listed_model(model: Model, versions: Sequence[Version], origins: Origins) -> Json:
    """An item of GET /models, with those of its versions that the search asked for."""
    return _model(model) | {"modelVersions": [_listed_version(model, version, origins) for version in versions]}


def whole_model(model: Model, origins: Origins) -> Json:
    """GET /models/{id}."""
    versions = []
    for number, version in enumerate(model.versions):
        record = {key: value for key, value in _version(model, version, origins).items() if value is not None}
        pictures = [
            {key: value for key, value in picture.items() if key != "id"} for picture in _pictures(version, origins)
        ]
        versions.append(record | {"index": number, "images": pictures})
    return _model(model) | {"modelVersions": versions}


def whole_version(model: Model, version: Version, origins: Origins) -> Json:
    """GET /model-versions/{id}; creator and tags are not in it."""
    pictures = [
        {key: value for key, value in picture.items() if key != "id"} | {"meta": _meta(version)}
        for picture in _pictures(version, origins)
    ]
    return _version(model, version, origins) | {
        "air": air(model, version),
        "updatedAt": _time(version.released),
        "trainingStatus": None,
        "trainingDetails": None,
        "uploadType": "Created",
        "usageControl": "Download",
        "model": {"name": model.name, "type": model.type, "nsfw": False, "poi": False},
        "images": pictures,
    }


def brief_version(model: Model, version: Version, origins: Origins) -> Json:
    """GET /model-versions/mini/{id}: the only one that says beforehand whether a login or a payment is needed."""
    main = offers_of(version)[0]
    return {
        "air": air(model, version),
        "versionName": version.name,
        "modelName": model.name,
        "baseModel": version.base_model,
        "availability": _availability(version),
        "publishedAt": _time(version.released),
        "size": len(made(main).body) / 1024,
        "fileType": "Model",
        "fileName": main.file.name,
        "hashes": dict(made(main).hashes),
        "downloadUrls": [_download_url(main, origins)],
        "format": "SafeTensor",
        "canGenerate": False,
        "isFeatured": False,
        "requireAuth": version.access == "login",
        "checkPermission": version.access == "early",
        "earlyAccessEndsAt": EARLY_ACCESS_ENDS if version.access == "early" else None,
        "freeTrialLimit": None,
        "minor": False,
        "sfwOnly": False,
    }


def picture_records(model: Model, version: Version, origins: Origins) -> list[Json]:
    """Items of GET /images."""
    return [
        {
            **picture,
            "nsfw": False,
            "nsfwLevel": "None",
            "browsingLevel": 1,
            "createdAt": _time(version.released),
            "postId": version.id,
            "username": model.creator,
            "baseModel": version.base_model,
            "modelVersionIds": [version.id],
            "stats": {"likeCount": model.thumbs_up // 10, "commentCount": 0},
            "meta": None,
        }
        for picture in _pictures(version, origins)
    ]


def offers_of(version: Version) -> list[Offer]:
    """A version's files, the primary one first."""
    return sorted((offer for offer in offers() if offer.version is version), key=lambda offer: not offer.file.primary)


def air(model: Model, version: Version) -> str:
    """The version's AIR; the sample hub speaks as Civitai does, so the source is named so."""
    ecosystem = _ECOSYSTEMS[version.files[0].recipe.architecture]
    return f"urn:air:{ecosystem}:{_AIR_TYPES[model.type]}:civitai:{model.id}@{version.id}"


# ---------------------------------------------------------------- pieces


def _model(model: Model) -> Json:
    return {
        "id": model.id,
        "name": model.name,
        "description": model.about,
        "type": model.type,
        "nsfw": False,
        "nsfwLevel": 1,
        "minor": False,
        "poi": False,
        "sfwOnly": False,
        "availability": "Public",
        "allowNoCredit": not model.credit_needed,
        "allowCommercialUse": list(model.commercial_use),
        "allowDerivatives": model.derivatives,
        "allowDifferentLicense": model.derivatives,
        "supportsGeneration": False,
        "stats": {"downloadCount": model.downloads, "thumbsUpCount": model.thumbs_up, "thumbsDownCount": 0,
                  "commentCount": 0, "tippedAmountCount": 0},
        "creator": {"username": model.creator, "image": None},
        "tags": list(model.tags),
        "baseModels": list(dict.fromkeys(version.base_model for version in model.versions)),
    }  # fmt: skip


def _listed_version(model: Model, version: Version, origins: Origins) -> Json:
    return _version(model, version, origins) | {"images": _pictures(version, origins)}


def _version(model: Model, version: Version, origins: Origins) -> Json:
    """What every answer says about a version."""
    files = offers_of(version)
    return {
        "id": version.id,
        "modelId": model.id,
        "name": version.name,
        "baseModel": version.base_model,
        "baseModelType": "Standard",
        "description": version.about or None,
        "status": "Published",
        "createdAt": _time(version.released),
        "publishedAt": _time(version.released),
        "availability": _availability(version),
        "nsfwLevel": 1,
        "trainedWords": list(version.words),
        "earlyAccessEndsAt": EARLY_ACCESS_ENDS if version.access == "early" else None,
        "stats": {"downloadCount": version.downloads, "thumbsUpCount": model.thumbs_up // len(model.versions)},
        "files": [_file(offer, origins) for offer in files],
        "downloadUrl": _download_url(files[0], origins),
    }


def _file(offer: Offer, origins: Origins) -> Json:
    body = made(offer)
    return {
        "id": offer.file.id,
        "name": offer.file.name,
        "type": "Model",
        "sizeKB": len(body.body) / 1024,
        "metadata": {"format": "SafeTensor", "size": offer.file.size, "fp": "fp16"},
        "pickleScanResult": "Success",
        "pickleScanMessage": "No Pickle imports",
        "virusScanResult": "Success",
        "virusScanMessage": None,
        "scannedAt": _time(offer.version.released),
        "hashes": dict(body.hashes),
        "downloadUrl": _download_url(offer, origins),
        "primary": offer.file.primary,
    }


def _download_url(offer: Offer, origins: Origins) -> str:
    """By version alone for the primary file, by what it is for the others, as Civitai writes it."""
    url = f"{origins.api}/api/download/models/{offer.version.id}"
    if offer.file.primary:
        return url
    return f"{url}?{urlencode({'type': 'Model', 'format': 'SafeTensor', 'size': offer.file.size, 'fp': 'fp16'})}"


def _pictures(version: Version, origins: Origins) -> list[Json]:
    return [
        {
            "id": id,
            "url": f"{origins.storage}/images/{id}.png",
            "nsfwLevel": 1,
            "width": WIDTH,
            "height": HEIGHT,
            "hash": None,
            "type": "image",
            "minor": False,
            "poi": False,
            "hasMeta": True,
            "hasPositivePrompt": True,
            "onSite": False,
            "remixOfId": None,
        }
        for id in version.pictures
    ]


def _meta(version: Version) -> Json:
    """What a picture's generator would have written into it."""
    name = version.files[0].name.removesuffix(".safetensors")
    return {
        "prompt": ", ".join([*version.words[:1], f"<lora:{name}:0.8>"]),
        "seed": 1000 + version.id,
        "steps": 28,
        "sampler": "DPM++ 2M",
        "cfgScale": 5,
    }


def _availability(version: Version) -> str:
    return "EarlyAccess" if version.access == "early" else "Public"


def _time(date: str) -> str:
    return f"{date}T12:00:00.000Z"
