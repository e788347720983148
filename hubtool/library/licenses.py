"""What a creator allows, in one line: the name of a licence, or Civitai's four answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubtool.hubs.hub import License

#: Field of `License` → Civitai's key for it.
_KEYS = {
    "allow_no_credit": "allowNoCredit",
    "allow_commercial_use": "allowCommercialUse",
    "allow_derivatives": "allowDerivatives",
    "allow_different_license": "allowDifferentLicense",
}


def terms(license: License) -> dict[str, object]:
    """Civitai's keys, as it answers them for a model (its answer for a version leaves them out)."""
    said = {key: getattr(license, name) for name, key in _KEYS.items()}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in said.items()
        if value not in (None, ())
    }


def license_in(snapshot: Mapping[str, object]) -> str:
    """The licence that a record of a version holds; empty if it says nothing.

    >>> license_in({"model": {"allowNoCredit": False, "allowCommercialUse": ["Image"], "allowDerivatives": True}})
    'credit required; commercial use: Image; derivatives allowed'
    """
    name, model = snapshot.get("license"), snapshot.get("model")
    if isinstance(name, str) and name:
        return name
    return "; ".join(_words(model)) if isinstance(model, Mapping) else ""


def _words(model: Mapping[str, object]) -> list[str]:
    uses, found = model.get("allowCommercialUse"), []
    if isinstance(model.get("allowNoCredit"), bool):
        found.append("no credit required" if model["allowNoCredit"] else "credit required")
    if isinstance(uses, list):
        found.append(f"commercial use: {', '.join(map(str, uses)) or 'none'}")
    if isinstance(model.get("allowDerivatives"), bool):
        found.append("derivatives allowed" if model["allowDerivatives"] else "no derivatives")
    if model.get("allowDifferentLicense") is False:
        found.append("under the same licence")
    return found
