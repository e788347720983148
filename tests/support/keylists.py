"""Key lists of real files (fixtures/keys) and module lists of base models (fixtures/modules), and files made from them."""

from __future__ import annotations

import json
import re
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from support.files import Raw, floats, number, random_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

FIXTURES = Path(__file__).parents[2] / "fixtures"
Shape = tuple[int, ...]


class KeyList(NamedTuple):
    """What is known of one file."""

    name: str
    shapes: Mapping[str, Shape]  # every key; lists without shapes got theirs from the base model, at rank 4
    expected: Mapping[str, Any]


@cache
def expectations() -> Mapping[str, Mapping[str, Any]]:
    """Name of each list → what `inspect` should say."""
    return json.loads((FIXTURES / "keys" / "EXPECTED.json").read_text("utf-8"))


@cache
def key_list(name: str) -> KeyList:
    """One list with shapes."""
    rows = json.loads((FIXTURES / "keys" / f"{name}.json").read_text("utf-8"))["tensors"]
    expected = expectations()[name]
    shapes: dict[str, Shape] = {}
    for suffixes, bases in rows:
        for base in bases:
            for suffix, shape in suffixes.items():
                known = _shape_at_rank_4(expected["architecture"], base, suffix) if shape is None else tuple(shape)
                shapes[base + suffix] = known
    return KeyList(name, shapes, expected)


# ---------------------------------------------------------------- base models


class Modules(NamedTuple):
    """The module list of one base model or text encoder, as its reference class has it."""

    shapes: Mapping[str, Shape]
    original: Mapping[str, str]  # canonical → the authors' name
    fused: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]  # the authors' name → parts, rows of each
    swapped: Mapping[str, str]  # the authors' name → canonical


@cache
def modules(name: str) -> Modules:
    """A list of fixtures/modules."""
    table = json.loads((FIXTURES / "modules" / f"{name}.json").read_text("utf-8"))
    shapes = {path: tuple(json.loads(shape)) for shape, paths in table["modules"].items() for path in paths}
    fused = {path: (tuple(parts), tuple(rows)) for path, (parts, rows) in table.get("fused", {}).items()}
    return Modules(shapes, table.get("original", {}), fused, table.get("swapped", {}))


_ENCODERS = {"sd1": {"te": "clip-l"}, "sd2": {"te": "openclip-h"},
             "sdxl": {"te1": "clip-l", "te2": "openclip-bigg", "text_encoder": "clip-l", "text_encoder_2": "openclip-bigg"},
             "flux1": {"te1": "clip-l", "te3": "t5-xxl"}}  # fmt: skip
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)_lora$")


def _shape_at_rank_4(architecture: str, base: str, suffix: str) -> Shape:
    weight = _weight(architecture, base)
    outputs, inputs, kernel = weight[0], weight[1], weight[2:]
    ones = (1,) * len(kernel)
    shapes: dict[str, Shape] = {
        ".alpha": (), ".on_input": (), ".weight": (outputs,), ".lora_magnitude_vector": (outputs,),
        ".dora_scale": (outputs, 1, *ones), ".lora_mid.weight": (4, 4, *kernel),
    }  # fmt: skip
    down = (4, inputs, *kernel)
    up = (outputs, 4, *ones)
    return shapes[suffix] if suffix in shapes else down if re.search(r"down|lora_A", suffix) else up


def _weight(architecture: str, base: str) -> Shape:
    """Shape of the layer that a base names, found by flattening everything: prefixes, dots, the oldest attention names."""
    path = _PROCESSOR.sub(lambda m: f".to_{m[1]}" + (".0" if m[1] == "out" else ""), base)
    flat = path.replace(".", "_")
    for slot, encoder in _ENCODERS[architecture].items():
        for prefix in (f"lora_{slot}_", f"{slot}_"):
            if flat.startswith(prefix) and (found := _flat(encoder).get(flat.removeprefix(prefix))):
                return found
    for prefix in ("lora_unet_", "unet_", "transformer_", ""):
        if flat.startswith(prefix) and (found := _flat(architecture).get(flat.removeprefix(prefix))):
            return found
    raise KeyError(base)


@cache
def _flat(name: str) -> Mapping[str, Shape]:
    table = modules(name)
    names = {path.replace(".", "_"): shape for path, shape in table.shapes.items()}
    names |= {original.replace(".", "_"): table.shapes[path] for path, original in table.original.items()}
    return names


# ---------------------------------------------------------------- files


def with_values(shapes: Mapping[str, Shape], dtype: str = "F16", alpha: float = 4.0) -> dict[str, Raw]:
    """Random factors of one dtype and one alpha for all; IA³'s `.on_input` is the integer that it is in the wild."""
    tensors = {}
    for index, (key, shape) in enumerate(shapes.items()):
        if key.endswith(".alpha"):
            tensors[key] = number(alpha)
        elif key.endswith(".on_input"):
            tensors[key] = Raw("I64", shape, floats([index % 2], "I64"))
        else:
            tensors[key] = random_tensor(index, shape, dtype)
    return tensors


def at_rank(shapes: Mapping[str, Shape], rank: int) -> dict[str, Shape]:
    """The same keys at another rank (LoRA and LoCon only), so that a file with random values stays small."""
    found = {}
    for key, shape in shapes.items():
        if re.search(r"lora_(down|A)\.|lora\.down|\.down\.weight", key):
            found[key] = (rank, *shape[1:])
        elif re.search(r"lora_(up|B)\.|lora\.up|\.up\.weight", key):
            found[key] = (shape[0], rank, *shape[2:])
        else:
            found[key] = shape
    return found


def size(shapes: Mapping[str, Shape]) -> int:
    """Number of elements."""
    return sum(prod(shape) for shape in shapes.values())
