"""What a header says in words: the base model, a title, trigger words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.metadata import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_WORDS = 20_000  # characters of trigger words
_TRIGGER_KEYS = ("modelspec.trigger_phrase", "ss_trigger_words", "trigger_words", "instance_prompt")


def trained_base(metadata: Mapping[str, str]) -> str | None:
    """The base model that the header names."""
    return _first(metadata, "ss_base_model_version", "modelspec.architecture")


def title_of(metadata: Mapping[str, str]) -> str | None:
    """What the file calls itself."""
    return _first(metadata, "modelspec.title", "ss_output_name", "ssmd_display_name")


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Trigger words that the header states outright, or the class tokens it was trained with; never frequent tags.

    `ss_datasets` is JSON of a trainer.
    """
    for key in _TRIGGER_KEYS:
        words = metadata.get(key, "")[:_LONGEST_WORDS].split(",")
        if found := tuple(dict.fromkeys(word.strip() for word in words if word.strip())):
            return found
    return tuple(dict.fromkeys(_class_tokens(metadata.get("ss_datasets", ""))))


def _class_tokens(text: str) -> list[str]:
    datasets = read_json(text)
    rows = [row for row in datasets if isinstance(row, dict)] if isinstance(datasets, list) else []
    subsets = [subset for row in rows if isinstance(row.get("subsets"), list) for subset in row["subsets"]]
    tokens = [subset.get("class_tokens") for subset in subsets if isinstance(subset, dict)]
    return [token for token in tokens if isinstance(token, str) and token]


def _first(metadata: Mapping[str, str], *keys: str) -> str | None:
    """The first entry that says something; trainers write "None" for nothing."""
    return next((metadata[key] for key in keys if metadata.get(key, "None") not in {"", "None"}), None)
