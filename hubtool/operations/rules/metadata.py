"""Rules about the header's metadata: it may lie, and the tensors win."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING

from hubtool.adapters.metadata import LONGEST_JSON, read_json
from hubtool.formats.hashing import EMPTY_SHA256
from hubtool.formats.safetensors import printable
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.modelspec import REQUIRED
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.adapters.adapter import Adapter

_MAX_BYTES = 16_000_000
_MAX_KEYS = 10_000
#: Bidirectional embeddings, overrides and isolates (Unicode 9.0 UAX 9).
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_NOTHING = {"", "None", "null"}
_JSON = {
    "lora_adapter_metadata", "ss_tag_frequency", "ss_datasets", "ss_dataset_dirs", "ss_bucket_info", "ss_network_args",
}  # fmt: skip
_NUMBERS = {
    "ss_network_alpha", "ss_learning_rate", "ss_unet_lr", "ss_text_encoder_lr", "ss_epoch", "ss_num_epochs", "ss_steps",
    "ss_max_train_steps", "ss_num_train_images", "ss_seed",
}  # fmt: skip


def size(subject: Subject) -> Iterator[Problem]:
    """An amount of metadata that slows every tool down."""
    metadata = subject.file.metadata
    total = sum(len(key) + len(text) for key, text in metadata.items() if key != "ss_tag_frequency")
    if total > _MAX_BYTES or len(metadata) > _MAX_KEYS:
        yield problem("W_METADATA_SIZE", f"The metadata has {len(metadata)} entries and {total / 1e6:.1f} MB of text.")


def base_model(subject: Subject) -> Iterator[Problem]:
    """A base model in the metadata that the keys contradict."""
    if subject.adapter is None:
        return
    for key in ("ss_base_model_version", "modelspec.architecture"):
        stated = subject.file.metadata.get(key, "")
        if contradicts(subject.adapter, stated):
            title = subject.adapter.architecture.title
            yield problem(
                "W_BASE_MISMATCH", f"The metadata says {key} {printable(stated, 60)}, the keys are {title}'s.", key
            )
            return


def contradicts(adapter: Adapter, stated: str) -> bool:
    """Whether a name of a base model means others than those that the adapter's keys fit."""
    own = {candidate.architecture for candidate in adapter.identification.candidates} or {adapter.architecture.id}
    if not stated or any(stated.lower().startswith(_hints(id)) for id in own):
        return False  # before all other architectures are read, which takes a while
    named = {id for id in architecture_ids() if stated.lower().startswith(_hints(id))}
    return bool(named) and not any(_related(a, b) for a in own for b in named)


def _hints(id: str) -> tuple[str, ...]:
    return tuple(hint.lower() for hint in architecture(id).hints)


def _related(one: str, other: str) -> bool:
    """Whether a value that names the one may well mean the other: "wan2.1" is also said of its image-to-video variant."""
    return one == other or any(a.startswith(b) or b.startswith(a) for a in _hints(one) for b in _hints(other))


def fields(subject: Subject) -> Iterator[Problem]:
    """Entries that programs read, and that do not hold what they should."""
    for key, text in subject.file.metadata.items():
        if key in _JSON and not _is_json(text):
            yield problem("W_METADATA_FIELD", f"{key} is not the JSON that it should be.", key)
        elif key in _NUMBERS and not _is_number(text):
            yield problem("W_METADATA_FIELD", f"{key} is {printable(text, 40)}, not a number.", key)
    stated = [key for key in subject.file.metadata if key.startswith("modelspec.")]
    lacking = [key for key in REQUIRED if key not in stated]
    if stated and lacking:
        yield problem("W_MODELSPEC", f"The modelspec block has no {', '.join(lacking)}.", stated[0])


def _is_json(text: str) -> bool:
    if text in _NOTHING or len(text) > LONGEST_JSON:
        return True  # nothing stated, or too much to look at
    return isinstance(read_json(text), (dict, list))


def _is_number(text: str) -> bool:
    if text in _NOTHING:
        return True
    try:
        return len(text) < 40 and math.isfinite(float(text))
    except ValueError:
        return False


def hashes(subject: Subject) -> Iterator[Problem]:
    """The hash of nothing, which a broken trainer wrote into every file."""
    for key in ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"):
        text = subject.file.metadata.get(key, "").lower().removeprefix("0x")
        if text and EMPTY_SHA256.startswith(text):
            yield problem("W_HASH_METADATA", f"{key} is the hash of nothing.", key)


def text(subject: Subject) -> Iterator[Problem]:
    """Characters that steer a terminal or turn text around."""
    for key, entry in subject.file.metadata.items():
        if key.isprintable() and entry.isprintable():
            continue
        if len(entry) < LONGEST_JSON and any(_steers(c) for c in set(key) | set(entry)):
            yield problem("W_METADATA_TEXT", f"{printable(key, 60)} holds control characters.", key[:200])
            return


def _steers(character: str) -> bool:
    return character in _TURNING or (unicodedata.category(character) == "Cc" and character not in "\n\r\t")


RULES = (size, fields, hashes, text, base_model)
