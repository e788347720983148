"""What a program loads, as tables: the keys it knows, the tensors it reads, and where it does something else with them.

One TOML a program in `hubtool/operations/loaders`, every row with the source it was read in. Keys are compared as they are
written in the file: a loader that knows `lora_unet_…` may not know `unet.…` of the same module.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import tomli

from hubtool.errors import UsageProblem
from hubtool.naming.address import Component
from hubtool.naming.dialect import dialect
from hubtool.naming.spelling import denoiser_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from hubtool.naming.architecture import Architecture

EFFECTS = ("refuses", "loses", "alters")
_FOLDER = Path(__file__).parent / "loaders"


@dataclass(frozen=True, slots=True, eq=False)  # one object a row: caches are keyed by it
class Names:
    """Keys that a loader knows: prefixes, and whose module paths may follow them."""

    source: str
    architectures: frozenset[str]  # empty: all that the program runs
    component: Component
    prefixes: tuple[str, ...]  # one that ends in "_" is followed by a flat path, any other by a dotted one
    paths: str  # whose: "diffusers", "original" (the authors'), "kohya" (as the architecture has it); encoders have one
    replaced: tuple[tuple[str, str], ...]  # what is written otherwise in the path, in this order
    only: tuple[str, ...]  # patterns of paths; empty: all
    but: tuple[str, ...]  # patterns of paths that are not known
    dialect: str  # or: everything that this dialect can spell
    needs: frozenset[str]  # only if the file has these keys
    every: tuple[str, ...]  # only if every key of the file fits one of these patterns
    bare: bool  # only if the header has no metadata

    @property
    def is_of_encoder(self) -> bool:
        """Whether these are keys of a text encoder."""
        return self.component is not Component.DENOISER

    def holds(self, keys: Collection[str], metadata: Mapping[str, str]) -> bool:
        """Whether the loader takes this road for a file with these keys and metadata."""
        if not self.needs <= set(keys) or (self.bare and metadata):
            return False
        return not self.every or all(fits(key, self.every) for key in keys)


@dataclass(frozen=True, slots=True)
class Family:
    """A parametrization that a loader reads: the tensors that make one, and those it uses beside them."""

    source: str
    id: str
    architectures: frozenset[str]
    any: tuple[frozenset[str], ...]  # suffixes; one of these sets has to be there
    beside: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a loader does to some modules that it would load otherwise; every condition given has to hold."""

    source: str
    says: str  # a clause that follows a count of modules
    effect: str  # "refuses" the whole file, "loses" the modules, or "alters" them: loaded, but not as meant
    architectures: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()  # patterns of what stands before the suffix in a key
    families: frozenset[str] = frozenset()
    modifiers: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()  # the module has one of these tensors
    has: frozenset[str] = frozenset()  # the module has all of these tensors
    lacks: frozenset[str] = frozenset()  # the module has none of these tensors
    paths: tuple[str, ...] = ()  # patterns of canonical (or fused) module paths
    components: frozenset[str] = frozenset()
    when: tuple[str, ...] = ()  # conditions of `hubtool.operations.conditions`


@dataclass(frozen=True, slots=True, eq=False)  # one object an id: caches are keyed by it
class Loader:
    """One program's table."""

    id: str
    title: str
    read: str  # repository, commit, date
    runs: frozenset[str]  # architectures
    runs_source: str
    names: tuple[Names, ...]
    families: tuple[Family, ...]
    rules: tuple[Rule, ...]
    most_unknown: int | None  # keys: a file with more unknown ones is refused as a whole
    most_unknown_source: str
    unread: str  # effect of a module that it knows by name and cannot read: "loses", or "refuses" the whole file
    mends: tuple[str, ...]  # dialects that are worth converting to, the best understood first
    delegates: Mapping[str, str]  # architecture → the loader that it is left to

    def known(self, architecture: Architecture, keys: Collection[str], metadata: Mapping[str, str]) -> frozenset[str]:
        """Everything that may stand before a suffix in a file of an architecture with these keys and metadata."""
        rows = (
            row for row in self.names if _concerns(row.architectures, architecture.id) and row.holds(keys, metadata)
        )
        return frozenset().union(*(_spelt(row, architecture) for row in rows))

    def family(self, id: str, architecture: str, suffixes: frozenset[str]) -> Family | None:
        """The row that reads a module of a family with these tensors; None if it is not loaded."""
        rows = (row for row in self.families if row.id == id and _concerns(row.architectures, architecture))
        return next((row for row in rows if any(needed <= suffixes for needed in row.any)), None)


@cache
def loaders() -> Mapping[str, Loader]:
    """All tables by id, in alphabetical order."""
    return MappingProxyType({path.stem: _read(path.stem) for path in sorted(_FOLDER.glob("*.toml"))})


def loader(id: str) -> Loader:
    """One program's table.

    Raises:
        UsageProblem: there is none.
    """
    if id not in loaders():
        raise UsageProblem(f"There is no target {id!r}.", hint=f"Choose from {', '.join(loaders())}.")
    return loaders()[id]


