"""`convert --allow-pickle` is the one way by which a pickled adapter is read, and nothing in it is run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import to_torch
from hubtool.cli import root
from hubtool.cli._errors import run_guarded
from hubtool.naming.address import Role

if TYPE_CHECKING:
    from pathlib import Path

BASE = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def pickled(path: Path) -> dict[str, torch.Tensor]:
    """An adapter as old trainers saved it."""
    tensors = {
        f"{BASE}.lora_up.weight": torch.randn(320, 4).half(),
        f"{BASE}.lora_down.weight": torch.randn(4, 320).half(),
        f"{BASE}.alpha": torch.tensor(2.0),
    }
    torch.save(tensors, path)
    return tensors


def convert(path: Path, out: Path, *options: str) -> int:
    return run_guarded(root, ["convert", str(path), "--to", "comfyui", "-o", str(out), *options])


def test_a_pickled_adapter_becomes_safetensors_with_the_same_values(tmp_path: Path) -> None:
    path, out = tmp_path / "style.pt", tmp_path / "style.safetensors"
    tensors = pickled(path)
    assert convert(path, out, "--allow-pickle", "--architecture", "sd1") == 0
    (layer,) = read_adapter(out, architecture_id="sd1").layers.values()
    assert torch.equal(to_torch(layer.tensors[Role.UP]), tensors[f"{BASE}.lora_up.weight"])
    assert layer.alpha == 2.0


def test_without_the_option_it_is_refused(tmp_path: Path) -> None:
    pickled(tmp_path / "style.pt")
    assert convert(tmp_path / "style.pt", tmp_path / "out.safetensors") == 15
    assert not (tmp_path / "out.safetensors").exists()


def test_a_harmful_one_is_refused_with_it(tmp_path: Path) -> None:
    path = tmp_path / "style.pt"
    torch.save({f"{BASE}.lora_up.weight": torch.ones(2), "hook": os.system}, path)
    assert convert(path, tmp_path / "out.safetensors", "--allow-pickle") == 15
    assert not (tmp_path / "out.safetensors").exists()
