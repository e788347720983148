"""What diffusers makes of two adapters at once is what it makes of the file that we merged from them."""

from __future__ import annotations

import pytest
import torch
from oracle.models import adapter_for, error, sd1_unet, weights_of

from hubtool.adapters.codec import write_adapter
from hubtool.naming.address import Component
from hubtool.operations.convert import convert
from hubtool.operations.merge import MergeOptions, merge
from hubtool.operations.resize import ResizeOptions, resize
from hubtool.operations.sources import Source

loaders = pytest.importorskip("diffusers.loaders")

BLOCKS = ("time", "down_blocks.0", "up_blocks.3.attentions.0")
STRENGTHS = {"a": 0.7, "b": 0.4}


def load(unet, path, name):
    mixin = loaders.StableDiffusionLoraLoaderMixin
    state, alphas, metadata = mixin.lora_state_dict(path, return_lora_metadata=True)
    mixin.load_lora_into_unet(state, alphas, unet, metadata=metadata, adapter_name=name)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two files in kohya's names and their conversions for diffusers; other ranks, overlapping modules."""
    folder = tmp_path_factory.mktemp("pair")
    modules = weights_of("sd1", Component.DENOISER, dict(sd1_unet().named_modules()), BLOCKS)
    for name, chosen, scales in (("a", modules, ((4, 4.0), (8, 2.0))), ("b", modules[3:], ((2, 8.0),))):
        write_adapter(folder / f"{name}.safetensors", adapter_for("sd1", chosen, scales), "kohya")
        convert(folder / f"{name}.safetensors", "diffusers", folder / f"{name}.diffusers.safetensors")
    return folder


def deltas(unet):
    """Module → the change that is in force, of all active adapters together."""
    found = {}
    with torch.no_grad():
        for path, module in unet.named_modules():
            if hasattr(module, "get_delta_weight"):
                found[path] = sum(
                    module.get_delta_weight(name) for name in module.active_adapters if name in module.lora_A
                )
    return found


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("rank", [None, 12])
def test_live_use_of_two_files_equals_the_merged_file(tmp_path, pair, rank):
    live, merged = sd1_unet(), sd1_unet()
    for name in STRENGTHS:
        load(live, pair / f"{name}.diffusers.safetensors", name)
    live.set_adapters(list(STRENGTHS), list(STRENGTHS.values()))
    sources = [Source(pair / f"{name}.safetensors", strength) for name, strength in STRENGTHS.items()]
    merge(sources, tmp_path / "out.safetensors", MergeOptions(dialect="diffusers", rank=rank))
    load(merged, tmp_path / "out.safetensors", "merged")
    theirs, ours = deltas(live), deltas(merged)
    assert theirs.keys() == ours.keys()
    for path, change in theirs.items():
        assert error(change, ours[path]) < 3e-6, path


def test_a_resized_file_loads_with_the_change_that_was_promised(tmp_path, pair):
    full, less = sd1_unet(), sd1_unet()
    load(full, pair / "a.diffusers.safetensors", "a")
    found = resize(pair / "a.safetensors", tmp_path / "out.safetensors", ResizeOptions(rank=3, dialect="diffusers"))
    load(less, tmp_path / "out.safetensors", "less")
    theirs, ours = deltas(full), deltas(less)
    promised = {row.module: row.relative_error for row in found.layers}
    for path, change in theirs.items():
        left = float((change - ours[path]).norm() / change.norm())
        assert left == pytest.approx(promised[path], rel=1e-3, abs=1e-6)
