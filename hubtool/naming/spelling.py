"""One consistent way to glue keys together: prefixes, a separator, whose module paths, and suffixes.

Reading is a lookup in a table of every path an architecture has in that spelling; tables are built once and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.traversal import numbered

if TYPE_CHECKING:
    from hubtool.naming.architecture import Architecture, EncoderModules, TextEncoder
    from hubtool.naming.suffixes import Suffixes

Respell = Callable[[str], Iterator[str]]
Paths = Mapping[str, ModuleRef]


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """How keys are put together; a dialect writes the first that speaks of a component, and reads them all.

    Prefix templates may name `{denoiser}` (unet, transformer) or, for text encoders, `{kohya}`, `{diffusers}`,
    `{comfyui}` and `{onetrainer}` as the architecture has them, `{root}` as the encoder has it, or our own `{component}`.
    """

    suffixes: Mapping[Role, Suffixes]
    denoiser: tuple[str, ...] = ()  # prefixes of denoiser keys; empty: this spelling has none
    encoder: tuple[str, ...] = ()  # prefixes of text-encoder keys
    separator: str = "."
    naming: str = "diffusers"  # whose module paths; see `denoiser_names`, and "kohya": the architecture says whose
    respell: Respell | None = None  # what a module path is rewritten to; the first is written, nothing: it has no name
    malformed: bool = False  # seen in files, written by nobody on purpose
    read_only: bool = False
    only: tuple[str, ...] = ()  # the architectures that it is of; none named: all
    any_word: bool = False  # the user of the tool chose the prefix: any one word, or none, in front of a flat path

    def speaks_of(self, component: Component) -> bool:
        """Whether it has keys for a component at all."""
        return bool(self.denoiser if component is Component.DENOISER else self.encoder)

    def is_of(self, architecture: Architecture) -> bool:
        """Whether there are such keys for an architecture."""
        return not self.only or architecture.id in self.only

    def role_of(self, suffix: str) -> Role:
        """What a suffix of this spelling means (`.scale` is not the same to all)."""
        return _roles(self)[suffix]

    def glue(self, prefix: str, path: str) -> str:
        """Prefix and path as one string."""
        return prefix + (path if self.separator == "." else path.replace(".", self.separator))

    def ways(self, path: str) -> Iterator[str]:
        """What a module path is called, the written way first."""
        return self.respell(path) if self.respell else iter((path,))

    def denoiser_prefixes(self, architecture: Architecture) -> list[str]:
        """Prefixes of denoiser keys, the written one first."""
        named = [prefix.format(denoiser=architecture.denoiser) for prefix in self.denoiser]
        apart = [f"{model}." for model in architecture.apart if "{denoiser}." in self.denoiser]
        return [*named, *apart, ""] if self.any_word else [*named, *apart]

    def encoder_prefixes(self, encoder: TextEncoder) -> Iterator[str]:
        """Prefixes of one text encoder's keys, the written one first."""
        for template in self.encoder:
            if "{kohya}" in template:
                yield from (template.format(kohya=slot) for slot in encoder.kohya)
            elif "{onetrainer}" in template:
                yield from (template.format(onetrainer=slot) for slot in encoder.onetrainer)
            else:
                names = {
                    "diffusers": encoder.diffusers,
                    "comfyui": encoder.comfyui,
                    "root": "".join(encoder.table.roots[:1]),
                }
                yield template.format(**names, component=encoder.component.value)


@lru_cache(maxsize=256)
def _roles(spelling: Spelling) -> Mapping[str, Role]:
    return {suffix: role for role, row in spelling.suffixes.items() for suffix in row}


class Reader(NamedTuple):
    """A prefix, and the paths that can follow it."""

    prefix: str
    paths: Paths
    spelling: Spelling


def readers(spelling: Spelling, architecture: Architecture) -> Iterator[Reader]:
    """Everything that a spelling can read of an architecture."""
    if not spelling.is_of(architecture):
        return
    naming = architecture.kohya if spelling.naming == "kohya" else spelling.naming
    for prefix in spelling.denoiser_prefixes(architecture):
        known = _denoiser_paths(architecture, naming, spelling.separator, spelling.respell)
        if prefix.removesuffix(".") in architecture.apart:
            known = {path.removeprefix(prefix): module for path, module in known.items() if path.startswith(prefix)}
        yield Reader(prefix, known if prefix or not spelling.any_word else AfterAnyWord(known), spelling)
    for component, encoder in architecture.encoders.items():
        for prefix in spelling.encoder_prefixes(encoder):
            style = _Style(spelling.naming == "numbered", spelling.separator, spelling.respell)
            paths = _encoder_paths(encoder.table, component, style)
            yield Reader(prefix, paths, spelling)


