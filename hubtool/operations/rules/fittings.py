"""Rules about what comes on top of a module's factors: cores, magnitudes, biases and blocks have to fit them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from hubtool.formats.safetensors import printable
from hubtool.naming.address import ModuleRef, Role
from hubtool.operations.rules.modules import ADDITIONS
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hubtool.adapters.layer import Layer

    Shape = tuple[int, ...]

#: core: (factor, axis) that its first axis meets, the same for its second.
_CORES: Mapping[Role, tuple[tuple[Role, int], tuple[Role, int]]] = {
    Role.MID: ((Role.UP, 1), (Role.DOWN, 0)),
    Role.HADA_T1: ((Role.HADA_W1_A, 0), (Role.HADA_W1_B, 0)),
    Role.HADA_T2: ((Role.HADA_W2_A, 0), (Role.HADA_W2_B, 0)),
    Role.LOKR_T2: ((Role.LOKR_W2_A, 0), (Role.LOKR_W2_B, 0)),
}
_PER_OUTPUT = (Role.UP_BIAS, Role.DIFF_BIAS, Role.RESCALE, Role.NORM_BIAS)
_MAY_BE_EMPTY = frozenset({Role.SPARSE_INDICES, Role.SPARSE_VALUES})
_WEIGHTS = frozenset({Role.DIFF, Role.SET_WEIGHT, Role.NORM_WEIGHT, Role.MAGNITUDE})
_SQUARES = (Role.OFT_BLOCKS, Role.OFT_DIAG, Role.BOFT_R)


def cores(subject: Subject) -> Iterator[Problem]:
    """Tucker cores: one side for each factor's rank."""
    for layer in subject.layers:
        for role, meets in _CORES.items():
            core = layer.shapes.get(role)
            if core is not None and not _fits(core, meets, layer.shapes):
                yield _misfit(layer, role, "does not fit the factors")


def _fits(core: Shape, meets: Iterable[tuple[Role, int]], shapes: Mapping[Role, Shape]) -> bool:
    sides = [shapes[role][axis] for role, axis in meets if role in shapes and len(shapes[role]) > axis]
    return len(core) > 2 and (len(sides) < 2 or list(core[:2]) == sides)


def substance(subject: Subject) -> Iterator[Problem]:
    """Factors have elements, and what replaces or shifts a whole weight is more than one number."""
    for layer in subject.layers:
        for role, shape in layer.shapes.items():
            if not prod(shape) and role not in _MAY_BE_EMPTY:
                yield _misfit(layer, role, "has no elements")
            elif not shape and role in _WEIGHTS:
                yield _misfit(layer, role, "is one number, where a whole weight is meant")


def squares(subject: Subject) -> Iterator[Problem]:
    """Blocks that turn, which are square."""
    for layer in subject.layers:
        for role in _SQUARES:
            shape = layer.shapes.get(role)
            if shape is not None and (len(shape) < 3 or shape[-1] != shape[-2]):
                yield _misfit(layer, role, "is no stack of square blocks")


def additions(subject: Subject) -> Iterator[Problem]:
    """Magnitudes and biases: one number for each output (magnitudes: or input) of the layer."""
    adapter = subject.adapter
    for module, layer in adapter.layers.items() if adapter else ():
        if layer.tensors.keys() <= ADDITIONS:  # a stray says too little of the model to be judged by it
            continue
        outputs, inputs = _sides(subject, module, layer)
        magnitude = layer.shapes.get(Role.MAGNITUDE)
        if magnitude is not None and outputs and prod(magnitude) not in outputs | inputs:
            yield _misfit(layer, Role.MAGNITUDE, "has neither the layer's outputs nor its inputs")
        for role in _PER_OUTPUT:
            shape = layer.shapes.get(role)
            if shape is not None and outputs and prod(shape) not in outputs:
                yield _misfit(layer, role, "has not as many numbers as the layer has outputs")


def _sides(subject: Subject, module: ModuleRef, layer: Layer) -> tuple[set[int], set[int]]:
    """Outputs and inputs that the layer has in some variant, or that its factors say."""
    adapter, extent = subject.adapter, layer.extent
    known = adapter.architecture.shapes(module) if adapter else ()
    outputs = {shape[0] for shape in known} | ({extent.rows} if extent.rows else set())
    return outputs, {shape[1] for shape in known if len(shape) > 1}


def _misfit(layer: Layer, role: Role, what: str) -> Problem:
    message = f"{printable(layer.base)}: {role.value} {list(layer.shapes[role])} {what}."
    return problem("E_FACTOR_SHAPE", message, layer.base)


RULES = (substance, cores, squares, additions)
