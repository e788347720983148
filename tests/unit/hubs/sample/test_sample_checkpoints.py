"""The pair of checkpoints that the demonstration extracts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.codec import write_adapter
from hubtool.adapters.layer import Layer
from hubtool.adapters.tensors import from_torch, to_torch
from hubtool.hubs.sample.checkpoints import RANK, missed, write_pair
from hubtool.naming.address import Role
from hubtool.naming.architecture import architecture

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")


def test_both_are_recognised_as_stable_diffusion_1(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    assert read_checkpoint(pair.base).architecture.id == "sd1"
    assert read_checkpoint(pair.tuned).fits == ("sd1",)


def test_the_difference_has_the_stated_rank_where_there_is_one(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    base, tuned = read_checkpoint(pair.base).weights, read_checkpoint(pair.tuned).weights
    tuned_modules = 0
    for module, weight in base.items():
        change = (to_torch(tuned[module].tensor).float() - to_torch(weight.tensor).float()).flatten(1)
        if change.any():
            tuned_modules += 1
            values = torch.linalg.svdvals(change)
            assert values[RANK] < 0.01 * values[RANK - 1], module
    assert 0 < tuned_modules < len(base)


def test_an_empty_lora_misses_everything_and_the_exact_one_nothing(tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    base, tuned = read_checkpoint(pair.base).weights, read_checkpoint(pair.tuned).weights
    for share, expected in ((0.0, 1.0), (1.0, 0.0), (0.5, 0.5)):
        layers = {}
        for module, weight in base.items():
            change = to_torch(tuned[module].tensor).float() - to_torch(weight.tensor).float()
            layers[module] = Layer({Role.DIFF: from_torch(share * change)})
        path = tmp_path / f"{share}.safetensors"
        write_adapter(path, Adapter(architecture("sd1"), layers), "kohya")
        assert missed(pair, path) == pytest.approx(expected, abs=1e-3)
