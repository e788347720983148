"""Conditions that rows of a loader's table can name: what a module's tensors say, without reading more than scalars."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Component, ModuleRef, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.adapters.layer import Layer
    from hubtool.naming.architecture import Architecture

_INTEGERS = frozenset({"I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})


class Case(NamedTuple):
    """A module of a file, as a loader meets it."""

    architecture: Architecture
    module: ModuleRef
    layer: Layer
    key: str  # what stands before the suffix in the file
    suffixes: frozenset[str]  # as written
    foreign: bool  # the file holds tensors that are no adapter's


def has_recorded_scale(case: Case) -> bool:
    """The header's metadata states a scale that no tensor states."""
    return Role.ALPHA not in case.layer.tensors and case.layer.recorded_scale not in {None, 1.0}


def is_scaled(case: Case) -> bool:
    """Alpha divided by rank is not 1."""
    rank, alpha = case.layer.rank, _alpha(case.layer)
    return bool(rank) and alpha is not None and alpha != rank


def has_integer_alpha(case: Case) -> bool:
    """Alpha is stored as an integer."""
    tensor = case.layer.tensors.get(Role.ALPHA)
    return tensor is not None and tensor.dtype in _INTEGERS


def has_constraint(case: Case) -> bool:
    """An orthogonal family's alpha, its constraint, is not 0."""
    return bool(_alpha(case.layer))


def is_decomposed_per_output(case: Case) -> bool:
    """DoRA with one magnitude per output row; a square layer's shape decides by its axis."""
    tensor = case.layer.tensors.get(Role.MAGNITUDE)
    return tensor is not None and (len(tensor.shape) == 1 or tensor.shape[0] > 1)


def is_decomposed_per_input(case: Case) -> bool:
    """DoRA with one magnitude per input column."""
    return Role.MAGNITUDE in case.layer.tensors and not is_decomposed_per_output(case)


def is_convolution(case: Case) -> bool:
    """The layer's kernel is larger than 1×1."""
    shape = case.architecture.shape(case.module)
    return shape is not None and prod(shape[2:]) > 1


def is_fused(case: Case) -> bool:
    """The module stacks several of diffusers' modules."""
    fused = case.architecture.fused.get(case.module.path) if case.module.component is Component.DENOISER else None
    return fused is not None and not fused.swapped


def is_swapped(case: Case) -> bool:
    """The authors' name of a layer whose output halves are the other way round in diffusers."""
    fused = case.architecture.fused.get(case.module.path) if case.module.component is Component.DENOISER else None
    return fused is not None and fused.swapped


def is_late_glora(case: Case) -> bool:
    """GLoRA as LyCORIS 2 and later writes it: `a1` is (inputs, rank)."""
    one, two = case.layer.tensors.get(Role.GLORA_A1), case.layer.tensors.get(Role.GLORA_A2)
    return one is not None and two is not None and one.shape[0] > one.shape[1] and two.shape[0] == one.shape[1]


def has_foreign_keys(case: Case) -> bool:
    """The file holds tensors that are no adapter's, such as a bundled embedding."""
    return case.foreign


CONDITIONS: Mapping[str, Callable[[Case], bool]] = {
    "recorded-scale": has_recorded_scale,
    "scaled": is_scaled,
    "integer-alpha": has_integer_alpha,
    "constraint": has_constraint,
    "dora-per-output": is_decomposed_per_output,
    "dora-per-input": is_decomposed_per_input,
    "convolution": is_convolution,
    "fused": is_fused,
    "swapped": is_swapped,
    "late-glora": is_late_glora,
    "foreign-keys": has_foreign_keys,
}


def _alpha(layer: Layer) -> float | None:
    tensor = layer.tensors.get(Role.ALPHA)
    if tensor is None or prod(tensor.shape) != 1:
        return None
    return tensor.scalar()
