"""Files ⇄ adapters: decode every key to an address, spell every address in a dialect."""

from __future__ import annotations

from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.grouping import Grouped, group_tensors
from hubtool.adapters.layer import Layer
from hubtool.adapters.recorded import config_beside, recorded_scales, recorded_terms
from hubtool.errors import KeyClash, NotAnAdapter, NotRepresentable, UnknownArchitecture
from hubtool.formats.atomic import atomic_output
from hubtool.formats.safetensors import SafetensorsFile, read_safetensors, write_safetensors
from hubtool.naming.address import Address, ModuleRef, Role
from hubtool.naming.architecture import Architecture, architecture
from hubtool.naming.dialect import dialect, dialects
from hubtool.naming.identify import Base, Candidate, Extent, Identification, explain, identify
from hubtool.naming.unknown import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hubtool.formats.tensor import LazyTensor


def read_adapter(path: Path, *, architecture_id: str | None = None) -> Adapter:
    """Read a file into the neutral form. Header only: tensors stay on disk until somebody looks at them.

    Raises:
        FileProblem: the file is no sound safetensors file.
        NotAnAdapter: it holds no adapter's tensors.
        UnknownArchitecture: no architecture explains half of them, or not the one asked for.
    """
    return decode(read_safetensors(path), architecture_id=architecture_id)


def decode(file: SafetensorsFile, *, architecture_id: str | None = None) -> Adapter:
    """The adapter in an open file (see `read_adapter`)."""
    grouped = group_tensors(file.tensors)
    name = file.path.name
    if not grouped.tensors:
        raise NotAnAdapter(
            "", f"{name} holds no LoRA tensors.", hint=f"`hubtool inspect {quote(name)}` says what it is."
        )
    found = identify_file(file, grouped)
    best = _chosen(found, architecture_id, grouped)
    if best is None:
        wanted = f"the {architecture_id} architecture" if architecture_id else "any known architecture"
        raise UnknownArchitecture(
            f"The keys of {name} do not fit {wanted}.", hint=f"See `hubtool inspect {quote(name)}`."
        )
    return _assemble(file, grouped, best, found)


def identify_file(file: SafetensorsFile, grouped: Grouped) -> Identification:
    """Ranked explanations of a file's keys."""
    return identify(grouped.groups, grouped.size, file.metadata)


def _chosen(found: Identification, architecture_id: str | None, grouped: Grouped) -> Candidate | None:
    if architecture_id is None:
        return found.best
    for candidate in found.candidates:
        if candidate.architecture == architecture_id:
            return candidate
    target = architecture(architecture_id)
    groups = grouped.groups
    tries = [(spoken.id, explain(target, spoken, groups)) for spoken in dialects().values()]
    id, explained = max(tries, key=lambda pair: len(pair[1]))
    if 2 * len(explained) < len(groups):
        return None
    return Candidate(
        id, architecture_id, len(explained) / len(groups), 0.0, malformed=False, evidence=(), explained=explained
    )


class _Decoded(NamedTuple):
    """Where each base of a file went."""

    meanings: Mapping[str, Base]
    mixed: tuple[str, ...]


def _decode_bases(target: Architecture, grouped: Grouped, best: Candidate) -> _Decoded:
    """The best dialect first, then the others, then the best again by name alone; what happened is reported."""
    groups = grouped.groups
    meanings = dict(best.explained)
    mixed = []
    for spoken in dialects().values():
        rest = [group for group in groups if group.base not in meanings]
        if spoken.id != best.dialect and rest:
            more = explain(target, spoken, rest)
            meanings |= more
            mixed += [spoken.id] * bool(more)
    rest = [group._replace(extent=Extent()) for group in groups if group.base not in meanings]
    meanings |= explain(target, dialect(best.dialect), rest)
    return _Decoded(meanings, tuple(mixed))


