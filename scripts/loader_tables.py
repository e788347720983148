"""The generated tables of docs/formats/ui-matrix.md: what each program loads, as the loaders' tables say."""

from __future__ import annotations

import re
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.grouping import group_tensors
from hubtool.adapters.layer import Layer
from hubtool.formats.safetensors import SafetensorsFile
from hubtool.formats.tensor import LazyTensor, scalar_tensor
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.dialect import dialect, dialects
from hubtool.operations.loader import loader_for, loaders
from hubtool.operations.verdict import Subject, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hubtool.naming.dialect import Dialect
    from hubtool.operations.loader import Rule

_MARKS = {"all": "all", "some": "some", "none": "–"}
#: Modules of a block with a higher index are like those of the first two, and left out.
_LATER = re.compile(r"\.([2-9]|\d\d+)\..*[a-z]")
#: A layer inside a block, not the block itself (whose `modulation` is a parameter).
_BLOCK = re.compile(r"\.\d+\..*[a-z]\w*\.(\d\.)?$")
_SIDE = 4  # rank, and side of a LoKr's small factor

Shape = tuple[int, ...]
#: Roles of a module of each family, with their shapes for (rows, columns, kernel).
_FAMILIES: Mapping[str, Callable[[int, int, Shape], dict[Role, Shape]]] = {
    "`lora`": lambda rows, columns, kernel: {
        Role.DOWN: (_SIDE, columns, *kernel),
        Role.UP: (rows, _SIDE, *(1,) * len(kernel)),
    },
    "`lora` + `tucker`": lambda rows, columns, kernel: {
        Role.DOWN: (_SIDE, columns, *(1,) * len(kernel)),
        Role.MID: (_SIDE, _SIDE, *kernel),
        Role.UP: (rows, _SIDE, *(1,) * len(kernel)),
    },
    "`lora` + `dora`, a magnitude per output": lambda rows, columns, kernel: {
        Role.DOWN: (_SIDE, columns, *kernel),
        Role.UP: (rows, _SIDE, *(1,) * len(kernel)),
        Role.MAGNITUDE: (rows, 1, *(1,) * len(kernel)),
    },
    "`lora` + `dora`, a magnitude per input": lambda rows, columns, kernel: {
        Role.DOWN: (_SIDE, columns, *kernel),
        Role.UP: (rows, _SIDE, *(1,) * len(kernel)),
        Role.MAGNITUDE: (1, columns, *(1,) * len(kernel)),
    },
    "`loha`": lambda rows, columns, kernel: {
        Role.HADA_W1_A: (rows, _SIDE),
        Role.HADA_W1_B: (_SIDE, columns * prod(kernel)),
        Role.HADA_W2_A: (rows, _SIDE),
        Role.HADA_W2_B: (_SIDE, columns * prod(kernel)),
    },
    "`lokr`": lambda rows, columns, kernel: {
        Role.LOKR_W1: (_SIDE, _SIDE),
        Role.LOKR_W2: (rows // _SIDE, columns // _SIDE, *kernel),
    },
    "`glora`": lambda rows, columns, kernel: {
        Role.GLORA_A1: (columns, _SIDE, *(1,) * len(kernel)),
        Role.GLORA_A2: (_SIDE, columns, *(1,) * len(kernel)),
        Role.GLORA_B1: (rows, _SIDE, *(1,) * len(kernel)),
        Role.GLORA_B2: (_SIDE, columns, *kernel),
    },
    "`oft`": lambda rows, _columns, _kernel: {Role.OFT_BLOCKS: (rows // _SIDE, _SIDE, _SIDE)},
    "`boft`": lambda rows, _columns, _kernel: {Role.OFT_BLOCKS: (2, rows // _SIDE, _SIDE, _SIDE)},
    "`ia3`": lambda rows, _columns, _kernel: {Role.IA3_WEIGHT: (rows,), Role.IA3_ON_INPUT: ()},
    "`full`": lambda rows, columns, kernel: {Role.DIFF: (rows, columns, *kernel)},
}
_WITHOUT_ALPHA = {"`ia3`", "`full`"}
_LORA = "`lora`"
_PEFT = ", `lora_A`"  # the dialect's keys with PEFT's factors, and no alpha
_SPELLINGS = [*dialects(), f"comfyui{_PEFT}", f"original{_PEFT}"]


def targets() -> str:
    """Every program, with what was read."""
    rows = ["| id | program | read |", "|---|---|---|"]
    rows += [f"| `{id}` | {table.title} | {_safe(table.read)} |" for id, table in loaders().items()]
    return "\n".join(rows) + "\n"


def by_dialect() -> str:
    """One table a program: how much of a plain LoRA of each architecture it loads, in each dialect."""
    parts, seen = [], {}
    for id, table in loaders().items():
        runs = [one for one in architecture_ids() if one in table.runs]
        spoken = [name for name in _SPELLINGS if {_cell(id, one, name) for one in runs} - {"", _MARKS["none"]}]
        rows = [f"| | {' | '.join(spoken)} |", "|---" * (len(spoken) + 1) + "|"]
        rows += [f"| `{one}` | {' | '.join(_cell(id, one, name) for name in spoken)} |" for one in runs]
        shown = "\n".join(rows)
        same = seen.setdefault(shown, table.title)
        parts.append(f"### {table.title}\n\n{shown if same == table.title else f'As {same}.'}\n")
    return "\n".join(parts)


def by_family() -> str:
    """Families and modifiers in kohya's keys, or ComfyUI's: SDXL, where a program runs it."""
    rows = [f"| | {' | '.join(f'`{id}`' for id in loaders())} |", "|---" * (len(loaders()) + 1) + "|"]
    for family in _FAMILIES:
        cells = [_word(judge(loader_for(id, "sdxl"), _file("sdxl", "kohya", family))) for id in loaders()]
        rows.append(f"| {family} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def differences() -> str:
    """Everything that a program does otherwise, with its source."""
    rows = ["| program | effect | what | for | source |", "|---|---|---|---|---|"]
    programs: dict[Rule, list[str]] = {}
    for id, table in loaders().items():
        for rule in table.rules:
            programs.setdefault(rule, []).append(f"`{id}`")
    for rule, ids in programs.items():
        concerned = ", ".join(sorted(rule.architectures)) or "all"
        rows.append(f"| {', '.join(ids)} | {rule.effect} | {_safe(rule.says)} | {concerned} | {_safe(rule.source)} |")
    return "\n".join(rows) + "\n"


def _cell(id: str, one: str, name: str) -> str:
    """How a program loads a LoRA; empty if the dialect has no keys for it."""
    subject = _file(one, name, _LORA)
    return _word(judge(loader_for(id, one), subject)) if subject.adapter.layers else ""


def _word(verdict: Verdict) -> str:
    other = verdict.loads != "none" and any(finding.effect == "alters" for finding in verdict.findings)
    return _MARKS[verdict.loads] + ("*" if other else "")


@cache
def _file(one: str, name: str, family: str) -> Subject:
    """A file with the first blocks of a denoiser, spelt in a dialect; its bytes are never asked for."""
    target, spoken = architecture(one), dialect(name.removesuffix(_PEFT))
    peft = name.endswith(_PEFT)
    tensors: dict[str, LazyTensor] = {}
    layers: dict[ModuleRef, Layer] = {}
    for ref, base in spoken.written(target).items():
        shape = target.shape(ref)
        if ref.component is not Component.DENOISER or shape is None or len(shape) < 2 or not _is_shown(ref.path):
            continue
        found = dict(_tensors(spoken, ref, shape, family))
        if not found:
            continue
        if peft:
            found.pop(Role.ALPHA, None)
        layers[ref] = Layer(found, base)
        suffixes = {role: spoken.suffix(Address(*ref, role)) for role in found}
        renamed = {Role.DOWN: ".lora_A.weight", Role.UP: ".lora_B.weight"} if peft else {}
        tensors.update({base + (suffixes | renamed)[role]: tensor for role, tensor in found.items()})
    file = SafetensorsFile(Path("memory"), tensors, {}, 0, 0, None)  # type: ignore[arg-type]  # nothing is read
    return Subject(file, group_tensors(tensors), Adapter(target, layers, dialect=name), None)


def _is_shown(path: str) -> bool:
    """Whether a layer is one that trainers change unasked: inside a block, of which the first two of each kind will do."""
    return bool(_BLOCK.search(f".{path}.")) and not _LATER.search(f".{path}.")


def _tensors(spoken: Dialect, ref: ModuleRef, shape: Shape, family: str) -> Iterator[tuple[Role, LazyTensor]]:
    roles = _FAMILIES[family](shape[0], shape[1], shape[2:])
    if not all(spoken.says(role, ref.component) for role in roles):
        return
    yield from ((role, LazyTensor("F16", sides, b"")) for role, sides in roles.items())
    if family not in _WITHOUT_ALPHA and spoken.says(Role.ALPHA, ref.component):
        yield Role.ALPHA, scalar_tensor(0.0 if "oft" in family else float(_SIDE))


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


LOADER_TABLES: dict[str, Callable[[], str]] = {
    "targets-read": targets,
    "loads-by-dialect": by_dialect,
    "loads-by-family": by_family,
    "loads-otherwise": differences,
}
