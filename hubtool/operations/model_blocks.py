"""The blocks of a model, as people name them, and weights given by block.

UNets have the names of the block-weight extensions (hako-mikan/sd-webui-lora-block-weight): IN00…, MID, OUT00… for the
authors' `input_blocks`, `middle_block`, `output_blocks`. Other models' blocks have diffusers' names:
`transformer_blocks.3`. A text encoder is one block, named after its component; BASE means all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from hubtool.errors import UsageProblem
from hubtool.naming.address import Component, ModuleRef

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hubtool.naming.architecture import Architecture

BASE = "BASE"
LEAST, MOST = 1e-6, 1e4  # of a strength that is not 0: beyond, products leave the range of the numbers that are stored
_LDM = {"input_blocks": "IN", "output_blocks": "OUT"}
_NUMBERED = re.compile(r"((?:[^.]+\.)*?[^.]*?\.\d+)(?:\.|$)")
_RANGE = re.compile(r"(.*?)(\d+)-(?:.*?)(\d+)$")


def _names(prefix: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number:02}" for number in numbers)


#: Lists without names, by length: the orders of sd-webui-lora-block-weight's README.
LISTS: Mapping[int, tuple[str, ...]] = {
    12: (BASE, *_names("IN", 4, 5, 7, 8), "MID", *_names("OUT", *range(6))),  # SDXL, attention
    17: (BASE, *_names("IN", 1, 2, 4, 5, 7, 8), "MID", *_names("OUT", *range(3, 12))),  # SD 1 and 2, attention
    20: (BASE, *_names("IN", *range(9)), "MID", *_names("OUT", *range(9))),  # SDXL, all
    26: (BASE, *_names("IN", *range(12)), "MID", *_names("OUT", *range(12))),  # SD 1 and 2, all
}


@cache
def block_of(target: Architecture, module: ModuleRef) -> str:
    """The block that a module is in."""
    if module.component is not Component.DENOISER:
        return str(module.component.value)
    fused = target.fused.get(module.path)
    path: str = fused.parts[0] if fused else module.path
    level, _, rest = target.original.get(path, path).partition(".")
    if level in _LDM:
        return f"{_LDM[level]}{int(rest.split('.')[0]):02}"
    if level == "middle_block":
        return "MID"
    numbered = _NUMBERED.match(path)
    return str(numbered[1]) if numbered else path.split(".", maxsplit=1)[0]


def blocks(target: Architecture) -> list[str]:
    """All blocks, text encoders first, then in the order of the model."""
    names = [block_of(target, ModuleRef(Component.DENOISER, path)) for path in target.modules]
    outputs = [name for name in names if name.startswith("OUT")]  # listed before the middle by diffusers
    ordered = [*(name for name in names if name not in outputs), *outputs]
    return [*(component.value for component in target.encoders), *dict.fromkeys(ordered)]


@dataclass(frozen=True, slots=True)
class BlockWeights:
    """Factors by pattern, later ones winning; what no pattern names has 1."""

    text: str = ""
    rows: tuple[tuple[str, float], ...] = field(default=())

    def factor(self, target: Architecture, module: ModuleRef) -> float:
        """What a module's change is multiplied with."""
        found = 1.0
        for pattern, weight in self.rows:
            if _matches(pattern, target, module):
                found = weight
        return found

    def check(self, target: Architecture, modules: Iterable[ModuleRef]) -> None:
        """Refuse names that this model does not have; a block that the file does not touch is fine.

        Raises:
            UsageProblem: a pattern that names no block.
        """
        names, touched = blocks(target), list(modules)
        for pattern, _ in self.rows:
            known = pattern == BASE or any(fnmatchcase(name, pattern) for name in names)
            if not known and not any(_matches(pattern, target, module) for module in touched):
                hint = f"{target.title} has {', '.join(names[:24])}{'…' if len(names) > 24 else '.'}"
                raise UsageProblem(f"No block of {target.title} is called {pattern!r}.", hint=hint)


NO_BLOCKS = BlockWeights()


def parse_block_weights(text: str) -> BlockWeights:
    """`NAME=W,…`, or a list of numbers in the order that A1111's extension has for its length.

    A name is a block, a pattern of blocks (`OUT0?`, `transformer_blocks.*`), a range (`IN04-08`,
    `single_transformer_blocks.0-9`), the beginning of a module path (`up_blocks.1.attentions.0`), or BASE.

    >>> parse_block_weights("MID=0, OUT03-05=0.5").rows
    (('MID', 0.0), ('OUT03', 0.5), ('OUT04', 0.5), ('OUT05', 0.5))

    Raises:
        UsageProblem: it is neither.
    """
    entries = [entry.strip() for entry in text.split(",")]
    if all("=" not in entry for entry in entries):
        return BlockWeights(text, _listed([_number(entry, text) for entry in entries]))
    rows: list[tuple[str, float]] = []
    for entry in entries:
        name, _, value = entry.partition("=")
        rows += [(pattern, _number(value, text)) for pattern in _ranged(name.strip())]
    return BlockWeights(text, tuple(rows))


def _listed(values: list[float]) -> tuple[tuple[str, float], ...]:
    if len(values) not in LISTS:
        message = f"{len(values)} block weights are none of the lists known: {', '.join(map(str, LISTS))}."
        raise UsageProblem(message, hint="Name the blocks instead, such as IN04=0.5,MID=0.")
    return tuple(zip(LISTS[len(values)], values, strict=True))


def _number(value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not is_strength(number):
        raise UsageProblem(f"{value.strip()!r} is no weight, in {text!r}.", hint="Write NAME=WEIGHT,NAME=WEIGHT.")
    return number


def is_strength(number: float) -> bool:
    """Whether a change can be multiplied with it: 0, or of a size that stored numbers survive."""
    return number == 0 or LEAST <= abs(number) <= MOST


def _ranged(name: str) -> list[str]:
    found = _RANGE.match(name)
    if not found:
        return [name]
    stem, first, last = found.groups()
    width = len(first) if first.startswith("0") else 0
    return [f"{stem}{number:0{width}}" for number in range(int(first), int(last) + 1)]


def _matches(pattern: str, target: Architecture, module: ModuleRef) -> bool:
    if pattern == BASE:
        return module.component is not Component.DENOISER
    if fnmatchcase(block_of(target, module), pattern):
        return True
    fused = target.fused.get(module.path)
    paths = (module.path, fused.parts[0]) if fused else (module.path,)
    return any(path == pattern or path.startswith(f"{pattern}.") for path in paths)
