"""Parts of whatever family, joined and taken apart again, are the parts; a whole, taken apart and joined, is the whole."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from support.files import Raw, number, random_tensor
from support.layouts import layouts_of
from support.lazy import lazy, literal

from hubtool.adapters.joining import join_parts
from hubtool.adapters.layer import Layer
from hubtool.adapters.splitting import split_module
from hubtool.errors import NotRepresentable
from hubtool.naming.address import Role
from hubtool.naming.architecture import Fused

if TYPE_CHECKING:
    from collections.abc import Mapping

Contents = dict[Role, Raw]
NAMES = list(layouts_of((4, 6)))
rows = st.lists(st.sampled_from([2, 4, 6, 10]), min_size=2, max_size=4)
#: Rows of these always say something, so that an absent part cannot be told in them.
ABSOLUTE = {"dora", "dora of inputs", "loha with dora", "absolute", "oft of old"}


def layer(name: str, weight: tuple[int, int], seed: int, alpha: float) -> Layer:
    """A layer of this layout with values of its own."""
    made: Contents = {}
    for role, sides in layouts_of(weight)[name](weight).items():
        if role is Role.IA3_ON_INPUT or not sides:
            made[role] = number(0, "I64") if role is Role.IA3_ON_INPUT else number(alpha)
        elif role in {Role.SPARSE_INDICES, Role.SPARSE_SIZE}:
            made[role] = Raw("I64", sides, np.zeros(sides, "<i8").tobytes())
        else:
            made[role] = random_tensor(zlib.crc32(f"{seed}{role.value}".encode()), sides, "F32", 0.5)
    return Layer(lazy(made), "m")


def contents(parts: Mapping[str, Layer]) -> dict[str, Contents]:
    return {path: {role: literal(tensor) for role, tensor in part.tensors.items()} for path, part in parts.items()}


@given(heights=rows, name=st.sampled_from(NAMES), alpha=st.sampled_from([1, 2, 3, 8]))
def test_a_whole_taken_apart_and_joined_is_the_whole(heights: list[int], name: str, alpha: float) -> None:
    fused = Fused(tuple(f"p{i}" for i in range(len(heights))), tuple(heights))
    whole = layer(name, (sum(heights), 6), 1, alpha)
    try:
        parts = split_module(whole, fused)
    except NotRepresentable:
        assume(False)
    joined = join_parts("m", fused, parts)
    assert (joined.note, joined.rounding) == (None, 0.0)
    assert contents({"m": joined.layer}) == contents({"m": whole})


@given(
    heights=rows, name=st.sampled_from(NAMES), shared=st.booleans(), alpha=st.sampled_from([1, 2, 3, 8]), data=st.data()
)
def test_parts_joined_and_taken_apart_are_the_parts(
    heights: list[int], name: str, shared: bool, alpha: float, data: st.DataObject
) -> None:
    fused = Fused(tuple(f"p{i}" for i in range(len(heights))), tuple(heights))
    few = [path for path in fused.parts if name in ABSOLUTE or data.draw(st.booleans(), label=path)]
    parts = {}
    for seed, (path, height) in enumerate(zip(fused.parts, heights, strict=True)):
        if path in few:
            parts[path] = layer(name, (height, 6), 0 if shared else seed, alpha)
    assume(parts)
    try:
        joined = join_parts("m", fused, parts)
    except NotRepresentable:
        assume(False)
    back = split_module(joined.layer, fused, joined.note)
    assert joined.rounding == 0.0
    assert contents(back) == contents(parts)
