"""The header's metadata of an extracted LoRA: what trainers and UIs look for, and what it was made from.

`ss_*` are the keys that kohya's trainer keeps even with `--no_metadata` (sd-scripts SS_METADATA_MINIMUM_KEYS); `modelspec.*`
follows sd-scripts sai_model_spec.py. Nothing here depends on the time or the place, so that equal inputs give equal files.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

from hubtool import __version__
from hubtool.naming.modelspec import VERSION, architecture_value, implementation_value
from hubtool.operations.as_lokr import FACTOR
from hubtool.operations.extract_pairs import prediction_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.adapters.checkpoint import Checkpoint
    from hubtool.formats.safetensors import SafetensorsFile
    from hubtool.operations.extract_layers import Extracted
    from hubtool.operations.extract_options import ExtractOptions
    from hubtool.operations.extract_pairs import Comparison

_BLOCK = 1 << 24


#: `ss_network_args` of LyCORIS; a plain LoRA is none of its kinds.
_ALGORITHMS: Mapping[str, dict[str, str]] = {
    "lora": {},
    "lokr": {"algo": "lokr", "factor": str(FACTOR)},
    "full": {"algo": "full"},
}
_TUCKER = {"algo": "locon", "use_tucker": "True"}

#: `ss_base_model_version` of kohya's trainer.
_VERSIONS: Mapping[str, str] = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0", "flux1": "flux1"}


def describe(comparison: Comparison, layers: Sequence[Extracted], options: ExtractOptions, name: str) -> dict[str, str]:
    """The metadata of the file called `name`."""
    inputs = {
        "base": _origin(comparison.base, hashed=options.hash_inputs),
        "tuned": _origin(comparison.tuned, hashed=options.hash_inputs),
    }
    found = {**_trainer_keys(comparison, layers, options), "ss_output_name": name}
    found |= _model_spec(comparison, options.dialect, name)
    digest = inputs["base"].get("sha256")
    if isinstance(digest, str):
        found["ss_new_sd_model_hash"] = digest
    found["hubtool.extract"] = json.dumps(
        {"version": __version__, "method": options.method, "seed": options.seed, **inputs}
    )
    return found


def _trainer_keys(comparison: Comparison, layers: Sequence[Extracted], options: ExtractOptions) -> dict[str, str]:
    kernels = {pair.module for pair in comparison.targets if pair.is_kernel}
    ranked = [layer for layer in layers if layer.rank and options.parametrization == "lora"]
    linear = _common_rank([layer.rank for layer in ranked if layer.module not in kernels])
    convolutions = _common_rank([layer.rank for layer in ranked if layer.module in kernels])
    algorithm = _ALGORITHMS[options.parametrization] | (_TUCKER if options.conv == "tucker" else {})
    found = {
        "ss_network_module": "lycoris.kohya" if algorithm else "networks.lora",
        "ss_network_dim": linear or convolutions or "1",
        "ss_network_alpha": linear or convolutions or "1",
        "ss_sd_model_name": comparison.base.path.name,
        "ss_v2": str(comparison.architecture.id == "sd2"),
    }
    if convolutions:
        algorithm = {"conv_dim": convolutions, "conv_alpha": convolutions} | algorithm
    if algorithm:
        found["ss_network_args"] = json.dumps(algorithm)
    return found | _base_version(comparison)


def _base_version(comparison: Comparison) -> dict[str, str]:
    """`ss_base_model_version`, of which Stable Diffusion 2 has two; nothing where kohya's trainer has no name."""
    version = _VERSIONS.get(comparison.architecture.id)
    if version == "sd_v2" and prediction_of(comparison.tuned).startswith("v"):
        version = "sd_v2_v"
    return {"ss_base_model_version": version} if version else {}


def _common_rank(ranks: Sequence[int]) -> str:
    """The largest rank (clamped ones are smaller), `Dynamic` where they vary freely, empty without any."""
    if not ranks:
        return ""
    return str(max(ranks)) if len(set(ranks)) <= 2 else "Dynamic"


def _model_spec(comparison: Comparison, dialect_id: str, name: str) -> dict[str, str]:
    base = next((file.metadata for file in comparison.base.files if file.metadata), {})
    stated, prediction = base.get("modelspec.architecture", ""), prediction_of(comparison.tuned)
    found = {
        "modelspec.sai_model_spec": VERSION,
        "modelspec.title": name,
        "modelspec.architecture": f"{stated}/lora"
        if stated and "/" not in stated
        else architecture_value(comparison.architecture, _base_version(comparison)),
        "modelspec.implementation": implementation_value(comparison.architecture, dialect_id),
    }
    return found | {"modelspec.prediction_type": prediction} if prediction else found


def _origin(checkpoint: Checkpoint, *, hashed: bool) -> dict[str, object]:
    """Which checkpoint it was: name, size and digest of the headers, which cost nothing; the whole digest on request."""
    found: dict[str, object] = {
        "name": checkpoint.path.name,
        "size_bytes": checkpoint.size_bytes,
        "header_sha256": checkpoint.header_sha256,
    }
    if hashed and len(checkpoint.files) == 1:
        found["sha256"] = _sha256(checkpoint.files[0])
    elif hashed:
        found["files"] = {file.path.name: _sha256(file) for file in checkpoint.files}
    return found


def _sha256(file: SafetensorsFile) -> str:
    digest = sha256()
    for start in range(0, file.size_bytes, _BLOCK):
        stop = min(start + _BLOCK, file.size_bytes)
        digest.update(file.file.view(start, stop))
        file.file.forget(start, stop)
    return digest.hexdigest()
