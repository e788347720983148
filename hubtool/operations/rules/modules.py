"""Rules about modules: complete, consistent, of one base model, in one dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.adapters.irregular import is_ambiguous
from hubtool.formats.safetensors import printable
from hubtool.naming.address import Role
from hubtool.naming.architecture import Architecture, architecture, architecture_ids
from hubtool.naming.dialect import dialects
from hubtool.naming.identify import Group, explain
from hubtool.naming.outline import known_outlines, shortlist
from hubtool.naming.suffixes import split_key
from hubtool.operations.rules.problem import Problem, Subject, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubtool.adapters.layer import Layer

_MATRICES = {
    Role.DOWN, Role.UP, Role.HADA_W1_A, Role.HADA_W1_B, Role.HADA_W2_A, Role.HADA_W2_B,
    Role.LOKR_W1, Role.LOKR_W1_A, Role.LOKR_W1_B, Role.LOKR_W2, Role.LOKR_W2_A, Role.LOKR_W2_B,
}  # fmt: skip
#: (left factor, right factor): columns of the left must be rows of the right.
_PRODUCTS = (
    (Role.UP, Role.DOWN),
    (Role.HADA_W1_A, Role.HADA_W1_B),
    (Role.HADA_W2_A, Role.HADA_W2_B),
    (Role.LOKR_W1_A, Role.LOKR_W1_B),
    (Role.LOKR_W2_A, Role.LOKR_W2_B),
)
ADDITIONS = {Role.ALPHA, Role.SCALE, Role.MAGNITUDE}  # which every loader ignores where there is nothing to add to
_INTEGERS = {"U8", "I8", "I16", "U16", "I32", "U32", "I64", "U64"}


def completeness(subject: Subject) -> Iterator[Problem]:
    """Missing partners, and strays that belong to nothing."""
    if subject.layers and all(layer.tensors.keys() <= {Role.ALPHA, Role.SCALE} for layer in subject.layers):
        yield problem("E_PAIR_MISSING", "No module has any weights.", subject.layers[0].base)
        return
    for layer in subject.layers:
        kind = layer.parametrization
        if kind is None or layer.tensors.keys() <= ADDITIONS:
            yield problem("W_ORPHAN_KEY", f"{printable(layer.base)} has only {_roles(layer.tensors)}.", layer.base)
        elif lacking := kind.missing(layer.shapes):
            message = f"{printable(layer.base)} has no {_roles(lacking)}."
            yield problem("E_PAIR_MISSING", message, layer.base)


def _roles(roles: object) -> str:
    return " or ".join(str(getattr(role, "value", role)) for role in roles) if hasattr(roles, "__iter__") else ""


def factors(subject: Subject) -> Iterator[Problem]:
    """Dimensions of factors, and whether they multiply."""
    for layer in subject.layers:
        shapes = layer.shapes
        flat = [role for role in _MATRICES & shapes.keys() if len(shapes[role]) < 2]
        for role in sorted(flat, key=lambda role: role.value):
            message = f"{printable(layer.base)}: {role.value} has shape {list(shapes[role])}, a matrix was expected."
            yield problem("E_SHAPE_RANK", message, layer.base)
        if not flat:
            yield from _products(layer)


def _products(layer: Layer) -> Iterator[Problem]:
    shapes, name = layer.shapes, printable(layer.base)
    if layer.rank == 0:
        yield problem("E_RANK_ZERO", f"{name} has rank 0.", layer.base)
        return
    tucker = not shapes.keys().isdisjoint({Role.HADA_T1, Role.LOKR_T2})
    for left, right in _PRODUCTS:
        if left not in shapes or right not in shapes:
            continue
        a, b = shapes[left], shapes[right]
        if a[0 if tucker and right is not Role.LOKR_W1_B else 1] == b[0]:
            continue
        if left is Role.UP and a[0] == b[1]:
            message = f"{name}: up is {list(a)} and down {list(b)}; they are transposed or exchanged."
            yield problem("E_TRANSPOSED", message, layer.base)
        else:
            message = f"{name}: {left.value} is {list(a)} but {right.value} {list(b)}."
            yield problem("E_RANK_MISMATCH", message, layer.base)
    yield from _pairs_of_ranks(layer)


def _pairs_of_ranks(layer: Layer) -> Iterator[Problem]:
    """LoHa's two products may differ in rank by no definition that any tool has."""
    first, second = layer.shapes.get(Role.HADA_W1_B), layer.shapes.get(Role.HADA_W2_B)
    if first and second and first[0] != second[0]:
        message = f"{printable(layer.base)}: the first product has rank {first[0]}, the second {second[0]}."
        yield problem("E_RANK_MISMATCH", message, layer.base)


