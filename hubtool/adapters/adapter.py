"""The neutral form of a LoRA-family file: modules with their change, metadata, and whatever was not understood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hubtool.naming.identify import Identification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.layer import Layer
    from hubtool.formats.tensor import LazyTensor
    from hubtool.naming.address import Address, ModuleRef
    from hubtool.naming.architecture import Architecture


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter, whatever dialect it was written in. Every tensor of the file is in `layers` or in `leftovers`."""

    architecture: Architecture
    layers: Mapping[ModuleRef, Layer]
    metadata: Mapping[str, str] = field(default_factory=dict)
    leftovers: Mapping[str, LazyTensor] = field(default_factory=dict)
    dialect: str = ""  # as it was read; empty for one that was computed
    malformed: bool = False
    mixed: tuple[str, ...] = ()  # other dialects that some modules were written in
    misfits: tuple[ModuleRef, ...] = ()  # modules whose tensors do not have the shape that their name promises
    duplicates: Mapping[str, Address] = field(
        default_factory=dict
    )  # keys of leftovers that name a tensor a second time
    identification: Identification = field(default_factory=lambda: Identification(()))
