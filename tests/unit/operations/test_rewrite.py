"""Rewriting with the base model at hand, as LoKr, and DyLoRA cut to a rank; the rest is in test_as_lora.py."""

from __future__ import annotations

import math

import pytest
import torch
from support.adapters import denoiser
from support.checkpoints import CROSS, KERNEL, small_model, write_file, write_ldm

from hubtool.adapters.adapter import Adapter
from hubtool.adapters.codec import read_adapter, write_adapter
from hubtool.adapters.layer import Layer
from hubtool.adapters.magnitude import decomposed
from hubtool.adapters.tensors import from_torch
from hubtool.errors import CheckpointProblem, FileMissing, IncompatibleCheckpoints, NotRepresentable, UsageProblem
from hubtool.formats.tensor import scalar_tensor
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.operations.as_lokr import nearest, rewrite_as_lokr
from hubtool.operations.as_lora import Factors, rank_rule, rewrite_as_lora
from hubtool.operations.base_weights import read_base
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.rewrite import Wish, rewritten

R = Role
SHAPES = {CROSS: (320, 768), KERNEL: (320, 320, 3, 3)}


def noise(*shape, size=0.1):
    return from_torch(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * size)


def pair(path):
    out, columns, *kernel = SHAPES[path]
    return {R.UP: noise(out, 4, *(1 for _ in kernel)), R.DOWN: noise(4, columns, *kernel), R.ALPHA: scalar_tensor(2)}


