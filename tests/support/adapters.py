"""Small adapters of real modules: names from the tables under test, shapes from the base model, values of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support.files import Raw, number, random_tensor
from support.lazy import lazy

from hubtool.adapters.codec import decode
from hubtool.formats.safetensors import SafetensorsFile
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hubtool.adapters.adapter import Adapter

Shape = tuple[int, ...]


def denoiser(*paths: str) -> list[ModuleRef]:
    """Modules of the UNet or transformer."""
    return [ModuleRef(Component.DENOISER, path) for path in paths]


def modules_like(architecture_id: str, *endings: str) -> list[ModuleRef]:
    """Denoiser modules, canonical or fused, whose path ends so."""
    target = architecture(architecture_id)
    return [ref for ref in denoiser(*target.modules, *target.fused) if ref.path.endswith(endings)]


def pair(weight: Shape, rank: int, seed: int, dtype: str = "F16") -> dict[Role, Raw]:
    """A LoRA's two factors for a weight of this shape."""
    ones = (1,) * (len(weight) - 2)
    return {
        Role.DOWN: random_tensor(2 * seed, (rank, *weight[1:]), dtype),
        Role.UP: random_tensor(2 * seed + 1, (weight[0], rank, *ones), dtype),
    }


def spelt(architecture_id: str, dialect_id: str, tensors: Mapping[ModuleRef, Mapping[Role, Raw]]) -> dict[str, Raw]:
    """Keys of a dialect for tensors by module and role."""
    target, spoken = architecture(architecture_id), dialect(dialect_id)
    return {
        spoken.encode(target, Address(module.component, module.path, role)): tensor
        for module, rows in tensors.items()
        for role, tensor in rows.items()
    }


def lora(
    architecture_id: str,
    dialect_id: str,
    modules: Iterable[ModuleRef],
    *,
    rank: int = 4,
    alpha: float | None = None,
    dtype: str = "F16",
) -> dict[str, Raw]:
    """A LoRA file's tensors; `alpha` adds alpha tensors in F32."""
    target = architecture(architecture_id)
    tensors: dict[ModuleRef, dict[Role, Raw]] = {}
    for seed, module in enumerate(modules):
        shape = target.shape(module)
        assert shape is not None, module
        tensors[module] = pair(shape, rank, seed, dtype)
        if alpha is not None:
            tensors[module][Role.ALPHA] = number(alpha)
    return spelt(architecture_id, dialect_id, tensors)


def in_memory(tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> SafetensorsFile:
    """An open file that lies nowhere."""
    return SafetensorsFile(Path("memory.safetensors"), lazy(tensors), dict(metadata or {}), 0, 0, None)  # type: ignore[arg-type]


def decoded(
    tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None, architecture_id: str | None = None
) -> Adapter:
    """The neutral form of these tensors."""
    return decode(in_memory(tensors, metadata), architecture_id=architecture_id)
