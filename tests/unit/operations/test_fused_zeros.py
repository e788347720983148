"""Zeros that are there come back as zeros, and what is absent stays absent, whoever shares what with whom."""

from pathlib import Path

import pytest
from support.adapters import denoiser, pair, spelt
from support.conversions import round_trip
from support.files import Raw

from hubtool.naming.address import Role
from hubtool.operations.convert import ConvertOptions


@pytest.mark.parametrize("zero", ["k", "q", "none"])
@pytest.mark.parametrize("names", ["qk", "kv", "qv", "q", "qkv"])
def test_a_part_of_zeros_is_told_from_one_that_is_absent(tmp_path: Path, zero: str, names: str) -> None:
    tensors = {}
    for seed, module in enumerate(denoiser(*[f"transformer_blocks.0.attn.to_{name}" for name in names])):
        rows = pair((3072, 3072), 1, seed, "F16")
        rows[Role.DOWN] = pair((3072, 3072), 1, 0, "F16")[Role.DOWN]  # all share it
        if module.path.endswith(f"_{zero}"):
            rows[Role.UP] = Raw("F16", rows[Role.UP].shape, bytes(len(rows[Role.UP].data)))
        tensors[module] = rows
    options = ConvertOptions(architecture="flux1")
    trip = round_trip(tmp_path, spelt("flux1", "diffusers", tensors), "kohya", options=options)
    assert trip.after == trip.before
