"""An architecture: module paths and weight shapes of one base model, read from one TOML file.

Rows are templates: braces list the values of an index (`{0..18}` or `{1,2,4}`), several braces in a path expand to
every combination, and the n-th brace of the original path follows the n-th brace of the canonical one.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import tomli

from hubtool.errors import UnknownArchitecture
from hubtool.naming.address import Component, ModuleRef

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Shape = tuple[int, ...]
_FOLDER = Path(__file__).parent  # not importlib.resources: 16 ms at every start
_BRACES = re.compile(r"\{([0-9.,]+)\}")


@dataclass(frozen=True, slots=True)
class Fused:
    """A module of the authors' own code that is not one canonical module.

    Either its rows stack those of `parts` in order, or (`swapped`) it is one module whose two halves of rows
    change places (adaLN: shift,scale ↔ scale,shift).
    """

    parts: tuple[str, ...]  # canonical paths
    rows: tuple[int, ...]  # rows of each part
    swapped: bool = False
    partial: bool = False  # names only some rows of a larger module: split when read, never joined into


@dataclass(frozen=True, slots=True, eq=False)  # one object a file, shared by architectures: caches are keyed by it
class EncoderModules:
    """The modules of one text encoder."""

    shapes: Mapping[str, Shape]
    roots: tuple[str, ...]  # levels that some classes have in front of the path; the first is ComfyUI's


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder as this architecture uses it: its modules, and what each toolchain calls it."""

    component: Component
    table: EncoderModules
    kohya: tuple[str, ...]  # the part between `lora_` and `_`; the first is written, all are read
    diffusers: str
    comfyui: str
    onetrainer: tuple[str, ...]

    @property
    def modules(self) -> Mapping[str, Shape]:
        """Path → weight shape."""
        return self.table.shapes


@dataclass(frozen=True, slots=True, eq=False)  # one object an id: caches are keyed by it
class Architecture:
    """One base model's modules. 1-D shapes are norms."""

    id: str
    title: str
    denoiser: str  # diffusers' name of the denoiser: "unet" or "transformer"
    kohya: str  # whose names kohya's flat keys follow: "diffusers", "original" or "second"
    prior: int  # the commoner of equal candidates has the smaller number
    hints: tuple[str, ...]  # beginnings of metadata values that name this architecture
    modules: Mapping[str, Shape]  # canonical path → weight shape
    original: Mapping[str, str]  # canonical path → the authors' path, where one module is one module
    fused: Mapping[str, Fused]  # original path → what it stacks
    encoders: Mapping[Component, TextEncoder]
    also: Mapping[str, tuple[Shape, ...]] = field(default_factory=dict)  # shapes of variants (inpainting, control)
    second: Mapping[str, str] = field(default_factory=dict)  # a second original path → canonical or fused path
    apart: tuple[
        str, ...
    ] = ()  # first levels of canonical paths that are models of their own beside diffusers' denoiser

    def shape(self, module: ModuleRef) -> Shape | None:
        """The weight shape of a module, fused ones included; None if there is no such module."""
        if module.component is not Component.DENOISER:
            encoder = self.encoders.get(module.component)
            return encoder.modules.get(module.path) if encoder else None
        if module.path in self.modules:
            return self.modules[module.path]
        fused = self.fused.get(module.path)
        return (sum(fused.rows), *self.modules[fused.parts[0]][1:]) if fused else None

    def shapes(self, module: ModuleRef) -> tuple[Shape, ...]:
        """Every weight shape the module has in some variant, the usual one first."""
        usual = self.shape(module)
        more = self.also.get(module.path, ()) if module.component is Component.DENOISER else ()
        return (usual, *more) if usual is not None else more


def expand(template: str) -> Iterator[str]:
    """All paths of a template, in order.

    >>> list(expand("b.{0..1}.attn.{1,3}"))
    ['b.0.attn.1', 'b.0.attn.3', 'b.1.attn.1', 'b.1.attn.3']
    """
    parts = _BRACES.split(template)
    values = [_values(text) for text in parts[1::2]]
    for chosen in itertools.product(*values):
        yield "".join(itertools.chain(*itertools.zip_longest(parts[::2], chosen, fillvalue="")))


def _values(text: str) -> list[str]:
    if ".." in text:
        first, last = text.split("..")
        return [str(number) for number in range(int(first), int(last) + 1)]
    return text.split(",")


@lru_cache(maxsize=1)
def architecture_ids() -> tuple[str, ...]:
    """Ids of all known architectures, in alphabetical order."""
    return tuple(sorted(path.stem for path in (_FOLDER / "architectures").glob("*.toml")))


