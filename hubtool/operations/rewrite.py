"""Another parametrization for an adapter, as `convert` is asked for it; torch is imported only where it is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubtool.adapters.dylora import first_directions, is_dylora
from hubtool.adapters.rewriting import fold_tucker, is_to_be_rewritten
from hubtool.errors import UsageProblem
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from pathlib import Path

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.naming.address import ModuleRef

Errors = dict["ModuleRef", float]
_NAMES = {"lora": "full-rank, sparse or DoRA modules"}  # forms of it that are no plain LoRA
_DYLORA = {"ss_network_module", "ss_network_args", "ss_network_dim", "ss_network_alpha"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What an adapter is to become."""

    parametrization: str  # "lora", "lokr" or "dylora"
    rank: int | None = None
    energy: float | None = None
    base: Path | None = None  # the model that it was made for


def rewritten(adapter: Adapter, dialect_id: str, wish: Wish) -> tuple[Adapter, Errors]:
    """The adapter in another parametrization, and the relative error of each module that is not what it was.

    `lora` leaves LoRA as it is, but for DyLoRA with a rank; `dylora` takes any LoRA for one and cuts it to the rank.

    Raises:
        UsageProblem: there is no way to this parametrization, or it is not said how exact it shall be.
        NotRepresentable: a module's change depends on the base model, and none is given.
        FileProblem, CheckpointProblem: the base model cannot be used.
    """
    if wish.parametrization == "lora":
        return _as_lora(adapter, dialect_id, wish)
    if wish.parametrization == "lokr":
        return _as_lokr(adapter, wish)
    if wish.parametrization == "dylora":
        if wish.rank is None:
            raise UsageProblem("Cutting a DyLoRA needs to know the rank.", hint="Give `--rank N`.")
        return _cut(adapter, wish.rank)
    message = f"Adapters cannot be rewritten as {wish.parametrization}."
    raise UsageProblem(message, hint="Use `--parametrization lora`, lokr or dylora.")


def _as_lora(adapter: Adapter, dialect_id: str, wish: Wish) -> tuple[Adapter, Errors]:
    adapter, errors = fold_tucker(adapter, dialect_id)
    if wish.rank is not None and is_dylora(adapter.metadata):
        adapter, cut = _cut(adapter, wish.rank)
        errors |= cut
    others = _others(adapter, with_base=wish.base is not None)
    if not others:
        return adapter, errors
    from hubtool.operations.as_lora import rank_rule, rewrite_as_lora  # noqa: PLC0415  # needs torch
    from hubtool.operations.base_weights import read_base  # noqa: PLC0415

    rule = rank_rule(wish.rank, wish.energy)
    if rule is None:
        message = f"Rewriting {', '.join(sorted(others))} as LoRA needs to know how exactly."
        raise UsageProblem(message, hint="Give `--rank N`, or `--energy E` such as 0.99.")
    base = read_base(wish.base, adapter.architecture) if wish.base else None
    adapter, made = rewrite_as_lora(adapter, rule, base)
    return adapter, errors | made


def _as_lokr(adapter: Adapter, wish: Wish) -> tuple[Adapter, Errors]:
    from hubtool.operations.as_lokr import rewrite_as_lokr  # noqa: PLC0415  # needs torch
    from hubtool.operations.base_weights import read_base  # noqa: PLC0415

    if wish.energy is not None:
        raise UsageProblem("A LoKr has no rank that an energy could decide.", hint="Give `--rank N`, or nothing.")
    base = read_base(wish.base, adapter.architecture) if wish.base else None
    return rewrite_as_lokr(adapter, wish.rank, base)


def _others(adapter: Adapter, *, with_base: bool) -> set[str]:
    """Families to be rewritten."""
    layers = ((adapter.architecture.shape(module), layer) for module, layer in adapter.layers.items())
    found = (layer for shape, layer in layers if is_to_be_rewritten(layer, shape, with_base=with_base))
    return {_NAMES.get(kind.id, kind.id) for layer in found if (kind := layer.parametrization)}


def _cut(adapter: Adapter, rank: int) -> tuple[Adapter, Errors]:
    """The LoRA of this rank inside a DyLoRA; the result is an ordinary LoRA, and says so."""
    layers = {module: first_directions(layer, rank) for module, layer in adapter.layers.items()}
    changed = [module for module, layer in layers.items() if layer is not adapter.layers[module]]
    if not changed:
        return adapter, {}
    errors = {module: _distance(adapter.layers[module], layers[module]) for module in changed}
    metadata = {key: text for key, text in adapter.metadata.items() if key not in _DYLORA}
    if "ss_network_module" in adapter.metadata:
        metadata |= {"ss_network_module": "networks.lora", "ss_network_dim": str(rank)}
    return replace(adapter, layers=layers, metadata=metadata), errors


def _distance(whole: Layer, cut: Layer) -> float:
    """‖ΔW − ΔW'‖ / ‖ΔW‖, from matrices of the rank's size."""
    up, down = (whole.float(role).flatten(1).double() for role in (Role.UP, Role.DOWN))
    ups, downs = up.T @ up, down @ down.T
    rest = ups.new_full((up.shape[1],), whole.scale)
    rest[: cut.rank] -= cut.scale
    norm = float((ups * downs).sum()) * whole.scale**2
    return (max(float((ups * downs * rest[:, None] * rest).sum()), 0.0) / norm) ** 0.5 if norm else 0.0
