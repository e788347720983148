"""Extraction in other forms than two factors, of vectors, by other rules, and what is said of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from support.checkpoints import KERNEL, ldm_keys, small_model, tuned, unet, write_file, write_ldm

from hubtool.adapters.codec import read_adapter
from hubtool.errors import NotRepresentable, UsageProblem
from hubtool.formats.safetensors import read_safetensors
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.operations.extract import Extraction, ExtractOptions, extract
from hubtool.operations.extract_forms import tucker
from hubtool.operations.extract_layers import Extracted
from hubtool.operations.extract_report import suggested_rank

if TYPE_CHECKING:
    from pathlib import Path

NORM = "down_blocks.0.attentions.0.norm"


def run(tmp_path: Path, rank: int = 40, **options: object) -> tuple[Extraction, dict[ModuleRef, torch.Tensor]]:
    """Extract a change of this rank; returns the report and ΔW of each module."""
    base = small_model()
    changed = tuned(base, rank=rank)
    paths = [write_ldm(tmp_path / f"{name}.safetensors", w) for name, w in (("base", base), ("tuned", changed))]
    found = extract(paths[1], paths[0], tmp_path / "out.safetensors", ExtractOptions(**options))  # type: ignore[arg-type]  # named by each test
    return found, {module: changed[module].float() - base[module].float() for module in base}


def actual_error(path: Path, changes: dict[ModuleRef, torch.Tensor]) -> float:
    """‖ΔW − what the file says‖ / ‖ΔW‖ over the file's modules."""
    layers = read_adapter(path).layers
    pairs = [(changes[module], layer.delta(tuple(changes[module].shape))) for module, layer in layers.items()]
    error = sum(float((change - delta.reshape(change.shape)).square().sum()) for change, delta in pairs)
    return math.sqrt(error / sum(float(change.square().sum()) for change, _ in pairs))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"rank": 8, "conv": "tucker"}, {"lora"}),
        ({"parametrization": "lokr"}, {"lokr"}),
        ({"parametrization": "full"}, {"full"}),
    ],
)
def test_every_form_is_read_back_with_the_error_that_was_reported(
    tmp_path: Path, options: dict[str, object], kinds: set[str]
) -> None:
    found, changes = run(tmp_path, **options)
    adapter = read_adapter(tmp_path / "out.safetensors")
    assert {layer.parametrization.id for layer in adapter.layers.values() if layer.parametrization} == kinds
    assert found.relative_error == pytest.approx(
        actual_error(tmp_path / "out.safetensors", changes), rel=1e-3, abs=1e-6
    )
    assert not adapter.leftovers


def test_the_whole_change_is_the_change_in_float16(tmp_path: Path) -> None:
    _, changes = run(tmp_path, parametrization="full")
    for module, layer in read_adapter(tmp_path / "out.safetensors").layers.items():
        assert torch.equal(layer.float(Role.DIFF), changes[module].half().float().reshape(layer.shapes[Role.DIFF]))


def test_a_kronecker_product_comes_back_whole(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    base = {module: weight.float() for module, weight in small_model().items() if module == unet(KERNEL)[0]}
    first, second = torch.randn(8, 8, generator=generator), torch.randn(40, 360, generator=generator)
    change = 1e-3 * torch.kron(first, second).reshape(320, 8 * 40, 3, 3)
    paths = [
        write_ldm(tmp_path / f"{name}.safetensors", {m: w + add for m, w in base.items()})
        for name, add in (("base", torch.zeros(1)), ("tuned", change))
    ]
    found = extract(paths[1], paths[0], tmp_path / "o.safetensors", ExtractOptions(parametrization="lokr", dtype="F32"))
    assert found.relative_error is not None
    assert found.relative_error < 1e-3


def test_a_tucker_core_holds_a_kernel_of_its_rank_whole_and_its_factors_are_of_one_size() -> None:
    generator = torch.Generator().manual_seed(0)
    up, core, down = (torch.randn(shape, generator=generator) for shape in ((70, 6), (6, 6, 3, 3), (6, 90)))
    change = 1e-4 * torch.einsum("om,mnxy,ni->oixy", up, core, down)
    parts = tucker(change, 6)
    again = torch.einsum("om,mnxy,ni->oixy", *parts)
    assert float((again - change).norm()) < 1e-5 * float(change.norm())
    sizes = [float(part.square().mean().sqrt()) for part in parts]
    assert max(sizes) < 30 * min(sizes)


def test_a_dialect_without_cores_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(NotRepresentable):
        run(tmp_path, rank=8, conv="tucker", dialect="diffusers")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"parametrization": "lokr", "rank": 8},
        {"parametrization": "full", "energy": 0.9},
        {"parametrization": "lokr", "conv": "tucker"},
        {"conv": "tucker", "energy": 0.9},
        {"ratio": 0.1, "quantile": 0.9},
        {"ratio": 1.5},
        {"quantile": 0.0},
        {"device": "abacus"},
        {"device": "cuda:x"},
        {"device": "cuda:99"},
        {"device": "mps:7"},
    ],
)
def test_options_that_say_nothing_together_are_refused_before_the_work(
    options: dict[str, object], tmp_path: Path
) -> None:
    given = {"rank": None, **options}
    with pytest.raises(UsageProblem):
        extract(tmp_path / "a", tmp_path / "b", tmp_path / "c", ExtractOptions(**given))  # type: ignore[arg-type]  # as above