def loader_for(id: str, architecture: str) -> Loader:
    """The table that decides for an architecture: a program's own, or that of the library it leaves it to."""
    own = loader(id)
    return loader(own.delegates[architecture]) if architecture in own.delegates else own


# ---------------------------------------------------------------- keys


@lru_cache(maxsize=1024)
def _spelt(row: Names, architecture: Architecture) -> frozenset[str]:
    if row.dialect:
        readers = dialect(row.dialect).readers(architecture)
        found = {prefix + path: ref for prefix, paths, _ in readers for path, ref in paths.items()}
        return frozenset(key for key, ref in found.items() if ref.component is row.component)
    encoder = architecture.encoders.get(row.component)
    names = {"comfyui": encoder.comfyui, "diffusers": encoder.diffusers} if encoder else {}
    prefixes = [prefix.format(**names) for prefix in row.prefixes] if names or not row.is_of_encoder else []
    spelt: set[str] = set()
    for path in _paths(row, architecture):
        name = path
        for old, new in row.replaced:
            name = name.replace(old, new)
        spelt.update(prefix + (name.replace(".", "_") if prefix.endswith("_") else name) for prefix in prefixes)
    return frozenset(spelt)


def _paths(row: Names, architecture: Architecture) -> Iterator[str]:
    """Dotted module paths of a row's component, as its toolchain names them."""
    if row.component is Component.DENOISER:
        naming = architecture.kohya if row.paths == "kohya" else row.paths
        found: Sequence[str] = [name for _, name in denoiser_names(architecture, naming)]
    else:
        encoder = architecture.encoders.get(row.component)
        found = list(encoder.modules) if encoder else []
    return (path for path in found if fits(path, row.only or ("*",)) and not fits(path, row.but))


def fits(path: str, patterns: Sequence[str]) -> bool:
    """Whether any pattern, with `*` for anything, describes a path."""
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _concerns(architectures: frozenset[str], id: str) -> bool:
    return not architectures or id in architectures


# ---------------------------------------------------------------- tables


def _read(id: str) -> Loader:
    table = tomli.loads((_FOLDER / f"{id}.toml").read_text("utf-8"))
    if "like" in table:  # the same loader inside another program
        table = tomli.loads((_FOLDER / f"{table['like']}.toml").read_text("utf-8")) | table
    delegates = {name: to for to, names in table.get("delegates", {}).items() for name in names}
    return Loader(
        id=id,
        title=str(table["title"]),
        read=str(table["read"]),
        runs=frozenset(table["runs"]) | frozenset(delegates),
        runs_source=str(table["runs_source"]),
        names=tuple(names for row in table.get("names", []) for names in _names(row)),
        families=tuple(_family(row) for row in table.get("families", [])),
        rules=tuple(_rule(row) for row in table.get("rules", [])),
        most_unknown=table.get("most_unknown"),
        most_unknown_source=str(table.get("most_unknown_source", "")),
        unread=str(table.get("unread", "loses")),
        mends=tuple(table["mends"]),
        delegates=MappingProxyType(delegates),
    )


def _names(row: dict[str, object]) -> Iterator[Names]:
    """A row, once for each component that it speaks of."""
    pairs = [str(pair).split(" → ") for pair in _strings(row, "replaced")]
    for component in _strings(row, "component") or (Component.DENOISER.value,):
        yield Names(
            source=str(row["source"]),
            architectures=frozenset(_strings(row, "for")),
            component=Component(component),
            prefixes=_strings(row, "prefixes"),
            paths=str(row.get("paths", "diffusers")),
            replaced=tuple((old, new) for old, new in pairs),
            only=_strings(row, "only"),
            but=_strings(row, "but"),
            dialect=str(row.get("dialect", "")),
            needs=frozenset(_strings(row, "needs")),
            every=_strings(row, "every"),
            bare=row.get("header") == "bare",
        )


def _family(row: dict[str, object]) -> Family:
    return Family(
        source=str(row["source"]),
        id=str(row["id"]),
        architectures=frozenset(_strings(row, "for")),
        any=tuple(frozenset(text.split()) for text in _strings(row, "any")),
        beside=frozenset(" ".join(_strings(row, "beside")).split()),
    )


def _rule(row: dict[str, object]) -> Rule:
    return Rule(
        source=str(row["source"]),
        says=str(row["says"]),
        effect=str(row["effect"]),
        architectures=frozenset(_strings(row, "for")),
        keys=_strings(row, "keys"),
        families=frozenset(_strings(row, "families")),
        modifiers=frozenset(_strings(row, "modifiers")),
        suffixes=frozenset(_strings(row, "suffixes")),
        has=frozenset(_strings(row, "has")),
        lacks=frozenset(_strings(row, "lacks")),
        paths=_strings(row, "paths"),
        components=frozenset(_strings(row, "components")),
        when=_strings(row, "when"),
    )


def _strings(row: dict[str, object], key: str) -> tuple[str, ...]:
    value = row.get(key, [])
    return tuple(str(entry) for entry in value) if isinstance(value, list) else (str(value),)
