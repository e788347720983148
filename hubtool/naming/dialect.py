"""A dialect: how one family of tools spells keys. Prefix, module path and suffix are three tables; nothing is guessed.

Reading is a lookup: `bases` lists everything a (dialect, architecture) can spell in front of the suffix.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hubtool.errors import NotRepresentable, UnknownDialect
from hubtool.naming.address import Address, Component, ModuleRef, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hubtool.naming.architecture import Architecture, TextEncoder
    from hubtool.naming.suffixes import Suffixes


@dataclass(frozen=True, slots=True)
class Spelling:
    """One consistent way to glue keys together; a dialect writes the first that speaks of a component, and reads them all.

    Prefix templates may name `{denoiser}` (unet, transformer) or, for text encoders, `{kohya}`, `{diffusers}`,
    `{comfyui}` and `{onetrainer}` as the architecture has them.
    """

    suffixes: Mapping[Role, Suffixes]
    denoiser: tuple[str, ...] = ()  # prefixes of denoiser keys; empty: this spelling has none
    encoder: tuple[str, ...] = ()  # prefixes of text-encoder keys
    separator: str = "."
    naming: str = "diffusers"  # whose module paths: "diffusers", "original", or "kohya" (the architecture says)
    respell: Callable[[str], Iterator[str]] | None = None  # what else a module path is rewritten to, if anything
    malformed: bool = False  # seen in files, written by nobody on purpose

    def paths(self, architecture: Architecture) -> Iterator[tuple[ModuleRef, str]]:
        """Each denoiser module and its path in this spelling, before prefix and separator."""
        naming = architecture.kohya if self.naming == "kohya" else self.naming
        if naming == "diffusers":
            named: Iterator[tuple[str, str]] = ((path, path) for path in architecture.modules)
        else:
            named = ((path, name) for path, name in architecture.original.items())
        for path, name in named:
            yield ModuleRef(Component.DENOISER, path), name
        if naming == "original":
            for name in architecture.fused:
                yield ModuleRef(Component.DENOISER, name), name

    def glue(self, prefix: str, path: str) -> str:
        """Prefix and path as one string."""
        return prefix + (path if self.separator == "." else path.replace(".", self.separator))


class Base(NamedTuple):
    """What the part of a key in front of the suffix means, and in which spelling it is."""

    module: ModuleRef
    spelling: Spelling


@dataclass(frozen=True, slots=True)
class Dialect:
    """A named way of spelling keys, with its source."""

    id: str
    source: str
    spellings: tuple[Spelling, ...]
    rank_order: int = 50  # among dialects that explain a file equally well, the smaller number is meant

    def encode(self, architecture: Architecture, address: Address) -> str:
        """The key of an address.

        Raises:
            NotRepresentable: this dialect has no spelling for the component, the module or the role.
        """
        return self.base(architecture, ModuleRef(address.component, address.module)) + self.suffix(address)

    def base(self, architecture: Architecture, module: ModuleRef) -> str:
        """The key of a module without its suffix (see `encode`)."""
        base = self.written(architecture).get(module)
        if base is None:
            message = f"The {self.id} dialect has no name for {module.path} ({module.component.value})."
            raise NotRepresentable(module.path, message)
        return base

    def suffix(self, address: Address) -> str:
        """The suffix written for an address's role (see `encode`)."""
        spelling = next((s for s in self.spellings if _speaks(s, address.component)), None)
        if spelling and address.role in spelling.suffixes:
            return spelling.suffixes[address.role][0]
        raise NotRepresentable(address.module, f"The {self.id} dialect cannot say {address.role.value}.")

    def says(self, role: Role, component: Component = Component.DENOISER) -> bool:
        """Whether a tensor of this role can be written."""
        spelling = next((s for s in self.spellings if _speaks(s, component)), None)
        return spelling is not None and role in spelling.suffixes

    def bases(self, architecture: Architecture) -> Mapping[str, tuple[Base, ...]]:
        """Everything that can stand before a suffix; more than one meaning only where spellings differ in suffixes."""
        return _bases(self.id, architecture.id)

    def written(self, architecture: Architecture) -> Mapping[ModuleRef, str]:
        """What is written before the suffix, for each module this dialect names."""
        return _written(self.id, architecture.id)

    def prefixes(self, architecture: Architecture) -> frozenset[str]:
        """Every beginning of a key, to see cheaply whether a file can be of this dialect."""
        return _prefixes(self.id, architecture.id)


