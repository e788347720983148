"""Baking against W + strength · ΔW made by hand, in every layout, and taking it out again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from support.adapters import lora as lora_tensors
from support.adapters import modules_like, pair, spelt
from support.changes import CROSS, KERNEL, LINEAR, POINT, loha, lokr, lora, sd1, shape, tucker, write_adapter
from support.checkpoints import ENCODER, small_model, unet, write_diffusers, write_file, write_ldm
from support.files import number, random_tensor, write

from hubtool.adapters.checkpoint import read_checkpoint
from hubtool.adapters.codec import read_adapter
from hubtool.adapters.tensors import to_torch
from hubtool.errors import (
    CheckpointProblem,
    IncompatibleAdapters,
    NonFinite,
    NotRepresentable,
    OutputExists,
    UsageProblem,
)
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.operations.bake import BakeOptions, bake
from hubtool.operations.model_blocks import parse_block_weights
from hubtool.operations.sources import Source

if TYPE_CHECKING:
    from pathlib import Path

    from support.files import Raw


def weights(path: Path) -> dict[ModuleRef, torch.Tensor]:
    return {module: to_torch(w.tensor).clone() for module, w in read_checkpoint(path).weights.items()}


def expected(base: dict[ModuleRef, torch.Tensor], path: Path, strength: float) -> dict[ModuleRef, torch.Tensor]:
    """W + strength · change, by the formula of each family."""
    adapter = read_adapter(path)
    found = dict(base)
    for module, layer in adapter.layers.items():
        plain = found[module].float()
        shape = adapter.architecture.shape(module)
        assert shape is not None
        change = layer.change(shape, plain.reshape(shape)).reshape(plain.shape)
        found[module] = (plain + strength * change).to(base[module].dtype)
    return found


def same(first: dict[ModuleRef, torch.Tensor], second: dict[ModuleRef, torch.Tensor], ulps: float = 1.01) -> bool:
    """Equal to within a unit in the last place of the stored dtype."""
    steps = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-22}
    for module, tensor in first.items():
        other, wide = second[module].float(), tensor.float()
        near = wide.abs().max() * 1e-4 if tensor.dtype is torch.float32 else wide.abs()
        if not ((wide - other).abs() <= ulps * steps[tensor.dtype] * near + 1e-7).all():
            return False
    return first.keys() == second.keys()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_ldm(tmp_path / "base.safetensors", small_model())


FAMILIES: dict[str, tuple[str, object]] = {
    "lora": (LINEAR, lambda: lora(LINEAR, 4, 1)),
    "point": (POINT, lambda: lora(POINT, 4, 2)),
    "kernel": (KERNEL, lambda: lora(KERNEL, 4, 3)),
    "tucker": (KERNEL, lambda: tucker(shape(KERNEL), 4, 4)),
    "loha": (CROSS, lambda: loha(shape(CROSS), 4, 5)),
    "lokr": (LINEAR, lambda: lokr(shape(LINEAR), 8, 6)),
    "full": (LINEAR, lambda: {Role.DIFF: random_tensor(7, shape(LINEAR), "F32")}),
    "oft": (LINEAR, lambda: {Role.OFT_BLOCKS: random_tensor(8, (40, 8, 8), "F32"), Role.ALPHA: number(0.0)}),
    "ia3": (LINEAR, lambda: {Role.IA3_WEIGHT: random_tensor(9, (320,), "F32"), Role.IA3_ON_INPUT: number(0, "I64")}),
    "dora": (LINEAR, lambda: lora(LINEAR, 4, 1) | {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}),
    "dora by input": (CROSS, lambda: lora(CROSS, 4, 1) | {Role.MAGNITUDE: number(0.9, "F32", (1, 768))}),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_baked_weight_is_the_weight_plus_the_change(tmp_path: Path, base: Path, name: str, strength: float) -> None:
    path, make = FAMILIES[name]
    adapter = write_adapter(tmp_path / "a.safetensors", {path: make()})  # type: ignore[operator]
    found = bake(base, [Source(adapter, strength)], tmp_path / "out.safetensors", BakeOptions())
    after = weights(tmp_path / "out.safetensors")
    assert same(after, expected(weights(base), adapter, strength))
    assert not after[sd1(path)[0]].equal(weights(base)[sd1(path)[0]])
    assert (found.modules, found.tensors_changed, found.tensors_copied) == (1, 1, len(small_model()) - 1)


def test_what_nothing_changes_is_copied_byte_by_byte_in_its_place(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    before, after = read_safetensors(base), read_safetensors(tmp_path / "out.safetensors")
    assert list(before.tensors) == list(after.tensors)
    changed = [k for k in before.tensors if bytes(before.tensors[k].view()) != bytes(after.tensors[k].view())]
    assert changed == ["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"]
    assert [t.dtype for t in before.tensors.values()] == [t.dtype for t in after.tensors.values()]
    assert (after.body_start - before.body_start) % 4096 == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_taking_out_what_was_baked_gives_the_base_back_to_rounding(tmp_path: Path, dtype: torch.dtype) -> None:
    base = write_ldm(tmp_path / "base.safetensors", {m: w.to(dtype) for m, w in small_model().items()})
    layers = {LINEAR: lora(LINEAR, 4, 1), KERNEL: lora(KERNEL, 4, 2), CROSS: loha(shape(CROSS), 4, 5)}
    layers[POINT] = lokr(shape(POINT), 8, 6)
    adapter = write_adapter(tmp_path / "a.safetensors", layers)
    sources = [Source(adapter, 0.7)]
    bake(base, sources, tmp_path / "baked.safetensors", BakeOptions())
    found = bake(tmp_path / "baked.safetensors", sources, tmp_path / "back.safetensors", BakeOptions(reverse=True))
    assert found.reverse
    digits = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-22}[dtype]
    before, baked, after = (weights(tmp_path / f"{n}.safetensors") for n in ("base", "baked", "back"))
    for module, tensor in before.items():
        error = (tensor.float() - after[module].float()).abs()
        assert (error <= digits * torch.maximum(tensor.float().abs(), baked[module].float().abs()) + 1e-7).all()
    assert read_safetensors(tmp_path / "back.safetensors").metadata == {}


def test_several_adapters_add_up_in_any_order(tmp_path: Path, base: Path) -> None:
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    dora = lora(LINEAR, 4, 2) | {Role.MAGNITUDE: number(1.1, "F32", (320, 1))}
    second = write_adapter(tmp_path / "b.safetensors", {LINEAR: dora}, names=("sd1", "comfyui"))
    sources = [Source(first, 0.7), Source(second, -0.4)]
    bake(base, sources, tmp_path / "1.safetensors", BakeOptions(dtype="F32"))
    bake(base, sources[::-1], tmp_path / "2.safetensors", BakeOptions(dtype="F32"))
    assert same(weights(tmp_path / "1.safetensors"), weights(tmp_path / "2.safetensors"))
    plain = {module: tensor.float() for module, tensor in weights(base).items()}
    parts = [expected(plain, first, 0.7), expected(plain, second, -0.4)]
    total = {module: parts[0][module] + parts[1][module] - plain[module] for module in plain}
    assert same(weights(tmp_path / "1.safetensors"), total, ulps=4)


def test_a_pipelines_folder_gives_a_folder_with_everything_in_it(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "model", small_model())
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (folder / "unet" / "config.json").write_text("{}")
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    bake(folder, [Source(adapter, 0.5)], tmp_path / "out", BakeOptions())
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")} == names
    assert same(weights(tmp_path / "out"), expected(weights(folder), adapter, 0.5))
    encoder = "text_encoder/model.safetensors"
    assert (tmp_path / "out" / encoder).read_bytes() == (folder / encoder).read_bytes()
    with pytest.raises((UsageProblem, OutputExists)):
        bake(folder, [Source(adapter)], tmp_path / "out", BakeOptions(force=True))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out", "a.safetensors"}


def sharded(folder: Path) -> Path:
    """Two shards and their index."""
    tensors = {
        f"{module.path}.weight": w for module, w in small_model().items() if module.component is Component.DENOISER
    }
    keys, table = list(tensors), {}
    for count, part in enumerate((keys[:3], keys[3:]), 1):
        name = f"diffusion_pytorch_model-0000{count}-of-00002.safetensors"
        write_file(folder / name, {key: tensors[key] for key in part})
        table |= dict.fromkeys(part, name)
    size = sum(tensor.numel() * 2 for tensor in tensors.values())
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": table}))
    return index


@pytest.mark.parametrize("dtype", [None, "F32"])
def test_shards_stay_shards_and_their_index_tells_the_truth(tmp_path: Path, dtype: str | None) -> None:
    index = sharded(tmp_path / "model")
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1), KERNEL: lora(KERNEL, 4, 2)})
    bake(index, [Source(adapter)], tmp_path / "out", BakeOptions(dtype=dtype))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(p.name for p in index.parent.iterdir())
    before = {m: w.float() if dtype else w for m, w in weights(index).items()}
    assert same(weights(tmp_path / "out" / index.name), expected(before, adapter, 1.0))
    total = json.loads((tmp_path / "out" / index.name).read_text())["metadata"]["total_size"]
    assert total == sum(w.numel() * (4 if dtype else 2) for w in before.values())


def test_rows_of_a_stacked_tensor_change_alone(tmp_path: Path) -> None:
    """SDXL's second text encoder keeps q, k and v in one in_proj_weight."""
    target = architecture("sdxl")
    unet_key = f"model.diffusion_model.{target.original[SDXL]}.weight"
    stacked = torch.randn(3 * 1280, 1280, generator=torch.Generator().manual_seed(1)).half()
    encoder = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    tensors = {unet_key: torch.zeros(target.modules[SDXL]).half(), encoder: stacked}
    base = write_file(tmp_path / "base.safetensors", tensors)
    module = ModuleRef(Component.CLIP_G, "text_model.encoder.layers.0.self_attn.k_proj")
    factors = {Role.DOWN: random_tensor(1, (4, 1280), "F32"), Role.UP: random_tensor(2, (1280, 4), "F32")}
    adapter = write(tmp_path / "a.safetensors", spelt("sdxl", "kohya", {module: factors}))
    bake(base, [Source(adapter, 0.5)], tmp_path / "out.safetensors", BakeOptions(architecture="sdxl"))
    after = to_torch(read_safetensors(tmp_path / "out.safetensors").tensors[encoder])
    layer = read_adapter(adapter, architecture_id="sdxl").layers[module]
    wanted = (stacked[1280:2560].float() + 0.5 * layer.delta((1280, 1280))).half()
    assert torch.equal(after[:1280], stacked[:1280])
    assert torch.equal(after[2560:], stacked[2560:])
    assert (after[1280:2560].float() - wanted.float()).abs().max() < 2e-3


