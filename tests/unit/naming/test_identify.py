"""Identification: what a few modules leave open is said to be open, metadata only break ties, strangers are named."""

import pytest
from support.adapters import decoded, denoiser, in_memory, lora, modules_like
from support.files import Raw, number, random_tensor

from hubtool.adapters.codec import decode
from hubtool.errors import NotAnAdapter, UnknownArchitecture
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture
from hubtool.operations.inspect import inspect_file


def candidates(tensors: dict[str, Raw], metadata: dict[str, str] | None = None) -> list[str]:
    """Architectures in the order in which they are offered."""
    return [found.architecture for found in decoded(tensors, metadata).identification.candidates]


def encoder(component: Component, count: int = 12) -> list[ModuleRef]:
    paths = [f"text_model.encoder.layers.{layer}.self_attn.q_proj" for layer in range(count)]
    return [ModuleRef(component, path) for path in paths]


@pytest.mark.parametrize(
    ("architecture_id", "endings"),
    [
        ("sd1", ("attn2.to_k",)),
        ("sd1", ("attn1.to_q", "attn2.to_v")),
        ("sd2", ("attn2.to_k",)),
        ("sdxl", ("attn2.to_k",)),
        ("sdxl", ("attn1.to_q",)),
        ("flux1", ("attn.qkv",)),
        ("flux1", ("linear1", "linear2")),
    ],
)
@pytest.mark.parametrize("dialect", ["kohya", "comfyui"])
def test_a_file_of_one_kind_of_modules_is_recognised(
    architecture_id: str, endings: tuple[str, ...], dialect: str
) -> None:
    assert candidates(lora(architecture_id, dialect, modules_like(architecture_id, *endings)))[0] == architecture_id