@cache
def architecture(id: str) -> Architecture:
    """The architecture with this id.

    Raises:
        UnknownArchitecture: there is none; the message lists near misses.
    """
    if id not in architecture_ids():
        import difflib  # noqa: PLC0415  # only on the way to an error

        close = difflib.get_close_matches(id, architecture_ids(), 3, 0.4) or architecture_ids()[:8]
        raise UnknownArchitecture(f"There is no architecture {id!r}.", hint=f"Perhaps {', '.join(close)}.")
    return _parse(_read("architectures", id))


def templates(id: str) -> list[str]:
    """Every denoiser path template of an architecture, canonical and original, without expanding any."""
    table = _read("architectures", id)
    rows = _list(table["modules"])
    names = [name for row in rows for name in (row[0], *row[2:])]
    tables = ("fused", "partial", "swapped", "second")
    return [*names, *(row[0] for key in tables for row in _list(table.get(key, [])))]


def encoder_templates(id: str) -> list[str]:
    """Every path template of an architecture's text encoders, without expanding any."""
    encoders = _read("architectures", id).get("text_encoders", {})
    names = [str(row["names"]) for row in encoders.values()] if isinstance(encoders, dict) else []
    return [str(row[0]) for name in names for row in _list(_read("encoders", name)["modules"])]


@cache
def _read(folder: str, name: str) -> dict[str, object]:
    return tomli.loads((_FOLDER / folder / f"{name}.toml").read_text("utf-8"))


@cache
def _encoder_modules(name: str) -> EncoderModules:
    table = _read("encoders", name)
    shapes, _ = _module_rows(table["modules"])
    return EncoderModules(shapes, tuple(_strings(table.get("roots", []))))


def _parse(table: dict[str, object]) -> Architecture:
    modules, original = _module_rows(table["modules"])
    encoders = table.get("text_encoders", {})
    if not isinstance(encoders, dict):
        raise TypeError("text_encoders is not a table")
    return Architecture(
        id=str(table["id"]),
        title=str(table["title"]),
        denoiser=str(table["denoiser"]),
        kohya=str(table.get("kohya", "original")),
        prior=int(str(table.get("prior", 100))),
        hints=tuple(_strings(table.get("hints", []))),
        modules=modules,
        original=original,
        fused=MappingProxyType(dict(_fused_rows(table, modules))),
        encoders={Component(name): _encoder(Component(name), row) for name, row in encoders.items()},
        also=_also(table.get("also", [])),
        second=_second(table.get("second", [])),
        apart=tuple(_strings(table.get("apart", []))),
    )


def _module_rows(rows: object) -> tuple[Mapping[str, Shape], Mapping[str, str]]:
    """Rows of (canonical template, shape, original template); "=" means the same path, nothing means no 1:1 original."""
    modules: dict[str, Shape] = {}
    original: dict[str, str] = {}
    for template, shape, *names in _list(rows):
        paths = list(expand(template))
        modules.update(dict.fromkeys(paths, tuple(shape)))
        if names:
            original.update(zip(paths, paths if names[0] == "=" else expand(names[0]), strict=True))
    return MappingProxyType(modules), MappingProxyType(original)


def _fused_rows(table: dict[str, object], modules: Mapping[str, Shape]) -> Iterator[tuple[str, Fused]]:
    for key in ("fused", "partial"):
        for template, parts in _list(table.get(key, [])):
            columns = [expand(part) for part in parts]
            for path, members in zip(expand(template), zip(*columns, strict=True), strict=True):
                rows = tuple(modules[member][0] for member in members)
                yield path, Fused(members, rows, partial=key == "partial")
    for template, part in _list(table.get("swapped", [])):
        for path, member in zip(expand(template), expand(part), strict=True):
            yield path, Fused((member,), (modules[member][0],), swapped=True)


def _also(rows: object) -> Mapping[str, tuple[Shape, ...]]:
    found: dict[str, tuple[Shape, ...]] = {}
    for template, shape in _list(rows):
        for path in expand(template):
            found[path] = (*found.get(path, ()), tuple(shape))
    return MappingProxyType(found)


def _second(rows: object) -> Mapping[str, str]:
    pairs = ((expand(template), expand(path)) for template, path in _list(rows))
    return MappingProxyType({name: path for names, paths in pairs for name, path in zip(names, paths, strict=True)})


def _encoder(component: Component, row: dict[str, object]) -> TextEncoder:
    kohya = tuple(_strings(row["kohya"]))
    return TextEncoder(
        component,
        _encoder_modules(str(row["names"])),
        kohya,
        str(row["diffusers"]),
        str(row["comfyui"]),
        tuple(_strings(row.get("onetrainer", list(kohya)))),
    )


def _list(value: object) -> list[list[Any]]:  # rows of our own data files; a test reads them all
    if not isinstance(value, list):
        raise TypeError(f"not a list of rows: {value!r}")
    return value


def _strings(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else [str(value)]
