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

if TYPE_CHECKING:
    from hubtool.naming.architecture import Architecture, TextEncoder
    from hubtool.naming.suffixes import Suffixes

Respell = Callable[[str], Iterator[str]]
Paths = Mapping[str, ModuleRef]


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """How keys are put together; a dialect writes the first that speaks of a component, and reads them all.

    Prefix templates may name `{denoiser}` (unet, transformer) or, for text encoders, `{kohya}`, `{diffusers}`,
    `{comfyui}` and `{onetrainer}` as the architecture has them.
    """

    suffixes: Mapping[Role, Suffixes]
    denoiser: tuple[str, ...] = ()  # prefixes of denoiser keys; empty: this spelling has none
    encoder: tuple[str, ...] = ()  # prefixes of text-encoder keys
    separator: str = "."
    naming: str = "diffusers"  # whose module paths: "diffusers", "original", or "kohya" (the architecture says)
    respell: Respell | None = None  # what else a module path is rewritten to, if anything
    malformed: bool = False  # seen in files, written by nobody on purpose

    def speaks_of(self, component: Component) -> bool:
        """Whether it has keys for a component at all."""
        return bool(self.denoiser if component is Component.DENOISER else self.encoder)

    def role_of(self, suffix: str) -> Role:
        """What a suffix of this spelling means (`.scale` is not the same to all)."""
        return _roles(self)[suffix]

    def glue(self, prefix: str, path: str) -> str:
        """Prefix and path as one string."""
        return prefix + (path if self.separator == "." else path.replace(".", self.separator))

    def denoiser_prefixes(self, architecture: Architecture) -> list[str]:
        """Prefixes of denoiser keys, the written one first."""
        return [prefix.format(denoiser=architecture.denoiser) for prefix in self.denoiser]

    def encoder_prefixes(self, encoder: TextEncoder) -> Iterator[str]:
        """Prefixes of one text encoder's keys, the written one first."""
        for template in self.encoder:
            if "{kohya}" in template:
                yield from (template.format(kohya=slot) for slot in encoder.kohya)
            elif "{onetrainer}" in template:
                yield from (template.format(onetrainer=slot) for slot in encoder.onetrainer)
            else:
                yield template.format(diffusers=encoder.diffusers, comfyui=encoder.comfyui)


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
    naming = architecture.kohya if spelling.naming == "kohya" else spelling.naming
    for prefix in spelling.denoiser_prefixes(architecture):
        yield Reader(prefix, _denoiser_paths(architecture, naming, spelling.separator, spelling.respell), spelling)
    for component, encoder in architecture.encoders.items():
        for prefix in spelling.encoder_prefixes(encoder):
            paths = _encoder_paths(architecture, component, spelling.separator, spelling.respell)
            yield Reader(prefix, paths, spelling)


def written(spelling: Spelling, architecture: Architecture, *, encoders: bool) -> Iterator[tuple[ModuleRef, str]]:
    """Each module of the denoiser, or of the text encoders, and what is written before its suffix."""
    if not encoders:
        naming = architecture.kohya if spelling.naming == "kohya" else spelling.naming
        prefix = spelling.denoiser_prefixes(architecture)[0]
        for module, name in denoiser_names(architecture, naming):
            fused = architecture.fused.get(module.path)
            if not (fused and fused.partial):
                yield module, spelling.glue(prefix, name)
        return
    for encoder in architecture.encoders.values():
        prefix = next(spelling.encoder_prefixes(encoder))
        for path in encoder.modules:
            yield ModuleRef(encoder.component, path), spelling.glue(prefix, path)


def denoiser_names(architecture: Architecture, naming: str) -> Iterator[tuple[ModuleRef, str]]:
    """Each denoiser module that a naming has, with its path there; fused modules under the original naming."""
    if naming == "diffusers":
        for path in architecture.modules:
            yield ModuleRef(Component.DENOISER, path), path
        return
    for path, name in architecture.original.items():
        yield ModuleRef(Component.DENOISER, path), name
    for name in architecture.fused:
        yield ModuleRef(Component.DENOISER, name), name


@lru_cache(maxsize=1024)
def _denoiser_paths(architecture: Architecture, naming: str, separator: str, respell: Respell | None) -> Paths:
    found: dict[str, ModuleRef] = {}
    for module, name in denoiser_names(architecture, naming):
        for way in respell(name) if respell else (name,):
            found[way.replace(".", separator)] = module
    return MappingProxyType(found)


@lru_cache(maxsize=1024)
def _encoder_paths(architecture: Architecture, component: Component, separator: str, respell: Respell | None) -> Paths:
    found: dict[str, ModuleRef] = {}
    for path in architecture.encoders[component].modules:
        # transformers >= 5.6 leaves the level text_model out
        for name in dict.fromkeys((path, path.removeprefix("text_model."))):
            for way in respell(name) if respell else (name,):
                found[way.replace(".", separator)] = ModuleRef(component, path)
    return MappingProxyType(found)