class AfterAnyWord(Mapping[str, ModuleRef]):
    """Flat paths that may have one word and an underscore in front of them."""

    def __init__(self, paths: Paths) -> None:
        """Take the paths as they are without the word."""
        self._paths = paths

    def __getitem__(self, base: str) -> ModuleRef:
        """The module of a path, or of what follows its first word where the whole is no path."""
        return self._paths[base if base in self._paths else base.partition("_")[2]]

    def __iter__(self) -> Iterator[str]:
        """The paths without the word."""
        return iter(self._paths)

    def __len__(self) -> int:
        """Number of paths."""
        return len(self._paths)


def written(spelling: Spelling, architecture: Architecture, *, encoders: bool) -> Iterator[tuple[ModuleRef, str]]:
    """Each module of the denoiser, or of the text encoders, and what is written before its suffix."""
    if not spelling.is_of(architecture):
        return
    if not encoders:
        naming = architecture.kohya if spelling.naming == "kohya" else spelling.naming
        prefix = spelling.denoiser_prefixes(architecture)[0]
        for module, name in denoiser_names(architecture, naming):
            fused = architecture.fused.get(module.path)
            way = next(spelling.ways(name), None)
            if way is not None and not (fused and fused.partial):
                is_apart = spelling.denoiser[0] == "{denoiser}." and way.partition(".")[0] in architecture.apart
                yield module, spelling.glue("" if is_apart else prefix, way)
        return
    for encoder in architecture.encoders.values():
        prefix = next(spelling.encoder_prefixes(encoder))
        for path in encoder.modules:
            way = next(spelling.ways(path), None)
            if way is not None:
                yield ModuleRef(encoder.component, path), spelling.glue(prefix, way)


def denoiser_names(architecture: Architecture, naming: str) -> Iterator[tuple[ModuleRef, str]]:
    """Each denoiser module that a naming has, with its path there; fused modules under the original namings.

    "second" is the authors' names where ComfyUI's differ, else the original ones; a fused module whose parts have
    second names of their own is not fused there. "split" is the authors' names with the parts of a fused module numbered
    (`qkv.0`), "numbered" no names at all (see `traversal`).
    """
    if naming == "diffusers":
        for path in architecture.modules:
            yield ModuleRef(Component.DENOISER, path), path
        return
    if naming in {"split", "numbered"}:
        yield from _split(architecture) if naming == "split" else numbered(Component.DENOISER, architecture.modules)
        return
    second = {path: name for name, path in architecture.second.items()} if naming == "second" else {}
    for path, name in architecture.original.items():
        yield ModuleRef(Component.DENOISER, path), second.pop(path, name)
    for name, fused in architecture.fused.items():
        if second.keys().isdisjoint(fused.parts):
            yield ModuleRef(Component.DENOISER, name), second.pop(name, name)
    for path, name in second.items():
        yield ModuleRef(Component.DENOISER, path), name


def _split(architecture: Architecture) -> Iterator[tuple[ModuleRef, str]]:
    for path, name in architecture.original.items():
        yield ModuleRef(Component.DENOISER, path), name
    for name, fused in architecture.fused.items():
        if fused.swapped:
            yield ModuleRef(Component.DENOISER, name), name
        elif not fused.partial:
            for index, part in enumerate(fused.parts):
                yield ModuleRef(Component.DENOISER, part), f"{name}.{index}"


def _read_names(architecture: Architecture, naming: str) -> Iterator[tuple[ModuleRef, str]]:
    """The names of a naming, and every second name that the authors have for a module."""
    yield from denoiser_names(architecture, naming)
    if naming in {"original", "second"}:
        for name, path in architecture.second.items():
            yield ModuleRef(Component.DENOISER, path), name


@lru_cache(maxsize=1024)
def _denoiser_paths(architecture: Architecture, naming: str, separator: str, respell: Respell | None) -> Paths:
    found: dict[str, ModuleRef] = {}
    for module, name in _read_names(architecture, naming):
        for way in respell(name) if respell else (name,):
            found[way.replace(".", separator)] = module
    return MappingProxyType(found)


class _Style(NamedTuple):
    """All of a spelling that changes a path: what spellings can share their tables by."""

    numbered: bool
    separator: str
    respell: Respell | None


@lru_cache(maxsize=1024)
def _encoder_paths(table: EncoderModules, component: Component, style: _Style) -> Paths:
    if style.numbered:
        return MappingProxyType({name: module for module, name in numbered(component, table.shapes)})
    found: dict[str, ModuleRef] = {}
    for path in table.shapes:
        # transformers >= 5.6 leaves the level text_model out
        for name in dict.fromkeys((path, path.removeprefix("text_model."), *(root + path for root in table.roots))):
            for way in style.respell(name) if style.respell else (name,):
                found[way.replace(".", style.separator)] = ModuleRef(component, path)
    return MappingProxyType(found)