SDXL = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def test_strengths_by_component_and_block_reach_the_weights(tmp_path: Path, base: Path) -> None:
    encoder = ModuleRef(Component.CLIP_L, ENCODER)
    factors = {Role.DOWN: random_tensor(1, (4, 768), "F32"), Role.UP: random_tensor(2, (768, 4), "F32")}
    rows: dict[ModuleRef, dict[Role, Raw]] = {encoder: factors, sd1(LINEAR)[0]: lora(LINEAR, 4, 1)}
    adapter = write(tmp_path / "a.safetensors", spelt("sd1", "kohya", rows))
    source = Source(adapter, 0.8, 0.0, parse_block_weights("IN01=0.5"))
    found = bake(base, [source], tmp_path / "out.safetensors", BakeOptions())
    before, after = weights(base), weights(tmp_path / "out.safetensors")
    assert after[encoder].equal(before[encoder])
    assert same(
        {sd1(LINEAR)[0]: after[sd1(LINEAR)[0]]}, {sd1(LINEAR)[0]: expected(before, adapter, 0.4)[sd1(LINEAR)[0]]}
    )
    assert found.modules == 1


def test_biases_change_too_and_those_without_a_place_are_counted(tmp_path: Path) -> None:
    bias = torch.ones(320).half()
    model = {m: w for m, w in small_model().items() if m.component is Component.DENOISER}
    tensors = {f"{module.path}.weight": w for module, w in model.items()} | {f"{KERNEL}.bias": bias}
    base = write_file(tmp_path / "base.safetensors", tensors)
    more = {Role.DIFF_BIAS: number(0.5, "F32", (320,))}
    layers = {KERNEL: lora(KERNEL, 4, 1) | more, LINEAR: lora(LINEAR, 4, 2) | more}
    adapter = write_adapter(tmp_path / "a.safetensors", layers)
    found = bake(base, [Source(adapter, 0.5)], tmp_path / "out.safetensors", BakeOptions())
    after = to_torch(read_safetensors(tmp_path / "out.safetensors").tensors[f"{KERNEL}.bias"])
    assert after.tolist() == [1.25] * 320
    assert any("1 changes in a.safetensors" in note for note in found.notes)