def base_shapes(subject: Subject) -> Iterator[Problem]:
    """Whether each module fits the layer its name means."""
    adapter = subject.adapter
    if adapter is None:
        return
    for module in adapter.misfits:
        layer, shape = adapter.layers[module], adapter.architecture.shape(module)
        extent = layer.extent
        message = (
            f"{printable(layer.base)} is made for a weight of {extent.rows or '?'} × {extent.columns or '?'}; "
            f"the layer of {adapter.architecture.title} is {list(shape or ())}."
        )
        yield problem("E_BASE_SHAPE", message, layer.base)
    for module, layer in adapter.layers.items():
        shape = adapter.architecture.shape(module)
        if shape and layer.rank and len(shape) > 1 and layer.rank > min(shape[0], _columns(shape)):
            yield problem(
                "W_RANK_TOO_LARGE", f"{printable(layer.base)}: rank {layer.rank} on a {list(shape)} layer.", layer.base
            )


def _columns(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape[1:]:
        count *= side
    return count


def one_base_model(subject: Subject) -> Iterator[Problem]:
    """Modules of another architecture among the tensors that this one leaves over."""
    adapter = subject.adapter
    if adapter is None:
        return
    rest = [group for group in subject.grouped.groups if _is_left(subject, group.base)]
    ids = shortlist([group.base for group in rest]) if rest else ()
    if ids == architecture_ids():
        return  # names that no architecture has
    others = [architecture(id) for id in ids if id != adapter.architecture.id]
    found = {target: _explained(target, rest) for target in others}
    likeliest = min(found, key=lambda target: (-len(found[target]), target.prior), default=None)
    if likeliest and found[likeliest]:
        count, title = len(found[likeliest]), adapter.architecture.title
        message = f"{count} modules belong to {likeliest.title}, the others to {title}."
        yield problem("E_MIXED_ARCH", message, min(found[likeliest]))


def _explained(target: Architecture, groups: list[Group]) -> set[str]:
    return {base for spoken in dialects().values() for base in explain(target, spoken, groups)}


def _is_left(subject: Subject, base: str) -> bool:
    suffixes = subject.grouped.tensors[base]
    keys = [subject.grouped.keys[base, suffix] for suffix in suffixes]
    return bool(subject.adapter and all(key in subject.adapter.leftovers for key in keys))


def dialect_rules(subject: Subject) -> Iterator[Problem]:
    """One dialect, well formed, everything understood."""
    adapter = subject.adapter
    if adapter is None:
        yield problem("W_UNKNOWN_ARCHITECTURE", "The modules belong to no base model that hubtool knows.")
        return
    if is_ambiguous(adapter):
        fitting = ", ".join(candidate.architecture for candidate in adapter.identification.candidates)
        yield problem("W_AMBIGUOUS", f"The keys fit {fitting}.")
    if adapter.mixed:
        yield problem(
            "W_MIXED_DIALECT", f"Most modules are spelt in {adapter.dialect}, some in {', '.join(adapter.mixed)}."
        )
    if adapter.malformed:
        yield problem("W_MALFORMED", f"Keys look like {adapter.dialect}'s but are not spelt as any tool spells them.")
    duplicates = set(adapter.duplicates)
    unknown = [key for key in adapter.leftovers if key not in duplicates]
    blocks = _foreign_blocks(subject, unknown)
    if blocks:
        message = f"{len(blocks)} tensors are for blocks that {adapter.architecture.title} does not have."
        yield problem("W_UNKNOWN_BLOCKS", message, min(blocks))
    unknown = [key for key in unknown if key not in blocks]
    if unknown:
        total, first = len(subject.file.tensors), printable(unknown[0], 80)
        message = f"{len(unknown)} of {total} tensors are not understood, such as {first}."
        yield problem("W_UNKNOWN_KEYS", message, unknown[0])


def _foreign_blocks(subject: Subject, unknown: list[str]) -> set[str]:
    """Those of the keys whose module differs from known ones only in its numbers."""
    adapter = subject.adapter
    if adapter is None or not unknown:
        return set()
    cuts = {key: cut.base for key in unknown if (cut := split_key(key))}
    known = known_outlines(cuts.values(), adapter.architecture.id)
    return {key for key, base in cuts.items() if base in known}


def names(subject: Subject) -> Iterator[Problem]:
    """Names that would do harm where a program prints them or makes paths of them."""
    for key in subject.file.tensors:
        if (
            not key
            or len(key) > 1024
            or not key.isprintable()
            or key.startswith("/")
            or ".." in key.split("/")
            or "\\" in key
        ):
            yield problem("W_UNSAFE_NAME", f"A tensor has the name {printable(key, 60) or '(empty)'}.", key[:1024])
            return


def dtypes(subject: Subject) -> Iterator[Problem]:
    """Weights that are numbers."""
    for layer in subject.layers:
        for role in _MATRICES & layer.tensors.keys():
            dtype = layer.tensors[role].dtype
            if dtype == "BOOL":
                yield problem(
                    "E_DTYPE_WEIGHT", f"{printable(layer.base)}: {role.value} holds truth values.", layer.base
                )
                return
            if dtype in _INTEGERS:
                yield problem(
                    "W_DTYPE", f"{printable(layer.base)}: {role.value} is {dtype} without a scale.", layer.base
                )
                return


RULES = (completeness, factors, base_shapes, one_base_model, dialect_rules, names, dtypes)
