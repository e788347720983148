"""Adapters of base models that hubtool does not know, as `convert` meets them: suffixes are rewritten, names stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.codec import decode
from hubtool.adapters.unknown import decode_unknown, is_unknown
from hubtool.errors import NotAnAdapter, NotRepresentable, UnknownArchitecture
from hubtool.operations.kinds import kind_of, refusal

if TYPE_CHECKING:
    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.scaling import AlphaMode
    from hubtool.formats.safetensors import SafetensorsFile

NOTE = (
    "The base model is unknown: suffixes and alphas are now the {to} dialect's, prefixes and module names are as they were, "
    "and nothing was split or joined."
)


def read_known_or_not(file: SafetensorsFile, architecture_id: str | None = None) -> Adapter:
    """The adapter in a file; by the file's own names where no architecture explains them and none was asked for.

    Raises:
        NotAnAdapter: the file is something else, which the message names.
        UnknownArchitecture: its keys do not fit the architecture asked for.
        NotRepresentable: its modules have no names at all.
    """
    try:
        return decode(file, architecture_id=architecture_id)
    except NotAnAdapter:
        raise _is_something_else(file) from None
    except UnknownArchitecture:
        if kind_of(file, None).kind != "adapter":
            raise _is_something_else(file) from None
        if architecture_id:
            raise
    adapter = decode_unknown(file)
    if adapter.dialect == "cloneofsimo":
        message = f"The modules of {file.path.name} are numbers, which mean nothing without the model."
        raise NotRepresentable("", message)
    return adapter


def alpha_mode(adapter: Adapter, wanted: AlphaMode) -> AlphaMode:
    """Folding instead of `auto` where no program would look for recorded scales: names without a diffusers prefix."""
    if wanted != "auto" or not is_unknown(adapter):
        return wanted
    prefix = f"{adapter.architecture.denoiser}."
    return "auto" if all(layer.base.startswith(prefix) for layer in adapter.layers.values()) else "fold"


def _is_something_else(file: SafetensorsFile) -> NotAnAdapter:
    return NotAnAdapter("", refusal(file.path.name, kind_of(file, None)))
