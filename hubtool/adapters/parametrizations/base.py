"""What every family of weight changes can say about itself from shapes alone, and the change it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hubtool.errors import NotRepresentable
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from torch import Tensor

    from hubtool.naming.identify import Extent

Shape = tuple[int, ...]
Shapes = Mapping[Role, Shape]


class Cut(NamedTuple):
    """How a change falls apart by output rows. Tensors that are not named belong to every part whole."""

    by_row: Mapping[Role, int]  # output rows that one entry of the tensor's first axis stands for
    factors: tuple[tuple[Role, Role], ...] = ()  # (left, right): columns of left and rows of right are rank directions


class Values(Protocol):
    """One module's tensors as arithmetic wants them."""

    @property
    def alpha(self) -> float | None:
        """The alpha tensor's value."""

    @property
    def scale(self) -> float:
        """alpha / rank as the parametrization defines it."""

    @property
    def series_terms(self) -> int:
        """Terms of the series that stands for the Cayley transform in PEFT's OFT; 0 for the transform itself."""

    def number(self, role: Role) -> float:
        """The value of a one-element tensor."""

    def float(self, role: Role) -> Tensor:
        """A tensor in float32."""

    def has(self, role: Role) -> bool:
        """Whether the module has such a tensor."""

    @property
    def shapes(self) -> Shapes:
        """Shape of each tensor."""


class Parametrization(Protocol):
    """A family; stateless, so that one instance serves every module."""

    id: str
    roles: frozenset[Role]  # tensors that belong to this family alone

    def recognises(self, shapes: Shapes) -> bool:
        """Whether a module with these tensors is of this family."""

    def missing(self, shapes: Shapes) -> tuple[Role, ...]:
        """Tensors that the module needs and lacks."""

    def rank(self, shapes: Shapes) -> int | None:
        """The rank that alpha is divided by; None where there is none."""

    def extent(self, shapes: Shapes) -> Extent:
        """What the tensors say about the shape of the weight."""

    def cut(self, values: Values) -> Cut | None:
        """How to take the change apart by output rows; None where no row can be had without the others."""

    def delta(self, values: Values, shape: Shape, base: Tensor | None = None) -> Tensor:
        """The change of a weight of this shape at strength 1, float32; `base` is that weight, if it is at hand.

        Raises:
            NotRepresentable: the change depends on the base weight.
        """


def absent(shapes: Shapes, *needed: Role) -> tuple[Role, ...]:
    """Those of the needed roles that are not there."""
    return tuple(role for role in needed if role not in shapes)


def needed(base: Tensor | None, id: str) -> Tensor:
    """The base weight in float32.

    Raises:
        NotRepresentable: it was not given, and the change is a function of it.
    """
    if base is None:
        raise NotRepresentable("", f"The change that {id} makes depends on the base weight.")
    return base.float()
