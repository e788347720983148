"""GET /models: filters, orders and cursors, with Civitai's own quirks (civitai src/pages/api/v1/models/index.ts).

An unknown tag filters nothing, an unknown user is a 404; lists are repeated parameters and a comma is part of the value;
`query` searches keep their own order and count their cursor from the start; too many pages are a 429 for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from hubtool.hubs.sample.catalogue import MODELS, NEWEST, Model, Version
from hubtool.hubs.sample.exchange import Refused, invalid, number
from hubtool.hubs.sample.records import listed_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.hubs.sample.exchange import Json, Parameters
    from hubtool.hubs.sample.records import Origins

MAX_LIMIT = 100
MAX_PAGED = 1000  # page × limit
MODEL_TYPES = (
    "Checkpoint", "TextualInversion", "Hypernetwork", "AestheticGradient", "LORA", "LoCon", "DoRA", "Controlnet",
    "Upscaler", "MotionModule", "VAE", "TextEncoder", "UNet", "CLIPVision", "Poses", "Wildcards", "Workflows",
    "ComfyWorkflows", "Detection", "VisionLanguage", "CLIP", "LLM", "Other",
)  # fmt: skip
_PERIODS: Mapping[str, int | None] = {"AllTime": None, "Year": 365, "Month": 30, "Week": 7, "Day": 1}  # days
_BOOLEANS = {"true", "false", "1", "0", "yes", "no", "on", "off", "y", "n", "enabled", "disabled"}


def _newest(model: Model) -> int:
    return date.fromisoformat(model.versions[0].released).toordinal()


#: Sort → what is largest first.
_ORDERS: Mapping[str, Callable[[Model], int]] = {
    "Highest Rated": lambda model: model.thumbs_up,
    "Most Downloaded": lambda model: model.downloads,
    "Most Liked": lambda model: model.thumbs_up,
    "Most Discussed": lambda _: 0,
    "Most Collected": lambda model: model.thumbs_up,
    "Most Images": lambda model: sum(len(version.pictures) for version in model.versions),
    "Newest": _newest,
    "Oldest": lambda model: -_newest(model),
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A model and those of its versions that the filters leave."""

    model: Model
    versions: Sequence[Version]


def search_models(parameters: Parameters, origins: Origins) -> Json:
    """The page that the parameters ask for.

    Raises:
        Refused: a parameter is none of Civitai's values.
    """
    limit = number(parameters, "limit", 100, range(MAX_LIMIT + 1))
    text = _one(parameters, "query")
    _check_choices(parameters)
    found = _filtered(parameters)
    if text:
        found = _relevant(found, text)
    else:
        found.sort(key=lambda one: (-_order(parameters)(one.model), one.model.id))
    start, paging = _start(parameters, found, limit)
    items = [listed_model(one.model, one.versions, origins) for one in found[start : start + limit]]
    rest = found[start + limit :] if limit else []
    return {"items": items, "metadata": paging | _onward(parameters, rest, start + limit, origins)}


def _one(parameters: Parameters, *names: str) -> str:
    return next((parameters[name][0] for name in names if parameters.get(name)), "")


def _check_choices(parameters: Parameters) -> None:
    tables = {"types": MODEL_TYPES, "sort": tuple(_ORDERS), "period": tuple(_PERIODS)}
    for field, allowed in tables.items():
        for value in parameters.get(field, []):
            if value not in allowed:
                raise invalid(field, f"Invalid option: expected one of {'|'.join(allowed)}")
    for field in ("nsfw", "primaryFileOnly"):
        if any(value.lower() not in _BOOLEANS for value in parameters.get(field, [])):
            raise invalid(field, "Invalid option: expected a boolean")


# ---------------------------------------------------------------- filters


def _filtered(parameters: Parameters) -> list[_Found]:
    tag, user = _one(parameters, "tag", "tagname"), _one(parameters, "username", "user").lower()
    if user and user not in {model.creator for model in MODELS}:
        raise Refused(404, {"message": "User not found"})
    known_tag = tag if any(tag in model.tags for model in MODELS) else ""
    types, ids = parameters.get("types", []), set(",".join(parameters.get("ids", [])).split(","))
    found = []
    for model in MODELS:
        versions = _versions(model, parameters)
        wanted = (
            versions
            and (not types or model.type in types)
            and (not known_tag or known_tag in model.tags)
            and (not user or model.creator == user)
            and (ids == {""} or "query" in parameters or str(model.id) in ids)
        )
        if wanted:
            found.append(_Found(model, versions))
    return found


def _versions(model: Model, parameters: Parameters) -> list[Version]:
    """The versions that are of a wanted base model; none if the model has had no release in the period."""
    days = _PERIODS[_one(parameters, "period") or "AllTime"]
    since = "" if days is None else (date.fromisoformat(NEWEST) - timedelta(days)).isoformat()
    if model.versions[0].released < since:
        return []
    bases = parameters.get("baseModels", [])
    return [version for version in model.versions if not bases or version.base_model in bases]


def _relevant(found: list[_Found], text: str) -> list[_Found]:
    """Those that hold every word, the ones with it in their names first."""
    words = text.lower().split()

    def name(one: _Found) -> str:
        return one.model.name.lower()

    def everything(one: _Found) -> str:
        said = [one.model.name, one.model.creator, *one.model.tags, *(w for v in one.model.versions for w in v.words)]
        return " ".join(said).lower()

    matching = [one for one in found if all(word in everything(one) for word in words)]
    return sorted(matching, key=lambda one: -sum(word in name(one) for word in words))


# ---------------------------------------------------------------- paging


def _order(parameters: Parameters) -> Callable[[Model], int]:
    return _ORDERS[_one(parameters, "sort") or "Highest Rated"]


def _start(parameters: Parameters, found: Sequence[_Found], limit: int) -> tuple[int, Json]:
    """Where the page begins, and what is said about it."""
    cursor = _one(parameters, "cursor")
    if "page" in parameters and not cursor:
        page = number(parameters, "page", 1, range(1, 1 << 31))
        if "query" in parameters:
            message = "Cannot use page param with query search. Use cursor-based pagination."
            raise Refused(400, {"error": message})
        if page * limit > MAX_PAGED:
            raise Refused(429, {"error": "You've requested too many pages, please use cursors instead"})
        return (page - 1) * limit, {"currentPage": page, "pageSize": limit}
    if not cursor:
        return 0, {}
    if "query" in parameters:
        return number(parameters, "cursor", 0, range(1 << 31)), {}
    parts = cursor.split("|")
    if len(parts) != 2 or not all(part.lstrip("-").isdigit() for part in parts):
        message = f"Invalid cursor: expected 2 value(s) for this sort, received {len(parts)}"
        raise Refused(400, {"error": message})
    places = (place for place, one in enumerate(found) if str(one.model.id) == parts[1])
    return next(places, len(found)), {}


def _onward(parameters: Parameters, rest: Sequence[_Found], offset: int, origins: Origins) -> Json:
    """The cursor of the next page and its address; nothing at the end."""
    if not rest:
        return {}
    first = rest[0].model
    cursor = str(offset) if "query" in parameters else f"{_order(parameters)(first)}|{first.id}"
    again = {**{key: values for key, values in parameters.items() if key != "token"}, "cursor": [cursor]}
    return {"nextCursor": cursor, "nextPage": f"{origins.api}/api/v1/models?{urlencode(again, doseq=True)}"}