def _speaks(spelling: Spelling, component: Component) -> bool:
    return bool(spelling.denoiser if component is Component.DENOISER else spelling.encoder)


def _spell(spelling: Spelling, architecture: Architecture) -> Iterator[tuple[ModuleRef, list[str]]]:
    """Each module of the spelling with all its bases, the written one first."""
    prefixes = [prefix.format(denoiser=architecture.denoiser) for prefix in spelling.denoiser]
    if prefixes:
        for module, path in spelling.paths(architecture):
            yield module, _all_ways(spelling, prefixes, path)
    if spelling.encoder:
        for encoder in architecture.encoders.values():
            beginnings = list(encoder_prefixes(spelling, encoder))
            for path in encoder.modules:
                ways = _all_ways(spelling, beginnings, path)
                if path.startswith("text_model."):  # transformers >= 5.6 leaves this level out
                    ways += _all_ways(spelling, beginnings, path.removeprefix("text_model."))
                yield ModuleRef(encoder.component, path), ways


def _all_ways(spelling: Spelling, prefixes: list[str], path: str) -> list[str]:
    paths = [path] if spelling.respell is None else list(spelling.respell(path))
    return [spelling.glue(prefix, way) for way in paths for prefix in prefixes]


def encoder_prefixes(spelling: Spelling, encoder: TextEncoder) -> Iterator[str]:
    """The prefixes of one text encoder's keys, the written one first."""
    for template in spelling.encoder:
        if "{kohya}" in template:
            yield from (template.format(kohya=slot) for slot in encoder.kohya)
        elif "{onetrainer}" in template:
            yield from (template.format(onetrainer=slot) for slot in encoder.onetrainer)
        else:
            yield template.format(diffusers=encoder.diffusers, comfyui=encoder.comfyui)


@lru_cache(maxsize=256)
def _bases(dialect_id: str, architecture_id: str) -> Mapping[str, tuple[Base, ...]]:
    from hubtool.naming.architecture import architecture as load  # noqa: PLC0415  # the cache is keyed by ids

    found: dict[str, tuple[Base, ...]] = {}
    for spelling in dialect(dialect_id).spellings:
        for module, ways in _spell(spelling, load(architecture_id)):
            meaning = Base(module, spelling)
            for base in ways:
                found[base] = (*found[base], meaning) if base in found else (meaning,)
    return MappingProxyType(found)


@lru_cache(maxsize=256)
def _written(dialect_id: str, architecture_id: str) -> Mapping[ModuleRef, str]:
    from hubtool.naming.architecture import architecture as load  # noqa: PLC0415  # the cache is keyed by ids

    found: dict[ModuleRef, str] = {}
    spoken = dialect(dialect_id)
    for component in (Component.DENOISER, Component.CLIP_L):
        spelling = next((s for s in spoken.spellings if _speaks(s, component)), None)
        for module, ways in _spell(spelling, load(architecture_id)) if spelling else ():
            if (module.component is Component.DENOISER) == (component is Component.DENOISER):
                found[module] = ways[0]
    return MappingProxyType(found)


@lru_cache(maxsize=256)
def _prefixes(dialect_id: str, architecture_id: str) -> frozenset[str]:
    from hubtool.naming.architecture import architecture as load  # noqa: PLC0415  # the cache is keyed by ids

    found: set[str] = set()
    target = load(architecture_id)
    for spelling in dialect(dialect_id).spellings:
        found.update(prefix.format(denoiser=target.denoiser) for prefix in spelling.denoiser)
        for encoder in target.encoders.values():
            found.update(encoder_prefixes(spelling, encoder))
    return frozenset(found)


@lru_cache(maxsize=1)
def dialects() -> Mapping[str, Dialect]:
    """All dialects by id: one file each in `hubtool.naming.dialects`."""
    package = importlib.import_module("hubtool.naming.dialects")
    found: dict[str, Dialect] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        found[module.DIALECT.id] = module.DIALECT
    return MappingProxyType(found)


def dialect(id: str) -> Dialect:
    """The dialect with this id.

    Raises:
        UnknownDialect: there is none.
    """
    if id not in dialects():
        raise UnknownDialect(f"There is no dialect {id!r}.", hint=f"Choose one of {', '.join(dialects())}.")
    return dialects()[id]
