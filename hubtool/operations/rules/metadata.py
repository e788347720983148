"""Rules about the header's metadata: it may lie, and the tensors win."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.formats.safetensors import printable
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_BYTES = 16_000_000
_MAX_KEYS = 10_000


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
    own = {candidate.architecture for candidate in subject.adapter.identification.candidates}
    for key in ("ss_base_model_version", "modelspec.architecture"):
        stated = subject.file.metadata.get(key, "").lower()
        named = [id for id in architecture_ids() if stated.startswith(tuple(h.lower() for h in architecture(id).hints))]
        if stated and named and own.isdisjoint(named):
            message = (
                f"The metadata says {key} {printable(stated, 60)}, the keys are {subject.adapter.architecture.title}'s."
            )
            yield problem("W_BASE_MISMATCH", message, key)
            return


RULES = (size, base_model)
