"""A dialect: how one family of tools spells keys. Prefix, module path and suffix are tables; nothing is guessed."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from hubtool.errors import NotRepresentable, UnknownDialect
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.spelling import Reader, Spelling, readers, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.naming.architecture import Architecture


#: How roles begin that a LoRA of the same change does without.
_OTHER_FAMILIES = frozenset({"mid", "hada", "lokr", "oft", "boft", "ia3", "glora"})


@dataclass(frozen=True, slots=True, eq=False)
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
        spelling = self.spelling_of(address.component)
        if spelling and address.role in spelling.suffixes:
            return spelling.suffixes[address.role][0]
        said_as_lora = address.role is Role.DIFF or address.role.value.partition("_")[0] in _OTHER_FAMILIES
        hint = "`--parametrization lora --rank N` makes a LoRA of it." if said_as_lora else None
        raise NotRepresentable(address.module, f"The {self.id} dialect cannot say {address.role.value}.", hint=hint)

    def says(self, role: Role, component: Component = Component.DENOISER) -> bool:
        """Whether a tensor of this role can be written."""
        spelling = self.spelling_of(component)
        return spelling is not None and role in spelling.suffixes

    def spelling_of(self, component: Component) -> Spelling | None:
        """The spelling that a component's keys are written in; None if they are only read."""
        speaking = (spelling for spelling in self.spellings if spelling.speaks_of(component))
        return next((spelling for spelling in speaking if not (spelling.read_only or spelling.malformed)), None)

    @property
    def is_written(self) -> bool:
        """Whether anything can be written in this dialect; some are of tools that are no more, and only read."""
        return any(self.spelling_of(component) for component in Component)

    @property
    def keeps_names(self) -> bool:
        """Whether its suffixes can follow any module's name: it is of no model in particular, and rewrites no path."""
        spelling = self.spelling_of(Component.DENOISER)
        return spelling is not None and not (spelling.only or spelling.respell)

    def written(self, architecture: Architecture) -> Mapping[ModuleRef, str]:
        """What is written before the suffix, for each module this dialect names."""
        return _written(self, architecture)

    def readers(self, architecture: Architecture, *, malformed: bool = False) -> tuple[Reader, ...]:
        """Everything that can stand before a suffix, as prefixes and tables of paths."""
        return _readers(self, architecture, malformed=malformed)


@lru_cache(maxsize=1024)
def _written(spoken: Dialect, architecture: Architecture) -> Mapping[ModuleRef, str]:
    found: dict[ModuleRef, str] = {}
    for component in (Component.DENOISER, Component.CLIP_L):  # any encoder: they are all spelt alike
        spelling = spoken.spelling_of(component)
        if spelling:
            found.update(written(spelling, architecture, encoders=component is not Component.DENOISER))
    return MappingProxyType(found)


@lru_cache(maxsize=1024)
def _readers(spoken: Dialect, architecture: Architecture, *, malformed: bool) -> tuple[Reader, ...]:
    chosen = (spelling for spelling in spoken.spellings if spelling.malformed == malformed)
    return tuple(reader for spelling in chosen for reader in readers(spelling, architecture))


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


def written_dialect(id: str) -> Dialect:
    """The dialect with this id, if it can be written.

    Raises:
        UnknownDialect: there is none.
        NotRepresentable: it is only read.
    """
    found = dialect(id)
    if not found.is_written:
        writable = ", ".join(known.id for known in dialects().values() if known.is_written)
        raise NotRepresentable("", f"The {id} dialect is read but not written.", hint=f"Write one of {writable}.")
    return found
