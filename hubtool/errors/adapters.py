"""Adapters and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.errors.base import HubtoolError

if TYPE_CHECKING:
    from pathlib import Path


class AdapterProblem(HubtoolError):
    """An adapter's tensors do not make sense; `module` says where."""

    code = "adapter"

    def __init__(self, module: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.module = module


class BrokenAdapter(AdapterProblem):
    """Tensors of a module are missing, or do not go together."""

    code = "broken_adapter"
    hint = "Run `hubtool validate` on the file for every problem at once."


class NotRepresentable(AdapterProblem):
    """The target dialect has no spelling for this."""

    code = "not_convertible"


class NotAnAdapter(AdapterProblem):
    """The file is no LoRA-family file."""

    code = "not_an_adapter"


class NonFinite(AdapterProblem):
    """NaN or infinity among the values."""

    code = "non_finite"
    hint = "The file was saved from a training or merge that diverged; use an earlier epoch or another file."


class IncompatibleAdapters(AdapterProblem):
    """Adapters that do not belong to one architecture, or not to the checkpoint's."""

    code = "incompatible_adapters"
    hint = "`hubtool inspect` says what each is for; `--architecture` overrides it."


class CheckpointProblem(HubtoolError):
    """A checkpoint cannot be used; `path` says which."""

    code = "checkpoint"

    def __init__(self, path: Path | str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class IncompatibleCheckpoints(CheckpointProblem):
    """The two checkpoints are not of the same architecture, or share no changed module."""

    code = "incompatible_checkpoints"
    hint = "Give the base model that the tuned one was trained from."
