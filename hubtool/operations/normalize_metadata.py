"""Metadata made regular: what contradicts the tensors, ModelSpec's fields, and hashes of what will be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.grouping import group_tensors
from hubtool.adapters.irregular import is_ambiguous
from hubtool.adapters.recorded import PEFT_KEY
from hubtool.formats.hashing import body_hashes
from hubtool.formats.safetensors import header_bytes, printable
from hubtool.naming.identify import ARCHITECTURE_KEY, metadata_hint
from hubtool.naming.modelspec import VERSION, architecture_value, implementation_value
from hubtool.operations.fix import Fix
from hubtool.operations.rules.alphas import against_metadata
from hubtool.operations.rules.metadata import contradicts
from hubtool.operations.rules.problem import Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.adapter import Adapter
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.operations.normalize_modules import RegularModules

_MODEL_HASH, _LEGACY_HASH, _SPEC_HASH = "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"
_ARCHITECTURE = "modelspec.architecture"
_TITLES = ("ss_output_name", "ssmd_display_name", "title", "name")
_NOTHING = {"", "None"}
_VARYING = "Dynamic"  # what sd-scripts' resize writes where modules differ
_CODES = {
    "ss_network_dim": "W_DIM_METADATA",
    "ss_network_alpha": "W_ALPHA_METADATA",
    PEFT_KEY: "W_NO_CONFIG",
    _MODEL_HASH: "W_HASH_METADATA",
    _LEGACY_HASH: "W_HASH_METADATA",
    _SPEC_HASH: "W_HASH_METADATA",
}


class RegularMetadata(NamedTuple):
    """What to write, and what was mended."""

    metadata: Mapping[str, str]
    fixes: tuple[Fix, ...]


def regular_metadata(file: SafetensorsFile, modules: RegularModules, *, certain: bool) -> RegularMetadata:
    """The metadata of a file that holds these modules; `certain`: the user named the architecture."""
    adapter, metadata = modules.adapter, dict(modules.metadata)
    metadata |= _from_tensors(file, modules)
    if certain or not is_ambiguous(adapter):
        metadata |= _modelspec(file, adapter, metadata)
        if not metadata_hint(adapter.architecture, metadata):
            metadata[ARCHITECTURE_KEY] = adapter.architecture.id
    metadata = _with_hashes(modules, metadata)
    changed = {
        key: metadata.get(key) for key in {**file.metadata, **metadata} if file.metadata.get(key) != metadata.get(key)
    }
    return RegularMetadata(metadata, tuple(_fix(key, text) for key, text in changed.items()))


def _fix(key: str, text: str | None) -> Fix:
    code = _CODES.get(key, "W_MODELSPEC" if key.startswith("modelspec.") else "W_BASE_MISMATCH")
    said = "was removed" if text is None else f"is {printable(text, 80)}"
    return Fix(code, key, f"{key} {said}.")


def _from_tensors(file: SafetensorsFile, modules: RegularModules) -> dict[str, str]:
    """Rank and alpha as the tensors have them, where the metadata state others."""
    layers = tuple(modules.adapter.layers.values())
    ranks = {layer.rank for layer in layers if layer.rank}
    alphas = {alpha for layer in layers if layer.rank and (alpha := layer.alpha) is not None}
    stored: dict[str, set[float]] = {"ss_network_dim": {*ranks}, "ss_network_alpha": {*alphas}}
    subject = Subject(file, group_tensors(modules.tensors), modules.adapter, layers, values_too=False)
    wrong = [found.key for found in against_metadata(subject)]
    return {key: f"{min(stored[key]):g}" if len(stored[key]) == 1 else _VARYING for key in wrong}


def _modelspec(file: SafetensorsFile, adapter: Adapter, metadata: Mapping[str, str]) -> dict[str, str]:
    """The fields that ModelSpec demands, where they are absent or contradict the keys."""
    target = adapter.architecture
    title = next((metadata[key] for key in _TITLES if metadata.get(key, "None") not in _NOTHING), file.path.stem)
    wanted = {
        "modelspec.sai_model_spec": VERSION,
        _ARCHITECTURE: architecture_value(target, metadata),
        "modelspec.implementation": implementation_value(target, adapter.dialect),
        "modelspec.title": title,
    }
    if contradicts(adapter, metadata.get(_ARCHITECTURE, "")):
        return {_ARCHITECTURE: wanted[_ARCHITECTURE]} | _absent(wanted, metadata)
    return _absent(wanted, metadata)


def _absent(wanted: Mapping[str, str], metadata: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in wanted.items() if metadata.get(key, "None") in _NOTHING}


def _with_hashes(modules: RegularModules, metadata: Mapping[str, str]) -> dict[str, str]:
    """The hashes of the tensors' bytes. kohya's older one is of a window of the whole file, where it lies behind the header."""
    nothing = "0" * 64  # as long as the hash that will stand there: the header's length decides about the window
    kept = {**metadata, _MODEL_HASH: nothing, _LEGACY_HASH: nothing[:8]}
    if any(key.startswith("modelspec.") for key in kept):
        kept[_SPEC_HASH] = "0x" + nothing
    found = body_hashes(modules.tensors, len(header_bytes(modules.tensors, kept)))
    kept |= {key: kept[key].replace(nothing, found.tensors_sha256) for key in (_MODEL_HASH, _SPEC_HASH) if key in kept}
    if found.autov1 is None:
        del kept[_LEGACY_HASH]
    else:
        kept[_LEGACY_HASH] = found.autov1
    return kept