def _fits(target: Architecture, module: ModuleRef, extent: Extent) -> bool:
    return any(extent.fits(shape) for shape in target.shapes(module))


def _assemble(file: SafetensorsFile, grouped: Grouped, best: Candidate, found: Identification) -> Adapter:
    target = architecture(best.architecture)
    decoded = _decode_bases(target, grouped, best)
    tensors: dict[ModuleRef, dict[Role, LazyTensor]] = {}
    bases: dict[ModuleRef, str] = {}
    leftovers = dict(grouped.others)
    duplicates: dict[str, Address] = {}
    for base, rows in grouped.tensors.items():
        meaning = decoded.meanings.get(base)
        for suffix, tensor in rows.items():
            key = grouped.keys[base, suffix]
            if meaning is None:
                leftovers[key] = tensor
                continue
            layer, role = tensors.setdefault(meaning.module, {}), meaning.spelling.role_of(suffix)
            if role in layer:
                duplicates[key] = Address(*meaning.module, role)
                leftovers[key] = tensor
                continue
            layer[role] = tensor
            bases.setdefault(meaning.module, base)
    layers = {module: Layer(rows, bases[module]) for module, rows in tensors.items()}
    metadata = file.metadata
    if not dialect(best.dialect).says(Role.ALPHA):
        metadata = {**metadata, **(config_beside(file.path) if best.dialect == "peft" else {})}
        scales, terms = recorded_scales(target, metadata, layers), recorded_terms(metadata)
        layers = {
            module: replace(layer, recorded_scale=scales.get(module), series_terms=terms)
            for module, layer in layers.items()
        }
    return Adapter(
        architecture=target,
        layers=layers,
        metadata=metadata,
        leftovers=leftovers,
        dialect=best.dialect,
        malformed=any(meaning.spelling.malformed for meaning in decoded.meanings.values()),
        mixed=decoded.mixed,
        # not by the groups' extents: what a suffix is depends on the dialect, and a module may be spelt in two ways
        misfits=tuple(module for module, layer in layers.items() if not _fits(target, module, layer.extent)),
        duplicates=duplicates,
        identification=found,
    )


def encode(adapter: Adapter, dialect_id: str) -> dict[str, LazyTensor]:
    """Key → tensor in a dialect that names every module as the adapter holds it (see `hubtool.adapters.fusion`).

    Modules of an unknown architecture keep the names they had; only suffixes follow the dialect.

    Raises:
        NotRepresentable: the dialect has no spelling for a module or a role.
        KeyClash: two tensors would get one key.
    """
    spoken, target = dialect(dialect_id), adapter.architecture
    if target.id == UNKNOWN and not spoken.keeps_names:
        message = f"The {dialect_id} dialect has no names for a base model that hubtool does not know."
        raise NotRepresentable(
            "", message, hint="Write kohya, comfyui, diffusers or peft: their suffixes fit any name."
        )
    found: dict[str, LazyTensor] = {}
    for module, layer in adapter.layers.items():
        base = layer.base if target.id == UNKNOWN else spoken.base(target, module)
        for role, tensor in layer.tensors.items():
            key = base + spoken.suffix(Address(module.component, module.path, role))
            if key in found:
                raise KeyClash(f"Two tensors would be called {key}.")
            found[key] = tensor
    for key, tensor in adapter.leftovers.items():
        if key in found:
            raise KeyClash(f"A tensor that was not understood has the name {key}, which is taken.")
        found[key] = tensor
    return found


def write_adapter(path: Path, adapter: Adapter, dialect_id: str, *, force: bool = False) -> None:
    """Write an adapter in a dialect: all at once or not at all.

    Raises:
        OutputExists, DiskFull, StorageProblem: from the disk.
        NotRepresentable, KeyClash: see `encode`.
    """
    tensors = encode(adapter, dialect_id)
    with atomic_output(path, force=force) as out:
        write_safetensors(out, tensors, adapter.metadata)
