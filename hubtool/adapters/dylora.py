"""DyLoRA: a LoRA whose first directions are a LoRA of lower rank.

Valipour et al. 2022 (arXiv:2210.07558). The tensors are those of a LoRA; only the header says that it was trained so. At rank n
of N, sd-scripts trains with alpha / N · √(N / n) (networks/dylora.py), which is what a file cut to n directions gets here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubtool.adapters.blocks import columns
from hubtool.adapters.metadata import read_json
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubtool.adapters.layer import Layer


def is_dylora(metadata: Mapping[str, str]) -> bool:
    """Whether the header says so: sd-scripts names its module, LyCORIS the algorithm.

    >>> is_dylora({"ss_network_module": "networks.dylora"}), is_dylora({"ss_network_args": '{"algo": "dylora"}'})
    (True, True)
    """
    arguments = read_json(metadata.get("ss_network_args"))
    named = arguments.get("algo") if isinstance(arguments, dict) else None
    return metadata.get("ss_network_module", "").endswith("dylora") or named == "dylora"


def first_directions(layer: Layer, rank: int) -> Layer:
    """The LoRA of this rank that is trained inside, at its own scale; the layer itself if it has no higher rank."""
    whole = layer.rank
    if not whole or rank >= whole or not {Role.UP, Role.DOWN} <= layer.tensors.keys() or Role.MID in layer.tensors:
        return layer
    tensors = layer.without(Role.SCALE, Role.ALPHA)
    tensors[Role.UP] = columns(tensors[Role.UP], 0, rank)
    tensors[Role.DOWN] = tensors[Role.DOWN].rows(0, rank)
    tensors[Role.ALPHA] = scalar_tensor(layer.scale * math.sqrt(whole / rank) * rank)
    return layer.having(tensors)