def test_ratio_and_quantile_give_the_ranks_of_a_full_decomposition(tmp_path: Path) -> None:
    for name, share in (("ratio", 0.5), ("quantile", 0.4)):
        found, changes = run(tmp_path, **{name: share, "force": True})  # type: ignore[arg-type]  # as above
        for layer in found.layers:
            values = torch.linalg.svdvals(
                changes[ModuleRef(Component(layer.component), layer.module)].double().flatten(1)
            )
            sums = values.cumsum(0) / values.sum()
            wanted = int((values > share * values[0]).sum()) if name == "ratio" else int((sums < share).sum()) + 1
            assert layer.rank == wanted, (name, layer.module)
            assert layer.singular_values == pytest.approx(values[:wanted].tolist(), rel=5e-3)


def models_with_vectors(tmp_path: Path) -> tuple[Path, Path]:
    """A pair whose biases and norms differ, too."""
    base = small_model()
    names = ("base", "tuned")
    for name, weights, shift in zip(names, (base, tuned(base)), (0.0, 0.25), strict=True):
        keys = ldm_keys(weights)
        keys["model.diffusion_model.input_blocks.1.0.in_layers.2.bias"] = torch.full((320,), shift).half()
        keys["model.diffusion_model.input_blocks.1.1.norm.weight"] = torch.full((320,), 1 + shift).half()
        keys["model.diffusion_model.input_blocks.1.1.norm.bias"] = torch.full((320,), 2 * shift).half()
        write_file(tmp_path / f"{name}.safetensors", keys)
    return tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"


def test_biases_and_norms_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    base, changed = models_with_vectors(tmp_path)
    options = ExtractOptions(rank=4, biases=True, norms=True)
    found = extract(changed, base, tmp_path / "with.safetensors", options)
    layers = read_adapter(tmp_path / "with.safetensors").layers
    kernel, norm = layers[unet(KERNEL)[0]], layers[unet(NORM)[0]]
    assert kernel.float(Role.DIFF_BIAS).unique().tolist() == [0.25]
    assert kernel.rank == 4
    assert norm.float(Role.NORM_WEIGHT).unique().tolist() == [0.25]
    assert norm.float(Role.NORM_BIAS).unique().tolist() == [0.5]
    assert any("written whole" in note for note in found.notes)
    plain = extract(changed, base, tmp_path / "without.safetensors", replace(options, biases=False, norms=False))
    assert unet(NORM)[0] not in read_adapter(tmp_path / "without.safetensors").layers
    assert found.left_out is not None
    assert plain.left_out is not None
    assert found.left_out < plain.left_out


def test_the_form_is_said_to_uis(tmp_path: Path) -> None:
    run(tmp_path, parametrization="lokr")
    metadata = read_safetensors(tmp_path / "out.safetensors").metadata
    assert metadata["ss_network_module"] == "lycoris.kohya"
    assert json.loads(metadata["ss_network_args"])["algo"] == "lokr"


def layer(values: list[float], rest: float) -> Extracted:
    """A module with these squared singular values found, and more energy in those that were not."""
    norm = sum(values) + rest
    return Extracted(ModuleRef(Component.DENOISER, "a"), {}, len(values), norm, rest, 0.0, tuple(values))


def test_the_suggested_rank_holds_nine_tenths_or_is_the_least_that_could() -> None:
    assert suggested_rank([layer([8, 1, 0.5, 0.2], 0.3)]) == 2
    assert suggested_rank([layer([8, 1, 0.5, 0.2], 0.3), layer([4, 3, 2.5, 0.5], 0.0)]) == 3
    assert suggested_rank([layer([4, 1], 5)]) == 2 + 4  # four more directions of at most 1 make nine of ten
    assert suggested_rank([layer([], 1)]) is None
    assert suggested_rank([]) is None