#: What depends on the base weight: module and tensors.
DEPENDENT = {
    "oft": (CROSS, {R.OFT_BLOCKS: noise(80, 4, 4), R.ALPHA: scalar_tensor(0)}),
    "oft bounded": (KERNEL, {R.OFT_BLOCKS: noise(80, 4, 4), R.RESCALE: noise(320, 1, 1, 1), R.ALPHA: scalar_tensor(1e-2)}),
    "boft": (CROSS, {R.OFT_BLOCKS: noise(3, 80, 4, 4)}),
    "ia3": (KERNEL, {R.IA3_WEIGHT: noise(1, 320, 1, 1), R.IA3_ON_INPUT: scalar_tensor(1, "I64")}),
    "glora": (
        CROSS,
        {R.GLORA_A1: noise(768, 4), R.GLORA_A2: noise(4, 768), R.GLORA_B1: noise(320, 4), R.GLORA_B2: noise(4, 768)},
    ),
    "absolute": (CROSS, {R.SET_WEIGHT: noise(320, 768)}),
    "dora of outputs": (CROSS, {**pair(CROSS), R.MAGNITUDE: noise(320, 1)}),
    "dora of inputs": (KERNEL, {**pair(KERNEL), R.MAGNITUDE: noise(1, 320, 1, 1)}),
    "loha with dora": (
        CROSS,
        {R.HADA_W1_A: noise(320, 2), R.HADA_W1_B: noise(2, 768), R.HADA_W2_A: noise(320, 2), R.HADA_W2_B: noise(2, 768),
         R.MAGNITUDE: noise(1, 768)},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = small_model()
    return weights, write_ldm(tmp_path_factory.mktemp("base") / "base.safetensors", weights)


def adapter_of(path, tensors, dialect=""):
    return Adapter(architecture("sd1"), {denoiser(path)[0]: Layer(dict(tensors), "m")}, dialect=dialect)


def error(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", DEPENDENT)
def test_with_the_base_model_every_change_becomes_a_lora_and_its_error_is_the_optimum(name, model):
    weights, path = model
    module = denoiser(DEPENDENT[name][0])[0]
    adapter = adapter_of(*DEPENDENT[name])
    shape, weight = SHAPES[module.path], weights[module].float()
    change = adapter.layers[module].change(shape, weight)
    base = read_base(path, adapter.architecture)
    whole, errors = rewrite_as_lora(adapter, rank_rule(320, None), base)
    made = whole.layers[module]
    assert (made.parametrization.id, made.modifiers, errors[module] < 1e-5) == ("lora", (), True)
    assert error(made.delta(shape), change) < 1e-5
    values = torch.linalg.svdvals(change.flatten(1).double()).square()
    cut, errors = rewrite_as_lora(adapter, rank_rule(8, None), base)
    optimum = float(values[8:].sum() / values.sum()) ** 0.5
    assert error(cut.layers[module].delta(shape), change) == pytest.approx(optimum, rel=0.01, abs=1e-6)
    assert errors[module] == pytest.approx(optimum, rel=0.01, abs=1e-6)


@pytest.mark.parametrize("name", ["oft", "ia3", "glora", "absolute"])
def test_without_the_base_model_it_says_how_to_name_it(name):
    with pytest.raises(NotRepresentable, match="without the base model") as caught:
        rewrite_as_lora(adapter_of(*DEPENDENT[name]), rank_rule(8, None))
    assert "--base" in caught.value.hint


def test_without_the_base_model_a_loha_with_dora_becomes_a_lora_with_dora():
    path, tensors = DEPENDENT["loha with dora"]
    adapter = adapter_of(path, tensors)
    found, _ = rewrite_as_lora(adapter, rank_rule(320, None))
    layer = found.layers[denoiser(path)[0]]
    assert (layer.parametrization.id, layer.modifiers) == ("lora", ("dora",))
    base = torch.randn(320, 768)
    assert error(layer.change((320, 768), base), adapter.layers[denoiser(path)[0]].change((320, 768), base)) < 1e-5


def test_a_square_convolution_of_pefts_dora_has_its_lengths_per_output(model):
    weights, path = model
    tensors = {**pair(KERNEL), R.MAGNITUDE: noise(1, 320, 1, 1)}
    adapter = adapter_of(KERNEL, tensors, dialect="peft")
    module = denoiser(KERNEL)[0]
    found, _ = rewrite_as_lora(adapter, rank_rule(320, None), read_base(path, adapter.architecture))
    lora, weight = adapter.layers[module].delta(SHAPES[KERNEL]), weights[module].float()
    lengths = torch.frombuffer(bytearray(tensors[R.MAGNITUDE].view()), dtype=torch.float32).reshape(320, 1, 1, 1)
    assert error(found.layers[module].delta(SHAPES[KERNEL]), decomposed(lora, weight, lengths)) < 1e-5


def test_convert_takes_the_base_model_from_a_file(tmp_path, model):
    weights, base = model
    path, tensors = DEPENDENT["boft"]
    adapter, module = adapter_of(path, tensors), denoiser(path)[0]
    write_adapter(tmp_path / "in.safetensors", adapter, "kohya")
    options = ConvertOptions(architecture="sd1", parametrization="lora", rank=16, base=base)
    done = convert(tmp_path / "in.safetensors", "diffusers", tmp_path / "out.safetensors", options)
    read = read_adapter(tmp_path / "out.safetensors", architecture_id="sd1").layers[module]
    change = adapter.layers[module].change(SHAPES[path], weights[module].float())
    assert done.lossy[0].error == pytest.approx(error(read.delta(SHAPES[path]), change), rel=0.01)


def test_a_base_model_that_does_not_belong_is_refused(tmp_path, model):
    _, path = model
    target = architecture("sd1")
    with pytest.raises(IncompatibleCheckpoints, match="sdxl"):
        read_base(path, architecture("sdxl"))
    with pytest.raises(FileMissing):
        read_base(tmp_path / "none.safetensors", target)
    write_adapter(tmp_path / "lora.safetensors", adapter_of(CROSS, pair(CROSS)), "kohya")
    with pytest.raises(CheckpointProblem, match="is a LoRA"):
        read_base(tmp_path / "lora.safetensors", target)
    with pytest.raises(IncompatibleCheckpoints, match="no weight"):
        read_base(path, target).weight(ModuleRef(Component.DENOISER, "conv_out"))


def test_the_weight_of_a_fused_module_is_its_parts_rows(tmp_path):
    target = architecture("lumina2")
    name = next(name for name, fused in target.fused.items() if not fused.swapped and len(set(fused.rows)) > 1)
    weight = torch.randn(target.shape(ModuleRef(Component.DENOISER, name))).half()
    path = write_file(tmp_path / "base.safetensors", {f"model.diffusion_model.{name}.weight": weight})
    found = read_base(path, target).weight(ModuleRef(Component.DENOISER, name))
    assert torch.equal(found, weight.float())


# ---------------------------------------------------------------- LoKr


def kronecker_error(change, shape):
    """Van Loan's optimum by the SVD of the rearranged matrix, in float64."""
    o1, i1 = (next(n for n in range(8, 0, -1) if side % n == 0) for side in shape[:2])
    parts = change.double().reshape(o1, shape[0] // o1, i1, -1).transpose(1, 2)
    values = torch.linalg.svdvals(parts.flatten(2).flatten(0, 1)).square()
    return float(values[1:].sum() / values.sum()) ** 0.5


@pytest.mark.parametrize("path", [CROSS, KERNEL])
@pytest.mark.parametrize("kind", ["lora", "difference"])
def test_a_change_becomes_the_nearest_kronecker_product(path, kind):
    shape, module = SHAPES[path], denoiser(path)[0]
    adapter = adapter_of(path, pair(path) if kind == "lora" else {R.DIFF: noise(*shape)})
    change = adapter.layers[module].delta(shape)
    found, errors = rewrite_as_lokr(adapter, None)
    made = found.layers[module]
    assert made.parametrization.id == "lokr"
    assert made.extent.fits(shape)
    optimum = kronecker_error(change, shape)
    assert error(made.delta(shape), change) == pytest.approx(optimum, rel=1e-3)
    assert errors[module] == pytest.approx(optimum, rel=1e-3)
    low, errors = rewrite_as_lokr(adapter, 3)
    assert low.layers[module].rank == 3
    assert errors[module] == pytest.approx(error(low.layers[module].delta(shape), change), rel=1e-3)


@pytest.mark.parametrize("path", [CROSS, KERNEL])
def test_a_lokr_comes_back_from_lora_as_it_was(path):
    """LoRA at full rank, and from its factors LoKr again, without the weight in between."""
    shape, module = SHAPES[path], denoiser(path)[0]
    kernel = shape[2:]
    tensors = {
        R.LOKR_W1: noise(8, 8),
        R.LOKR_W2_A: noise(40, 3),
        R.LOKR_W2_B: noise(3, math.prod(shape[1:]) // 8),
        R.ALPHA: scalar_tensor(6),
    }
    assert not kernel or tensors[R.LOKR_W2_B].shape == (3, 40 * 9)
    adapter = adapter_of(path, tensors)
    lora, _ = rewrite_as_lora(adapter, rank_rule(24, None))
    assert lora.layers[module].rank == 24
    back, errors = rewrite_as_lokr(lora, None)
    assert errors[module] < 1e-3  # what ‖ΔW‖² − σ² can show in float32
    assert error(back.layers[module].delta(shape), adapter.layers[module].delta(shape)) < 1e-5


def test_the_factors_and_the_whole_matrix_give_one_kronecker_product():
    left, right = torch.randn(24, 5), torch.randn(5, 30)
    one, two = nearest(Factors(left, right), (24, 30), "m"), nearest(Factors(left @ right, None), (24, 30), "m")
    assert error(torch.kron(one.first, one.second), torch.kron(two.first, two.second)) < 1e-5


def test_modules_that_are_no_matrix_or_lokr_already_are_left_alone():
    norm, lokr = ModuleRef(Component.DENOISER, "conv_norm_out"), denoiser(CROSS)[0]
    layers = {
        norm: Layer({R.NORM_WEIGHT: noise(320)}, "n"),
        lokr: Layer({R.LOKR_W1: noise(8, 8), R.LOKR_W2: noise(40, 96)}, "k"),
    }
    adapter = Adapter(architecture("sd1"), layers)
    found, errors = rewrite_as_lokr(adapter, None)
    assert (dict(found.layers), errors) == (layers, {})


# ---------------------------------------------------------------- DyLoRA


@pytest.mark.parametrize(
    "metadata", [{"ss_network_module": "networks.dylora"}, {"ss_network_args": '{"algo": "dylora"}'}]
)
@pytest.mark.parametrize("path", [CROSS, KERNEL])
def test_a_dylora_is_cut_to_its_first_directions_at_the_scale_it_trained_them_with(metadata, path):
    module, shape = denoiser(path)[0], SHAPES[path]
    adapter = Adapter(architecture("sd1"), {module: Layer(pair(path), "m")}, metadata)
    found, errors = rewritten(adapter, "kohya", Wish("lora", rank=1))
    layer, whole = found.layers[module], adapter.layers[module]
    assert (layer.rank, layer.scale) == (1, pytest.approx(whole.scale * 2))  # √(4 / 1)
    up, down = whole.float(R.UP).flatten(1)[:, :1], whole.float(R.DOWN).flatten(1)[:1]
    assert error(layer.delta(shape), (up @ down).reshape(shape)) < 1e-6
    assert errors[module] == pytest.approx(error(layer.delta(shape), whole.delta(shape)), rel=1e-4)
    assert rewritten(found, "kohya", Wish("lora", rank=1))[1] == {}


def test_an_ordinary_lora_is_cut_only_if_it_is_called_a_dylora():
    adapter = adapter_of(CROSS, pair(CROSS))
    kept, errors = rewritten(adapter, "kohya", Wish("lora", rank=1))
    assert (kept.layers[denoiser(CROSS)[0]].rank, errors) == (4, {})
    cut, _ = rewritten(adapter, "kohya", Wish("dylora", rank=3))
    assert cut.layers[denoiser(CROSS)[0]].rank == 3


@pytest.mark.parametrize("wish", [Wish("dylora"), Wish("lokr", energy=0.9), Wish("glora", rank=1), Wish("boft")])
def test_wishes_that_cannot_be_meant_are_told_so(wish):
    with pytest.raises(UsageProblem):
        rewritten(adapter_of(CROSS, pair(CROSS)), "kohya", wish)


def test_full_rank_and_sparse_forms_become_ordinary_loras():
    module = denoiser(CROSS)[0]
    for tensors in (
        {R.DOWN: noise(320, 768), R.ALPHA: scalar_tensor(4), R.UP_BIAS: noise(320)},
        {**pair(CROSS), R.SPARSE_INDICES: from_torch(torch.tensor([[0, 319], [5, 767]])), R.SPARSE_VALUES: noise(2)},
    ):
        adapter = adapter_of(CROSS, tensors)
        found, _ = rewritten(adapter, "diffusers", Wish("lora", rank=320))
        layer = found.layers[module]
        assert {R.UP, R.DOWN} <= layer.tensors.keys()
        assert not {R.SPARSE_INDICES, R.SPARSE_VALUES} & layer.tensors.keys()
        assert error(layer.delta((320, 768)), adapter.layers[module].delta((320, 768))) < 1e-5
        with pytest.raises(UsageProblem, match="full-rank"):
            rewritten(adapter, "diffusers", Wish("lora"))
