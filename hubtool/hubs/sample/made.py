"""The files themselves: a recipe's tensors behind the header that a trainer would have written, and their hashes.

sd-scripts writes `ss_*` (train_network.py) and `modelspec.*` (sai_model_spec.py) as text; diffusers writes `format` only.
`sshs_*` are computed over the file as it is with its `ss_*` entries alone (train_util.py, precalculate_safetensors_hashes).
"""

from __future__ import annotations

import json
import tempfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from blake3 import blake3

from hubtool.formats.safetensors import write_safetensors
from hubtool.hubs.sample.recipe import tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.formats.tensor import LazyTensor
    from hubtool.hubs.sample.catalogue import Offer

_AUTOV1_START, _AUTOV1_STOP = 0x100000, 0x110000  # train_util.py, addnet_hash_legacy


@dataclass(frozen=True, slots=True)
class _Base:
    """How trainers name a base model."""

    version: str  # ss_base_model_version
    checkpoint: str  # ss_sd_model_name
    spec: str  # modelspec.architecture
    implementation: str
    resolution: int  # pixels


_STABILITY = "https://github.com/Stability-AI/generative-models"
_BASES: Mapping[str, _Base] = {
    "sd1": _Base("sd_v1", "v1-5-pruned-emaonly.safetensors", "stable-diffusion-v1/lora", _STABILITY, 512),
    "sdxl": _Base("sdxl_base_v1-0", "sd_xl_base_1.0.safetensors", "stable-diffusion-xl-v1-base/lora", _STABILITY, 1024),
    "flux1": _Base(
        "flux1",
        "flux1-dev.safetensors",
        "flux-1-dev/lora",
        "https://github.com/black-forest-labs/flux",
        1024,
    ),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A finished file."""

    body: bytes
    hashes: Mapping[str, str]  # Civitai's names of the kinds → upper-case hex


@lru_cache(maxsize=64)
def made(offer: Offer) -> Made:
    """The file of an offer, the same on every machine; made once a process."""
    tensors = tensors_of(offer.file.recipe, offer.file.name)
    body = _packed(tensors, _header(offer, tensors))
    return Made(body, _hashes(body))


def _packed(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]) -> bytes:
    with tempfile.TemporaryFile() as out:  # the writer wants a file that the system knows
        write_safetensors(out, tensors, metadata)
        out.seek(0)
        return out.read()


# ---------------------------------------------------------------- hashes


def _hashes(body: bytes) -> Mapping[str, str]:
    """Every kind that Civitai publishes; AutoV1 only of files that are long enough to have one."""
    found = {
        "AutoV2": sha256(body).hexdigest()[:10],
        "SHA256": sha256(body).hexdigest(),
        "CRC32": f"{zlib.crc32(body):08x}",
        "BLAKE3": blake3(body).hexdigest(),
        "AutoV3": _body_hash(body)[:12],
    }
    if len(body) > _AUTOV1_START:
        found["AutoV1"] = _legacy_hash(body)
    return {kind: digits.upper() for kind, digits in found.items()}


def _body_hash(file: bytes) -> str:
    """SHA-256 of everything after the header."""
    return sha256(memoryview(file)[8 + int.from_bytes(file[:8], "little") :]).hexdigest()


def _legacy_hash(file: bytes) -> str:
    return sha256(file[_AUTOV1_START:_AUTOV1_STOP]).hexdigest()[:8]


# ---------------------------------------------------------------- header


def _header(offer: Offer, tensors: Mapping[str, LazyTensor]) -> dict[str, str]:
    if offer.file.recipe.dialect == "diffusers":
        return {"format": "pt"}
    training = _training(offer)
    bare = _packed(tensors, training)
    hashes = {"sshs_model_hash": _body_hash(bare), "sshs_legacy_hash": _legacy_hash(bare)}
    return training | hashes | _model_spec(offer, hashes["sshs_model_hash"])


def _training(offer: Offer) -> dict[str, str]:
    """What sd-scripts notes about a training."""
    recipe, version = offer.file.recipe, offer.version
    base = _BASES[recipe.architecture]
    folder = f"10_{version.words[0].replace(',', '')}"
    counts = dict.fromkeys(version.words, 24) | dict.fromkeys(offer.model.tags, 12) | {"no humans": 9}
    algorithm = {"algo": "locon", "dora_wd": "True"} if recipe.dora else {"algo": "locon", "conv_dim": str(recipe.rank)}
    is_lycoris = offer.model.type != "LORA"
    return {
        "ss_base_model_version": base.version,
        "ss_clip_skip": "None",
        "ss_dataset_dirs": json.dumps({folder: {"n_repeats": 10, "img_count": 24}}),
        "ss_epoch": "8",
        "ss_learning_rate": "0.0001",
        "ss_network_alpha": f"{recipe.alpha:g}",
        "ss_network_args": json.dumps(algorithm if is_lycoris else {}),
        "ss_network_dim": str(recipe.rank),
        "ss_network_module": "lycoris.kohya" if is_lycoris else _NETWORKS.get(recipe.architecture, "networks.lora"),
        "ss_num_train_images": "240",
        "ss_output_name": offer.file.name.removesuffix(".safetensors"),
        "ss_resolution": f"({base.resolution}, {base.resolution})",
        "ss_sd_model_name": base.checkpoint,
        "ss_steps": "1920",
        "ss_tag_frequency": json.dumps({folder: counts}),
        "ss_training_comment": "made by code for the sample hub; the weights are noise",
        "ss_v2": "False",
    }


_NETWORKS: Mapping[str, str] = {"flux1": "networks.lora_flux"}


def _model_spec(offer: Offer, body_hash: str) -> dict[str, str]:
    base = _BASES[offer.file.recipe.architecture]
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": base.spec,
        "modelspec.implementation": base.implementation,
        "modelspec.title": f"{offer.model.name} {offer.version.name}",
        "modelspec.author": offer.model.creator,
        "modelspec.date": f"{offer.version.released}T12:00:00",
        "modelspec.hash_sha256": f"0x{body_hash}",
        "modelspec.resolution": f"{base.resolution}x{base.resolution}",
        "modelspec.tags": ", ".join(offer.model.tags),
        "modelspec.trigger_phrase": ", ".join(offer.version.words),
    }