def test_a_wider_dtype_holds_the_change_that_rounding_loses(tmp_path: Path) -> None:
    model = {m: w.to(torch.bfloat16) for m, w in small_model().items()}
    base = write_ldm(tmp_path / "base.safetensors", model)
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    tiny = Source(adapter, 1e-2)
    rough = bake(base, [tiny], tmp_path / "1.safetensors", BakeOptions())
    fine = bake(base, [tiny], tmp_path / "2.safetensors", BakeOptions(dtype="F32"))
    assert rough.rounding is not None
    assert fine.rounding is not None
    assert rough.rounding > 0.5
    assert fine.rounding < 1e-3
    assert any("Rounding to BF16" in note for note in rough.notes)
    assert {t.dtype for t in read_safetensors(tmp_path / "2.safetensors").tensors.values()} == {"F32"}


def test_scaled_float8_weights_stay_scaled(tmp_path: Path, base: Path) -> None:
    key, scale = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q", 0.001
    tensors = {k: to_torch(t).clone() for k, t in read_safetensors(base).tensors.items()}
    plain = tensors[f"{key}.weight"].float()
    tensors[f"{key}.weight"] = (plain / scale).to(torch.float8_e4m3fn)
    tensors[f"{key}.scale_weight"] = torch.tensor(scale)
    scaled = write_file(tmp_path / "scaled.safetensors", tensors)
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    bake(scaled, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    after = read_safetensors(tmp_path / "out.safetensors").tensors
    stored = to_torch(after[f"{key}.weight"])
    assert stored.dtype is torch.float8_e4m3fn
    wanted = to_torch(read_safetensors(scaled).tensors[f"{key}.weight"]).float() * scale
    wanted += read_adapter(adapter).layers[sd1(LINEAR)[0]].delta((320, 320))
    assert ((stored.float() * scale - wanted).abs() <= 2.0**-4 * wanted.abs() + 1e-5).all()
    with pytest.raises(UsageProblem, match="scaled float8"):
        bake(scaled, [Source(adapter)], tmp_path / "two.safetensors", BakeOptions(dtype="F16"))


def test_what_cannot_be_undone_is_not_taken_out(tmp_path: Path, base: Path) -> None:
    for name in ("dora", "oft", "ia3"):
        path, make = FAMILIES[name]
        adapter = write_adapter(tmp_path / f"{name}.safetensors", {path: make()})  # type: ignore[operator]
        with pytest.raises(NotRepresentable, match="cannot be taken out"):
            bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions(reverse=True))


