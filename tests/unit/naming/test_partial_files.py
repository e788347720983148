"""Every architecture in every dialect is found again from all of a file, or from what trainers leave of it."""

import re
from collections.abc import Mapping
from functools import cache
from math import prod

import pytest

from hubtool.adapters.grouping import group_tensors
from hubtool.formats.tensor import LazyTensor
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import Architecture, Shape, architecture, architecture_ids
from hubtool.naming.dialect import Dialect, dialect, dialects
from hubtool.naming.identify import Identification, identify

#: The dialects that have names for every architecture; the others are for one or two.
GENERAL = [id for id in dialects() if id not in {"animatediff", "bfl", "cloneofsimo", "xlabs"}]
PARTS = ["a third", "attention of a third", "one module", "text encoders"]
#: Another architecture's modules and sizes exactly: only metadata tell.
TWINS = {"cosmos-predict2-2b": "anima"}


def low_rank(weight: Shape) -> dict[Role, Shape]:
    """The tensors of a LoRA at rank 4."""
    ones = (1,) * len(weight[2:])
    return {Role.DOWN: (4, *weight[1:]), Role.UP: (weight[0], 4, *ones), Role.ALPHA: ()}


def hadamard(weight: Shape) -> dict[Role, Shape]:
    """The tensors of a LoHa at rank 4."""
    up, down = (weight[0], 4), (4, prod(weight[1:]))
    return {Role.HADA_W1_A: up, Role.HADA_W1_B: down, Role.HADA_W2_A: up, Role.HADA_W2_B: down, Role.ALPHA: ()}


def kronecker(weight: Shape) -> dict[Role, Shape]:
    """The tensors of a LoKr of two full matrices."""
    rows, columns = (next(n for n in (8, 7, 5, 4, 3, 2, 1) if side % n == 0) for side in weight[:2])
    whole = (weight[0] // rows, weight[1] // columns, *weight[2:])
    return {Role.LOKR_W1: (rows, columns), Role.LOKR_W2: whole, Role.ALPHA: ()}


def shapeless(weight: Shape) -> dict[Role, Shape]:
    """A LoRA of somebody's toy sizes."""
    return dict.fromkeys(low_rank(weight), (4, 4))


def keys(spoken: Dialect, target: Architecture, modules: list[ModuleRef], family=low_rank) -> dict[str, Shape]:
    """A file's keys; without alpha where the dialect has none, empty where it cannot say the family."""
    found: dict[str, Shape] = {}
    for module in modules:
        for role, shape in family(target.shape(module)).items():
            if spoken.says(role, module.component):
                found[spoken.encode(target, Address(module.component, module.path, role))] = shape
            elif role is not Role.ALPHA:
                return {}
    return found


def identified(shapes: Mapping[str, Shape]) -> Identification:
    tensors = {key: LazyTensor("F16", shape, b"\0") for key, shape in shapes.items()}
    return identify(group_tensors(tensors).groups, len(tensors), {})


@cache
def named(spoken: Dialect, id: str) -> tuple[ModuleRef, ...]:
    """The layers that a dialect has names for; no norms."""
    return tuple(module for module in spoken.written(architecture(id)) if len(architecture(id).shape(module)) > 1)


def block(module: ModuleRef) -> int:
    found = re.search(r"\.(\d+)\.", module.path)
    return int(found[1]) if found else -1


def left(modules: tuple[ModuleRef, ...], what: str) -> list[ModuleRef]:
    """What a trainer's settings leave of the denoiser, or of the file."""
    if what == "text encoders":
        return [module for module in modules if module.component is not Component.DENOISER]
    denoiser = [module for module in modules if module.component is Component.DENOISER]
    if what == "one module":
        return denoiser[len(denoiser) // 2 :][:1]
    last = max(map(block, denoiser), default=0)
    third = [module for module in denoiser if last // 3 <= block(module) <= 2 * last // 3 and block(module) >= 0]
    return third if what == "a third" else [module for module in third if "att" in module.path]


def some_dialects(id: str, count: int) -> list[Dialect]:
    """A few of the dialects that name an architecture's modules: other ones for each, all of them over all."""
    speaking = [spoken for spoken in map(dialect, GENERAL) if named(spoken, id)]
    first = 3 * architecture_ids().index(id)
    return [speaking[(first + step) % len(speaking)] for step in range(min(count, len(speaking)))]


@pytest.mark.parametrize("id", architecture_ids())
def test_a_whole_file_is_understood_and_its_architecture_is_the_first_named(id):
    other = (hadamard, kronecker)[architecture_ids().index(id) % 2]
    for spoken, family in zip(some_dialects(id, 2), [low_rank, other], strict=False):
        modules = list(named(spoken, id))
        found = identified(keys(spoken, architecture(id), modules, family) or keys(spoken, architecture(id), modules))
        assert found.best.architecture == TWINS.get(id, id), (spoken.id, family)
        assert found.best.coverage == 1.0


@pytest.mark.parametrize("what", PARTS)
@pytest.mark.parametrize("id", architecture_ids())
def test_a_part_of_a_file_still_has_its_architecture_among_the_candidates(id, what):
    spoken = some_dialects(id, len(GENERAL))[-PARTS.index(what)]
    modules = left(named(spoken, id), what)
    if modules:
        found = identified(keys(spoken, architecture(id), modules))
        assert id in {candidate.architecture for candidate in found.candidates}, spoken.id
        assert found.best.coverage == 1.0


@pytest.mark.parametrize("id", architecture_ids())
def test_names_alone_are_enough_where_sizes_are_nonsense(id):
    spoken = dialect("kohya")
    some = list(named(spoken, id))[::7]
    if some:
        found = identified(keys(spoken, architecture(id), some, shapeless))
        assert id in {candidate.architecture for candidate in found.candidates}
        assert "names fit, shapes do not" in found.best.evidence
