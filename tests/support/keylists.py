"""Key lists of real files (fixtures/keys) and module lists of base models (fixtures/modules), and files made from them."""

from __future__ import annotations

import itertools
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


class Family(NamedTuple):
    """Modules whose paths differ in their numbers only."""

    path: str  # `#` for each number
    shape: Shape
    numbers: tuple[str, ...]  # the values of each `#`, e.g. "0-18"

    def paths(self) -> list[str]:
        """Every path, written out."""
        parts = self.path.split("#")
        chosen = itertools.product(*(_numbers(text) for text in self.numbers))
        return ["".join(itertools.chain(*zip(parts, [*values, ""], strict=True))) for values in chosen]


class Reference(NamedTuple):
    """A list of fixtures/families: the modules of diffusers' class, and where known those of the authors' own."""

    note: str
    modules: Mapping[str, Shape]
    native: Mapping[str, Shape]
    pairs: tuple[tuple[str, str, tuple[str, ...], int], ...]  # operation, the authors' name, canonical ones, how many
    original: Mapping[str, str]  # canonical → the authors' name, where they are listed one by one


@cache
def reference(name: str) -> Reference:
    """A list of fixtures/families."""
    table = json.loads((FIXTURES / "families" / f"{name}.json").read_text("utf-8"))
    modules, native = (_written_out(table.get(key, [])) for key in ("modules", "native"))
    pairs = tuple((row[0], row[1], tuple(row[2]), row[3]) for row in table.get("pairs", []))
    return Reference(table.get("note", ""), modules, native, pairs, table.get("original", {}))


def _written_out(rows: list[list[Any]]) -> dict[str, Shape]:
    families = [Family(path, tuple(shape), tuple(numbers)) for path, shape, numbers in rows]
    return {path: family.shape for family in families for path in family.paths()}


def _numbers(text: str) -> list[str]:
    """`0-2,5` → 0, 1, 2, 5."""
    ends = [(part.split("-")[0], part.split("-")[-1]) for part in text.split(",")]
    return [str(number) for first, last in ends for number in range(int(first), int(last) + 1)]


_ENCODERS = {"sd1": {"te": "clip-l"}, "sd2": {"te": "openclip-h"},
             "sdxl": {"te1": "clip-l", "te2": "openclip-bigg", "text_encoder": "clip-l", "text_encoder_2": "openclip-bigg"},
             "flux1": {"te1": "clip-l", "te3": "t5-xxl"}}  # fmt: skip
_PROCESSOR = re.compile(r"\.processor\.to_(q|k|v|out)_lora$")


def _shape_at_rank_4(architecture: str, base: str, suffix: str) -> Shape:
    if suffix == ".diff_m":  # Wan's `modulation` is a parameter of the block, no module
        return (1, 6, 5120)
    weight = _weight(architecture, base)
    outputs, inputs, kernel = weight[0], weight[1], weight[2:]
    ones = (1,) * len(kernel)
    shapes: dict[str, Shape] = {
        ".alpha": (), ".on_input": (), ".weight": (outputs,), ".lora_magnitude_vector": (outputs,),
        ".dora_scale": (outputs, 1, *ones), ".lora_mid.weight": (4, 4, *kernel),
        ".lokr_w1": (4, 4), ".lokr_w2": (outputs // 4, inputs // 4),
    }  # fmt: skip
    down = (4, inputs, *kernel)
    up = (outputs, 4, *ones)
    return shapes[suffix] if suffix in shapes else down if re.search(r"down|lora_A", suffix) else up


def _weight(architecture: str, base: str) -> Shape:
    """Shape of the layer that a base names, found by flattening everything: prefixes, dots, the oldest attention names."""
    path = _PROCESSOR.sub(lambda m: f".to_{m[1]}" + (".0" if m[1] == "out" else ""), base)
    flat = path.replace(".", "_")
    for slot, encoder in _ENCODERS.get(architecture, {}).items():
        for prefix in (f"lora_{slot}_", f"{slot}_"):
            if flat.startswith(prefix) and (found := _flat(encoder).get(flat.removeprefix(prefix))):
                return found
    for prefix in ("lora_unet_", "unet_", "transformer_", "diffusion_model_", ""):
        if flat.startswith(prefix) and (found := _flat(architecture).get(flat.removeprefix(prefix))):
            return found
    raise KeyError(base)


@cache
def _flat(name: str) -> Mapping[str, Shape]:
    if not (FIXTURES / "modules" / f"{name}.json").exists():
        return {path.replace(".", "_"): shape for path, shape in reference(name).modules.items()}
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
        elif re.search(r"lora_(up|B)\.(?!bias)|lora\.up|\.up\.weight", key):
            found[key] = (shape[0], rank, *shape[2:])
        elif "lora_mid." in key:
            found[key] = (rank, rank, *shape[2:])
        else:
            found[key] = shape
    return found


def size(shapes: Mapping[str, Shape]) -> int:
    """Number of elements."""
    return sum(prod(shape) for shape in shapes.values())