def test_another_models_adapter_is_refused_by_name(tmp_path: Path, base: Path) -> None:
    path = "down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q"
    modules = modules_like("sdxl", path, "down_blocks.2.attentions.1.transformer_blocks.8.attn2.to_k")
    adapter = write(tmp_path / "xl.safetensors", lora_tensors("sdxl", "kohya", modules))
    with pytest.raises(IncompatibleAdapters, match=r"xl\.safetensors is for Stable Diffusion XL"):
        bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    with pytest.raises(CheckpointProblem):
        bake(adapter, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())


def test_modules_that_the_checkpoint_lacks_are_counted(tmp_path: Path) -> None:
    model = small_model()
    base = write_ldm(tmp_path / "base.safetensors", {m: w for m, w in model.items() if m != unet(CROSS)[0]})
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1), CROSS: lora(CROSS, 4, 2)})
    found = bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    assert [(row.file, row.modules, row.first) for row in found.skipped] == [("a.safetensors", 1, CROSS)]


def test_the_record_names_what_was_baked_and_loses_it_when_it_is_taken_out(tmp_path: Path, base: Path) -> None:
    first = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    second = write_adapter(tmp_path / "b.safetensors", {CROSS: lora(CROSS, 4, 2)})
    one, two, three = (tmp_path / f"{n}.safetensors" for n in range(3))
    bake(base, [Source(first, 0.7)], one, BakeOptions())
    bake(one, [Source(second, 0.4, 0.1)], two, BakeOptions())
    bake(two, [Source(first, 0.7)], three, BakeOptions(reverse=True))
    rows = json.loads(read_safetensors(two).metadata["hubtool.bake"])["files"]
    assert [(row["name"], row["strength"]) for row in rows] == [("a.safetensors", 0.7), ("b.safetensors", 0.4)]
    assert all(len(row["sha256"]) == 64 for row in rows)
    assert json.loads(read_safetensors(three).metadata["hubtool.bake"])["files"] == rows[1:]


def test_values_that_are_no_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    model = small_model()
    model[unet(LINEAR)[0]][0, 0] = float("inf")
    base = write_ldm(tmp_path / "base.safetensors", model)
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    with pytest.raises(NonFinite, match="to_q"):
        bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    assert {path.name for path in tmp_path.iterdir()} == {"base.safetensors", "a.safetensors"}


def test_a_dry_run_says_what_would_change_and_writes_nothing(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    found = bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions(dry_run=True))
    assert (found.tensors_changed, found.size_bytes) == (1, None)
    assert not (tmp_path / "out.safetensors").exists()
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    with pytest.raises(OutputExists):
        bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions(dry_run=True))


