"""One module's change: its tensors by role, and what they say about themselves without being read."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from hubtool.errors import BrokenAdapter
from hubtool.naming.address import Role
from hubtool.naming.identify import Extent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hubtool.adapters.parametrizations.base import Parametrization, Shape, Shapes
    from hubtool.formats.tensor import LazyTensor

PEFT_TERMS = 5  # how many PEFT takes where its config says nothing; OneTrainer always does

#: A module's family is the first of these that recognises its tensors (a LoRA with a bias difference is a LoRA).
_PRECEDENCE = ("lora", "loha", "lokr", "glora", "boft", "oft", "ia3", "full", "norm")


@lru_cache(maxsize=1)
def parametrizations() -> Mapping[str, Parametrization]:
    """All families by id: one file each in `hubtool.adapters.parametrizations`, in order of precedence."""
    package = importlib.import_module("hubtool.adapters.parametrizations")
    found: dict[str, Parametrization] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{entry.name}")
        if hasattr(module, "PARAMETRIZATION"):
            found[module.PARAMETRIZATION.id] = module.PARAMETRIZATION
    return {id: found[id] for id in (*_PRECEDENCE, *sorted(set(found) - set(_PRECEDENCE)))}


def recognise(shapes: Shapes) -> Parametrization | None:
    """The family of a module with these tensors; None for stray ones such as a lone alpha."""
    return _recognise(frozenset(shapes), len(shapes.get(Role.OFT_BLOCKS, ())))


def extent_of(shapes: Shapes) -> Extent:
    """What tensors of these shapes say about the weight they change."""
    kind = recognise(shapes)
    return kind.extent(shapes) if kind else Extent()


@lru_cache(maxsize=256)
def _recognise(roles: frozenset[Role], dimensions: int) -> Parametrization | None:
    """Families are told apart by roles alone, but for OFT and BOFT: by the dimensions of their blocks."""
    shapes = dict.fromkeys(roles, (1,) * dimensions)
    return next((kind for kind in parametrizations().values() if kind.recognises(shapes)), None)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The tensors of one module; `base` is what stood before the suffix in the file they came from."""

    tensors: Mapping[Role, LazyTensor]
    base: str = ""
    recorded_scale: float | None = None  # from the header's metadata, where the dialect has no alpha tensor
    series_terms: int = PEFT_TERMS  # of PEFT's OFT (see `parametrizations.base.Values`)

    @property
    def shapes(self) -> dict[Role, Shape]:
        """Shape of each tensor."""
        return {role: tensor.shape for role, tensor in self.tensors.items()}

    @property
    def parametrization(self) -> Parametrization | None:
        """The family these tensors are of; None for stray ones such as a lone alpha."""
        return recognise(self.shapes)

    @property
    def rank(self) -> int | None:
        """Rank, where the family has one."""
        shapes = self.shapes
        kind = recognise(shapes)
        return kind.rank(shapes) if kind else None

    @property
    def extent(self) -> Extent:
        """What the tensors say about the weight's shape."""
        return extent_of(self.shapes)

    @property
    def alpha(self) -> float | None:
        """The alpha tensor's value; None without one."""
        tensor = self.tensors.get(Role.ALPHA)
        return None if tensor is None else tensor.scalar()

    @property
    def scale(self) -> float:
        """What the update is multiplied with: `.scale`, else alpha / rank, else what metadata records, else 1."""
        if Role.SCALE in self.tensors:
            return self.tensors[Role.SCALE].scalar()
        alpha, rank = self.alpha, self.rank
        if alpha is not None:
            return alpha / rank if rank else 1.0
        return 1.0 if self.recorded_scale is None else self.recorded_scale

    @property
    def modifiers(self) -> tuple[str, ...]:
        """`dora`, `tucker`, `bias`: what comes on top of the family."""
        kind = self.parametrization
        found = []
        if Role.MAGNITUDE in self.tensors:
            found.append("dora")
        if not self.tensors.keys().isdisjoint({Role.MID, Role.HADA_T1, Role.LOKR_T2}):
            found.append("tucker")
        if (
            kind
            and kind.id not in {"full", "norm"}
            and not self.tensors.keys().isdisjoint({Role.UP_BIAS, Role.DIFF_BIAS})
        ):
            found.append("bias")
        return tuple(found)

    def has(self, role: Role) -> bool:
        """Whether there is a tensor of this role."""
        return role in self.tensors

    def number(self, role: Role) -> float:
        """The value of a one-element tensor."""
        return self.tensors[role].scalar()

    def float(self, role: Role) -> Tensor:
        """A tensor in float32 (torch is imported here, so that looking at shapes does without it)."""
        from hubtool.adapters.tensors import to_torch  # noqa: PLC0415

        return to_torch(self.tensors[role]).float()

    def delta(self, shape: Shape, base: Tensor | None = None) -> Tensor:
        """The change of a weight of this shape at strength 1, float32; DoRA and bias are not applied.

        `base` is that weight, which OFT, BOFT, (IA)³, GLoRA and `set_weight` need.

        Raises:
            BrokenAdapter: a tensor is missing, or the factors do not multiply to this shape.
            NotRepresentable: the change depends on the base weight.
        """
        kind = self.parametrization
        lacking = kind.missing(self.shapes) if kind else ("everything",)
        if kind is None or lacking:
            names = ", ".join(str(getattr(role, "value", role)) for role in lacking)
            raise BrokenAdapter(self.base, f"{self.base} lacks {names}.")
        try:
            return kind.delta(self, shape, base)
        except (RuntimeError, IndexError) as error:  # torch's words for sides that do not meet
            sides = ", ".join(f"{role.value} {list(tensor.shape)}" for role, tensor in self.tensors.items())
            raise BrokenAdapter(self.base, f"{self.base} does not give a change of {list(shape)}: {sides}.") from error

    def change(self, shape: Shape, base: Tensor | None = None) -> Tensor:
        """What becomes of the weight, less what it was: `delta` with DoRA applied, which needs the base weight, too.

        Raises:
            BrokenAdapter, NotRepresentable: see `delta`.
        """
        change = self.delta(shape, base)
        if Role.MAGNITUDE not in self.tensors:
            return change
        from hubtool.adapters.magnitude import decomposed  # noqa: PLC0415  # only files with DoRA need it
        from hubtool.adapters.parametrizations.base import needed  # noqa: PLC0415

        return decomposed(change, needed(base, "DoRA").reshape(shape), self.float(Role.MAGNITUDE))

    def without(self, *roles: Role) -> dict[Role, LazyTensor]:
        """Its tensors but those of the roles named."""
        return {role: tensor for role, tensor in self.tensors.items() if role not in roles}

    def having(self, tensors: Mapping[Role, LazyTensor]) -> Layer:
        """The same layer with other tensors."""
        return replace(self, tensors=tensors)