@pytest.mark.parametrize("architecture_id", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("dialect", ["kohya", "diffusers", "diffusers-old", "peft", "comfyui", "original"])
def test_a_file_with_text_width_layers_is_of_one_architecture_only(architecture_id: str, dialect: str) -> None:
    tensors = lora(architecture_id, dialect, modules_like(architecture_id, "attn2.to_k", "attn2.to_v"))
    assert candidates(tensors) == [architecture_id]


def test_self_attention_alone_leaves_sd1_and_sd2_open() -> None:
    found = decoded(lora("sd1", "kohya", modules_like("sd1", "attn1.to_q"))).identification
    assert [candidate.architecture for candidate in found.candidates] == ["sd1", "sd2"]
    assert found.ambiguous


@pytest.mark.parametrize(
    ("component", "architecture_id", "expected"),
    [(Component.CLIP_L, "sd1", {"sd1"}), (Component.CLIP_H, "sd2", {"sd2"}), (Component.CLIP_G, "sdxl", {"sdxl"})],
)
def test_a_text_encoder_alone_is_recognised_by_its_width(
    component: Component, architecture_id: str, expected: set[str]
) -> None:
    found = candidates(lora(architecture_id, "kohya", encoder(component)))
    assert found[0] == architecture_id
    assert expected <= set(found)


def test_the_clip_of_several_models_is_reported_as_open() -> None:
    found = decoded(lora("sdxl", "kohya", encoder(Component.CLIP_L))).identification
    assert found.ambiguous
    assert {"sdxl", "flux1"} <= {candidate.architecture for candidate in found.candidates}


@pytest.mark.parametrize("path", ["mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1"])
def test_a_single_module_is_enough_for_candidates(path: str) -> None:
    tensors = lora("sd1", "kohya", denoiser(path))
    found = decoded(tensors)
    assert found.layers.keys() == {ModuleRef(Component.DENOISER, path)}
    assert {"sd1", "sd2"} <= {candidate.architecture for candidate in found.identification.candidates}


def test_metadata_break_a_tie_without_hiding_it() -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn1.to_q"))
    found = decoded(tensors, {"ss_base_model_version": "sd_v2"})
    assert found.architecture.id == "sd2"
    assert found.identification.ambiguous
    assert any("sd_v2" in line for line in found.identification.candidates[0].evidence)


@pytest.mark.parametrize("key", ["modelspec.architecture", "ss_base_model_version"])
@pytest.mark.parametrize(
    "lie", ["stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0", "flux-1-dev/lora", "", "nonsense"]
)
def test_metadata_never_outweigh_the_tensors(key: str, lie: str) -> None:
    assert candidates(lora("sd1", "kohya", modules_like("sd1", "attn2.to_k")), {key: lie}) == ["sd1"]


@pytest.mark.parametrize("architecture_id", ["sd1", "sd2", "sdxl", "flux1"])
@pytest.mark.parametrize("key", ["modelspec.architecture", "ss_base_model_version"])
def test_odd_metadata_do_no_harm(architecture_id: str, key: str) -> None:
    tensors = lora(architecture_id, "kohya", modules_like(architecture_id, "attn2.to_k", "attn.qkv"))
    for text in ("\x1b[2J", "x" * 100_000, "\u202e", "{", "sd" * 999):
        assert candidates(tensors, {key: text})[0] == architecture_id


def test_tensors_of_another_kind_are_left_over_and_change_nothing() -> None:
    tensors = lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k"), alpha=2)
    extra = {
        f"bundle_emb.token.{name}": random_tensor(1, (3, 768)) for name in ("clip_l", "clip_g", "string_to_param.*")
    }
    found = decoded({**extra, **tensors})
    assert found.architecture.id == "sdxl"
    assert set(found.leftovers) == set(extra)
    report = inspect_file(in_memory({**extra, **tensors}))
    assert report.coverage == pytest.approx(len(tensors) / (len(tensors) + 3))
    assert set(report.leftovers) == set(extra)


def test_every_tensor_is_in_a_layer_or_left_over() -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn2.to_k", "ff.net.2"), alpha=2)
    odd = {f"lora_unet_mid_block_attentions_0_proj_in{end}": number(1) for end in (".rubbish", ".alpha.x", "", ".")}
    odd |= {"lora_unet_no_such_module.alpha": number(1), "": number(1), "lora_unet_.alpha": number(1)}
    found = decoded({**tensors, **odd})
    assert sum(len(layer.tensors) for layer in found.layers.values()) + len(found.leftovers) == len(tensors) + len(odd)
    assert set(found.leftovers) == set(odd)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_few_modules_of_a_second_dialect_are_found_among_many_strangers(count: int) -> None:
    tensors = lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k", "attn2.to_v", "attn1.to_q"))
    strangers = {f"zz_unknown_{i}.lora_up.weight": number(1, "F16", (4, 4)) for i in range(97)}
    others = denoiser(*[ref.path for ref in modules_like("sdxl", "ff.net.2")][:count])
    found = decoded({**tensors, **strangers, **lora("sdxl", "diffusers", others)})
    assert set(others) <= set(found.layers)
    assert found.mixed == ("diffusers",)
    assert set(found.leftovers) == set(strangers)


def test_two_names_of_one_tensor_are_a_duplicate_that_is_kept() -> None:
    refs = modules_like("sd1", "attn2.to_k")
    kohya, peft = lora("sd1", "kohya", refs), lora("sd1", "peft", refs[:1])
    found = decoded({**kohya, **peft})
    assert set(found.duplicates) == set(peft) == set(found.leftovers)


@pytest.mark.parametrize(
    "keys", [["lora_unet_nothing_known.lora_up.weight"], ["foo.lora_A.weight", "foo.lora_B.weight"], ["x.alpha"]]
)
def test_modules_of_no_known_model_are_no_architectures(keys: list[str]) -> None:
    with pytest.raises(UnknownArchitecture):
        decoded({key: number(1, "F16", (4, 4)) for key in keys})


@pytest.mark.parametrize("keys", [[], ["model.weight"], ["conv_in.weight", "conv_in.bias"]])
def test_a_file_without_an_adapters_tensors_is_no_adapter(keys: list[str]) -> None:
    with pytest.raises(NotAnAdapter):
        decoded({key: number(1, "F16", (4, 4)) for key in keys})


def test_an_architecture_that_is_asked_for_is_used_if_it_fits() -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn1.to_q"))
    assert decode(in_memory(tensors), architecture_id="sd2").architecture is architecture("sd2")
    with pytest.raises(UnknownArchitecture, match="flux1"):
        decode(in_memory(tensors), architecture_id="flux1")
    with pytest.raises(UnknownArchitecture, match="sd9"):
        decode(in_memory(tensors), architecture_id="sd9")


def test_names_that_fit_where_no_shape_does_are_told_apart_from_a_fit() -> None:
    refs = modules_like("sd1", "attn2.to_k")
    wrong = {
        key: random_tensor(1, tuple(99 if side > 4 else side for side in raw.shape))
        for key, raw in lora("sd1", "kohya", refs).items()
    }
    found = decoded(wrong)
    assert set(found.misfits) == set(refs)
    assert "shapes do not" in found.identification.candidates[0].evidence[0]


def test_one_wrong_shape_among_many_is_a_misfit_of_its_module() -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn2.to_k"))
    key = next(key for key in tensors if key.endswith("up.weight"))
    tensors[key] = random_tensor(1, (77, 4))
    found = decoded(tensors)
    assert [found.layers[module].base for module in found.misfits] == [key.removesuffix(".lora_up.weight")]
    assert not found.leftovers


def test_the_evidence_counts_modules_of_each_component() -> None:
    refs = [*modules_like("sdxl", "attn2.to_k"), *encoder(Component.CLIP_G, 5)]
    evidence = "\n".join(decoded(lora("sdxl", "kohya", refs)).identification.candidates[0].evidence)
    assert f"{len(refs) - 5} modules of denoiser" in evidence
    assert "5 modules of clip_g" in evidence