SD3 = {
    "joint_blocks.0.x_block.attn.qkv": (4608, 1536),
    "joint_blocks.0.context_block.attn.proj": (1536, 1536),
    "joint_blocks.1.x_block.attn.proj": (1536, 1536),
    "final_layer.adaLN_modulation.1": (3072, 1536),
    "x_embedder.proj": (1536, 16, 2, 2),
}


def sd3(path: Path) -> Path:
    """Stable Diffusion 3 in the authors' names: q, k and v stacked, the last modulation with its halves the other way."""
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"model.diffusion_model.{k}.weight": torch.randn(shape, generator=generator) * 0.02 for k, shape in SD3.items()
    }
    return write_file(path, tensors)


@pytest.mark.parametrize("dialect", ["kohya", "diffusers"])
def test_stacked_and_swapped_weights_change_where_they_should(tmp_path: Path, dialect: str) -> None:
    base = sd3(tmp_path / "base.safetensors")
    target = architecture("sd3-medium")
    if dialect == "kohya":
        paths = ["joint_blocks.0.x_block.attn.qkv", "final_layer.adaLN_modulation.1"]
    else:
        paths = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_v", "norm_out.linear"]
    shapes = {path: target.shape(unet(path)[0]) or () for path in paths}
    rows = {unet(p)[0]: pair(shape, 4, seed, "F32") for seed, (p, shape) in enumerate(shapes.items())}
    adapter = write(tmp_path / "a.safetensors", spelt("sd3-medium", dialect, rows))
    options = BakeOptions(architecture="sd3-medium")
    bake(base, [Source(adapter, 0.5)], tmp_path / "out.safetensors", options)
    before, after = (read_safetensors(tmp_path / f"{name}.safetensors").tensors for name in ("base", "out"))
    layers = read_adapter(adapter, architecture_id="sd3-medium").layers
    wanted = {key: to_torch(tensor).clone() for key, tensor in before.items()}
    modulation = "model.diffusion_model.final_layer.adaLN_modulation.1.weight"
    stacked = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    changes = [0.5 * layers[unet(path)[0]].delta(shape) for path, shape in shapes.items()]
    if dialect == "kohya":
        wanted[stacked] += changes[0]
        wanted[modulation] += changes[1]
    else:
        wanted[stacked][:1536] += changes[0]
        wanted[stacked][3072:] += changes[1]
        wanted[modulation] += changes[2].roll(1536, 0)  # diffusers: scale, shift; the authors: shift, scale
    for key, tensor in wanted.items():
        assert torch.allclose(to_torch(after[key]), tensor, atol=1e-7), key


def test_a_dora_of_one_part_sees_its_own_rows(tmp_path: Path) -> None:
    base = sd3(tmp_path / "base.safetensors")
    module = unet("transformer_blocks.0.attn.to_k")[0]
    rows = {module: pair((1536, 1536), 4, 1, "F32") | {Role.MAGNITUDE: number(0.9, "F32", (1536,))}}
    adapter = write(tmp_path / "a.safetensors", spelt("sd3-medium", "diffusers", rows))
    bake(base, [Source(adapter)], tmp_path / "out.safetensors", BakeOptions(architecture="sd3-medium"))
    key = "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    before, after = (to_torch(read_safetensors(tmp_path / f"{n}.safetensors").tensors[key]) for n in ("base", "out"))
    assert torch.allclose(after[1536:3072].norm(dim=1), torch.full((1536,), 0.9), rtol=1e-5)
    assert torch.equal(after[:1536], before[:1536])
    assert torch.equal(after[3072:], before[3072:])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_becomes_a_safetensors_file(tmp_path: Path, base: Path, zipped: bool) -> None:
    tensors = {key: to_torch(tensor).clone() for key, tensor in read_safetensors(base).tensors.items()}
    torch.save({"state_dict": tensors}, tmp_path / "base.ckpt", _use_new_zipfile_serialization=zipped)
    adapter = write_adapter(tmp_path / "a.safetensors", {LINEAR: lora(LINEAR, 4, 1)})
    with pytest.raises(UsageProblem, match=r"out\.ckpt"):
        bake(tmp_path / "base.ckpt", [Source(adapter)], tmp_path / "out.ckpt", BakeOptions())
    bake(tmp_path / "base.ckpt", [Source(adapter)], tmp_path / "out.safetensors", BakeOptions())
    assert same(weights(tmp_path / "out.safetensors"), expected(weights(base), adapter, 1.0))
    assert read_safetensors(tmp_path / "out.safetensors").tensors.keys() == tensors.keys()
