"""Every architecture in every dialect, every pair of dialects, every parametrization that both can say: the identity.

Two halves, because a file's way from one dialect to another is reading it and writing it: keys are read as what was written
(real names and shapes, tensors without bytes), and what a conversion does to the tensors is undone by the one back (the same
modules with small weights). A few modules of every kind stand for all: they differ in their numbers alone.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import replace
from functools import cache
from math import prod

import numpy as np
import pytest
from support.adapters import in_memory
from support.layouts import layouts_of

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import decode, encode
from hubtool.adapters.fusion import fit
from hubtool.adapters.layer import Layer
from hubtool.adapters.recorded import recorded_scales
from hubtool.adapters.rewriting import magnitudes_for
from hubtool.adapters.scaling import plan_alphas, with_alpha_tensors, without_alpha_tensors
from hubtool.errors import NotRepresentable
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import Architecture, Fused, architecture, architecture_ids
from hubtool.naming.dialect import Dialect, dialects
from hubtool.naming.identify import family

WRITTEN = [spoken for spoken in dialects().values() if spoken.is_written]
PEFT = {"diffusers", "diffusers-old", "peft"}
Made = dict[ModuleRef, Layer]
#: F16 between 0.25 and 0.5 in no order; a tensor's are some of them, one after the other.
ENTRIES = np.random.default_rng(1).integers(0x3400, 0x37FF, 20_000).astype("<u2").tobytes()


def weightless(shape: tuple[int, ...]) -> LazyTensor:
    def refuse() -> memoryview:
        raise AssertionError("reading keys looked at a tensor's bytes")

    return LazyTensor("F16", shape, refuse)


def one_of_each_kind(modules: list[ModuleRef]) -> list[ModuleRef]:
    """The first module of each family, and the last: block numbers of one and of two digits."""
    found: dict[tuple[Component, str], list[ModuleRef]] = {}
    for module in modules:
        found.setdefault((module.component, family(module.path)), []).append(module)
    return list(dict.fromkeys(one for rows in found.values() for one in (rows[0], rows[-1])))


@cache
def layouts(shape: tuple[int, ...]) -> dict[str, dict[Role, tuple[int, ...]]]:
    return {name: make(shape) for name, make in layouts_of(shape).items()}


@cache
def roles_of(spoken: Dialect, component: Component) -> frozenset[Role]:
    return frozenset(role for role in Role if spoken.says(role, component))


@cache
def sayable(shape: tuple[int, ...], *roles: frozenset[Role]) -> list[str]:
    """Layouts of a weight whose every tensor has a suffix in each of these dialects."""
    return [name for name, layout in layouts(shape).items() if all(layout.keys() <= said for said in roles)]


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("spoken", WRITTEN, ids=lambda spoken: spoken.id)
@pytest.mark.parametrize("id", architecture_ids())
def test_keys_are_read_as_what_was_written(id: str, spoken: Dialect) -> None:
    target = architecture(id)
    modules = one_of_each_kind(list(spoken.written(target)))
    made: Made = {}
    for turn, module in enumerate(modules):
        shape = target.shape(module)
        names = sayable(shape, roles_of(spoken, module.component)) if shape else []
        if not names:
            continue
        layout = layouts(shape)[names[turn % len(names)]]
        if spoken.id in PEFT and Role.MAGNITUDE in layout:
            layout = {**layout, Role.MAGNITUDE: shape[:1]}
        scalars = {role for role, sides in layout.items() if not sides}
        made[module] = Layer({
            role: scalar_tensor(4, "F16") if role in scalars else weightless(sides) for role, sides in layout.items()
        })  # fmt: skip
    if not made:
        pytest.skip("it has no names there")
    found = decode(replace(in_memory({}), tensors=encode(Adapter(target, made), spoken.id)), architecture_id=id)
    assert not found.leftovers
    read = {
        module: {role: id_of(tensor) for role, tensor in layer.tensors.items()}
        for module, layer in found.layers.items()
    }
    assert read == {m: {role: id_of(tensor) for role, tensor in layer.tensors.items()} for m, layer in made.items()}


def id_of(tensor: LazyTensor) -> int:
    return id(tensor)


# ---------------------------------------------------------------- tensors


@cache
def small(id: str) -> Architecture:
    """The same names with weights of a few rows, and one block of each kind; fused rows still add up."""
    target = architecture(id)
    sample = one_of_each_kind([ModuleRef(Component.DENOISER, path) for path in (*target.modules, *target.fused)])
    parts = {part for module in sample if module.path in target.fused for part in target.fused[module.path].parts}
    kept = parts | {module.path for module in sample if module.path in target.modules}
    sides = sorted({side for path in kept for side in target.modules[path]})
    narrow = {side: min(side, 2 * (2 + index)) for index, side in enumerate(sides)}
    modules = {
        path: tuple(narrow[side] if side > 7 else side for side in target.modules[path])
        for path in target.modules
        if path in kept
    }
    fused = {
        name: Fused(old.parts, tuple(modules[part][0] for part in old.parts), old.swapped, old.partial)
        for name, old in target.fused.items()
        if set(old.parts) <= kept
    }
    return replace(
        target,
        modules=modules,
        original={path: name for path, name in target.original.items() if path in kept},
        fused=fused,
        second={name: path for name, path in target.second.items() if path in kept or path in fused},
        encoders={},
        also={},
    )


def whole_groups(target: Architecture, spoken: Dialect) -> list[list[ModuleRef]]:
    """Modules that a dialect names: alone, or all parts of a fused one together, as they have to be joined."""
    written = list(spoken.written(target))
    homes = {part: name for name, fused in target.fused.items() if not fused.partial for part in fused.parts}
    groups: dict[str, list[ModuleRef]] = {}
    for module in written:
        if module.component is Component.DENOISER:
            groups.setdefault(homes.get(module.path, module.path), []).append(module)
    return list(groups.values())


def filled(role: Role, sides: tuple[int, ...], rank: int | None, name: str) -> LazyTensor:
    """Bytes without zeros that depend on the name; alphas that make the scale a power of two; absolute indices."""
    if not sides:
        on_input = role is Role.IA3_ON_INPUT
        return scalar_tensor(0, "I64") if on_input else scalar_tensor((rank or 1) / 2, "F16")
    if role in {Role.SPARSE_INDICES, Role.SPARSE_SIZE}:
        return LazyTensor("I64", sides, bytes(8 * prod(sides)))
    start, size = zlib.crc32(name.encode()) % 1000, prod(sides)
    return LazyTensor("F16", sides, ENTRIES[2 * start : 2 * (start + size)])


def example(target: Architecture, first: Dialect, second: Dialect, turn: int) -> Adapter:
    """One layout for each group of modules that both dialects name, whole or in parts."""
    layers: Made = {}
    roles = roles_of(first, Component.DENOISER), roles_of(second, Component.DENOISER)
    for number, group in enumerate(whole_groups(target, first)):
        shapes = [target.shape(module) for module in group]
        both = sorted(set.intersection(*(set(sayable(shape, *roles)) for shape in shapes)))
        if not both:
            continue
        name = both[(turn + number) % len(both)]
        shared = group[0].path  # what parts have in common must be the same tensor to be joined
        for module, shape in zip(group, shapes, strict=True):
            layout = layouts(shape)[name]
            rank = Layer({role: weightless(sides) for role, sides in layout.items()}).rank
            layers[module] = Layer({
                role: filled(role, sides, rank, f"{role}{module.path if name.startswith(('lora', 'dora', 'loha')) else shared}")
                for role, sides in layout.items()
            }, module.path)  # fmt: skip
    return magnitudes_for(Adapter(target, layers, dialect="kohya"), first.id)


def said(adapter: Adapter, spoken: Dialect) -> Adapter:
    """What is read from the file that a conversion to this dialect writes."""
    plan = plan_alphas(adapter, spoken.id)
    fitted = fit(adapter, spoken.id).adapter
    written = with_alpha_tensors(fitted) if plan.outcome == "kept" else without_alpha_tensors(fitted, plan)
    written = magnitudes_for(written, spoken.id)
    encode(written, spoken.id)
    layers = written.layers
    if spoken.id in PEFT:
        scales = recorded_scales(written.architecture, written.metadata, layers)
        layers = {module: replace(layer, recorded_scale=scales.get(module)) for module, layer in layers.items()}
    return replace(written, layers=layers, dialect=spoken.id)


def bytes_of(adapter: Adapter) -> dict[ModuleRef, dict[Role, tuple[str, tuple[int, ...], bytes]]]:
    return {
        module: {role: (t.dtype, t.shape, bytes(t.view())) for role, t in layer.tensors.items()}
        for module, layer in adapter.layers.items()
    }


def reduced(adapter: Adapter, first: Dialect, second: Dialect) -> Adapter:
    """Only modules that can go there by themselves: what no dialect could say is refused, and tested elsewhere."""
    if can_be_said(adapter, second):
        return adapter
    kept: Made = {}
    for group in whole_groups(adapter.architecture, first):
        part = {module: adapter.layers[module] for module in group if module in adapter.layers}
        if can_be_said(replace(adapter, layers=part, dialect=first.id), second):
            kept |= part
    return replace(adapter, layers=kept, dialect=first.id)


def can_be_said(adapter: Adapter, spoken: Dialect) -> bool:
    try:
        said(adapter, spoken)
    except NotRepresentable:
        return False
    return bool(adapter.layers)


@pytest.mark.parametrize("id", architecture_ids())
def test_every_conversion_is_undone_by_the_one_back(id: str) -> None:
    target = small(id)
    for turn, (first, second) in enumerate(itertools.permutations(WRITTEN, 2)):
        adapter = reduced(said_at_home(example(target, first, second, turn), first), first, second)
        if not adapter.layers:
            continue
        back = said(said(adapter, second), first)
        assert bytes_of(back) == bytes_of(adapter), f"{first.id} to {second.id} and back"


def said_at_home(adapter: Adapter, spoken: Dialect) -> Adapter:
    """As a file in this dialect has it: alphas only where there is a suffix for them."""
    return adapter if spoken.says(Role.ALPHA) else replace(adapter, dialect=spoken.id)
