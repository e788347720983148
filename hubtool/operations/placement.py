"""Where the rows of each layer's change go when modules are named more finely or more coarsely than the file has them.

A fused module (the authors' q·k·v) is cut into its parts' rows; parts go to their rows of a fused one. In the form of
factors both are exact for every parametrization: rows of `left` are cut or surrounded by zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import BrokenAdapter, NotRepresentable
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.dialect import dialect
from hubtool.operations.factors import Factors, factored_rank, factors_of

if TYPE_CHECKING:
    from collections.abc import Container

    from hubtool.adapters.adapter import Adapter
    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import Shape
    from hubtool.naming.architecture import Architecture


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """Rows of one layer's change, and the rows of a module that they are added to."""

    layer: Layer
    source: ModuleRef  # as the file has it
    source_shape: Shape
    shape: Shape  # of the module's weight
    taken: tuple[int, int]  # rows of the source
    start: int = 0  # row of the module where they go
    swapped: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether source and module are the same thing."""
        return not self.swapped and self.source_shape == self.shape and self.taken == (0, self.shape[0])

    @property
    def rank(self) -> int | None:
        """The k of its factors; None where the change is better taken whole."""
        return factored_rank(self.layer, self.source_shape)

    def factors(self) -> Factors:
        """The change of the module's weight (see `factors_of`)."""
        return self.rows_of(factors_of(self.layer, self.source_shape))

    def rows_of(self, change: Factors) -> Factors:
        """The module's rows of a change of the source."""
        if self.swapped:
            return change.halves_swapped()
        return change.rows(*self.taken).among(self.start, self.shape[0])


def placed(adapter: Adapter, dialect_id: str | None = None) -> dict[ModuleRef, list[Share]]:
    """The modules that a dialect names (None: the canonical, finest ones), and the layers that change each.

    Raises:
        NotRepresentable: the dialect has no name for a module, whole or in parts.
        BrokenAdapter: a layer's tensors have no shape that the module has.
    """
    target = adapter.architecture
    named: Container[ModuleRef] = dialect(dialect_id).written(target) if dialect_id else _canonical(target)
    homes = _homes(target, named)
    found: dict[ModuleRef, list[Share]] = {}
    for source, layer in adapter.layers.items():
        shape = shape_of(target, source, layer)
        for module, share in _shares(target, source, layer, shape, (named, homes)):
            found.setdefault(module, []).append(share)
    return found


def shape_of(target: Architecture, module: ModuleRef, layer: Layer) -> Shape:
    """The shape of the weight that a layer changes: the usual one, or the variant's that its tensors fit.

    Raises:
        BrokenAdapter: they fit none.
    """
    shapes = target.shapes(module)
    fitting = [shape for shape in shapes if layer.extent.fits(shape)]
    if fitting:
        return fitting[0]
    expected = " or ".join(str(list(shape)) for shape in shapes)
    raise BrokenAdapter(module.path, f"The tensors of {layer.base} do not fit a weight of {expected}.")


Names = tuple["Container[ModuleRef]", dict[ModuleRef, tuple[str, int]]]


def _shares(
    target: Architecture, source: ModuleRef, layer: Layer, shape: Shape, names: Names
) -> list[tuple[ModuleRef, Share]]:
    named, homes = names
    if source in named:
        return [(source, Share(layer, source, shape, shape, (0, shape[0])))]
    fused = target.fused.get(source.path) if source.component is Component.DENOISER else None
    if fused is None:
        if source not in homes:
            raise NotRepresentable(source.path, f"The dialect has no name for {source.path}, fused or not.")
        name, start = homes[source]
        whole = target.shape(ModuleRef(Component.DENOISER, name)) or shape
        share = Share(layer, source, shape, whole, (0, shape[0]), start, target.fused[name].swapped)
        return [(ModuleRef(Component.DENOISER, name), share)]
    found, row = [], 0
    for path, count in zip(fused.parts, fused.rows, strict=True):
        part = ModuleRef(Component.DENOISER, path)
        share = Share(layer, source, shape, (count, *shape[1:]), (row, row + count), swapped=fused.swapped)
        row += count
        if part in named:
            found.append((part, share))
        else:  # a dialect with yet another way of stacking
            raise NotRepresentable(path, f"The dialect has no name for {path}.")
    return found


def _canonical(target: Architecture) -> Container[ModuleRef]:
    modules = {ModuleRef(Component.DENOISER, path) for path in target.modules}
    return modules.union(ModuleRef(e.component, path) for e in target.encoders.values() for path in e.modules)


def _homes(target: Architecture, named: Container[ModuleRef]) -> dict[ModuleRef, tuple[str, int]]:
    """Canonical part → the fused module of those named that it is in, and its first row there."""
    found: dict[ModuleRef, tuple[str, int]] = {}
    for name, fused in target.fused.items():
        row = 0
        for path, count in zip(fused.parts, fused.rows, strict=True):
            if not fused.partial and ModuleRef(Component.DENOISER, name) in named:
                found.setdefault(ModuleRef(Component.DENOISER, path), (name, row))
            row += count
    return found
