"""Every dialect reads back what it writes, for every architecture, module and role."""

from collections import Counter

import pytest
from support.naming import readings

from hubtool.errors import NotRepresentable, UnknownArchitecture, UnknownDialect
from hubtool.naming.address import Address, Component, ModuleRef, Role
from hubtool.naming.architecture import architecture, architecture_ids
from hubtool.naming.dialect import dialect, dialects

everywhere = pytest.mark.parametrize("architecture_id", architecture_ids())


@everywhere
def test_whatever_a_dialect_writes_before_the_suffix_it_reads_as_the_same_module(architecture_id: str) -> None:
    target = architecture(architecture_id)
    for spoken in dialects().values():
        names = spoken.written(target).items()
        assert {base: module for module, base in names if readings(spoken, target, base)[:1] != [module]} == {}


@everywhere
def test_no_two_modules_are_written_with_one_name(architecture_id: str) -> None:
    for spoken in dialects().values():
        names = Counter(spoken.written(architecture(architecture_id)).values())
        assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("dialect_id", list(dialects()))
@pytest.mark.parametrize("architecture_id", ["sd1", "sdxl", "flux1"])
def test_no_two_roles_of_a_module_are_written_with_one_key(architecture_id: str, dialect_id: str) -> None:
    target, spoken = architecture(architecture_id), dialect(dialect_id)
    for component in (Component.DENOISER, Component.CLIP_L):
        module = next((m for m in spoken.written(target) if m.component is component), None)
        said = [role for role in Role if spoken.says(role, component)] if module else []
        keys = {spoken.encode(target, Address(component, module.path, role)) for role in said}
        assert len(keys) == len(said)


@everywhere
def test_every_name_that_can_be_read_leads_to_a_module_with_a_shape(architecture_id: str) -> None:
    target = architecture(architecture_id)
    for spoken in dialects().values():
        for reader in spoken.readers(target):
            assert all(target.shape(module) for module in reader.paths.values())


def test_an_unknown_dialect_names_the_known_ones() -> None:
    with pytest.raises(UnknownDialect) as caught:
        dialect("kohyaa")
    assert "kohya" in caught.value.hint


def test_an_unknown_architecture_names_near_ones() -> None:
    with pytest.raises(UnknownArchitecture) as caught:
        architecture("sdx")
    assert "sdxl" in caught.value.hint


@pytest.mark.parametrize("role", [Role.ALPHA, Role.MID, Role.NORM_WEIGHT])
def test_what_a_dialect_cannot_say_is_refused_not_invented(role: Role) -> None:
    with pytest.raises(NotRepresentable):
        dialect("diffusers").encode(architecture("sd1"), Address(Component.DENOISER, "conv_in", role))


def test_a_module_without_a_name_is_refused_not_invented() -> None:
    with pytest.raises(NotRepresentable, match=r"attn\.to_q"):
        dialect("kohya").base(architecture("flux1"), ModuleRef(Component.DENOISER, "transformer_blocks.0.attn.to_q"))


@pytest.mark.parametrize(
    ("architecture_id", "dialect_id", "module", "expected"),
    [
        ("sd1", "kohya", "mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("sdxl", "kohya", "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("sdxl", "kohya", "up_blocks.0.upsamplers.0.conv", "lora_unet_output_blocks_2_2_conv"),
        ("sd1", "comfyui", "up_blocks.0.upsamplers.0.conv", "diffusion_model.output_blocks.2.1.conv"),
        ("sdxl", "diffusers", "conv_in", "unet.conv_in"),
        ("sdxl", "peft", "conv_in", "base_model.model.conv_in"),
        ("flux1", "kohya", "double_blocks.3.img_attn.qkv", "lora_unet_double_blocks_3_img_attn_qkv"),
        ("flux1", "kohya", "proj_out", "lora_unet_final_layer_linear"),
        ("flux1", "diffusers", "proj_out", "transformer.proj_out"),
        ("flux1", "comfyui", "single_blocks.1.linear1", "diffusion_model.single_blocks.1.linear1"),
        ("flux1", "original", "single_blocks.1.linear1", "single_blocks.1.linear1"),
    ],
)
def test_denoiser_modules_are_called_what_the_toolchain_calls_them(
    architecture_id: str, dialect_id: str, module: str, expected: str
) -> None:
    assert dialect(dialect_id).base(architecture(architecture_id), ModuleRef(Component.DENOISER, module)) == expected


_Q = "text_model.encoder.layers.0.self_attn.q_proj"
_T5 = "encoder.block.0.layer.0.SelfAttention.q"


@pytest.mark.parametrize(
    ("architecture_id", "dialect_id", "component", "module", "expected"),
    [
        ("sd1", "kohya", Component.CLIP_L, _Q, f"lora_te_{_Q.replace('.', '_')}"),
        ("sd2", "kohya", Component.CLIP_H, _Q, f"lora_te_{_Q.replace('.', '_')}"),
        ("sdxl", "kohya", Component.CLIP_L, _Q, f"lora_te1_{_Q.replace('.', '_')}"),
        ("sdxl", "kohya", Component.CLIP_G, "text_projection", "lora_te2_text_projection"),
        ("flux1", "kohya", Component.T5, _T5, f"lora_te3_{_T5.replace('.', '_')}"),
        ("flux1", "onetrainer", Component.T5, _T5, f"lora_te2_{_T5.replace('.', '_')}"),
        ("sd1", "diffusers", Component.CLIP_L, _Q, f"text_encoder.{_Q}"),
        ("sdxl", "diffusers", Component.CLIP_G, _Q, f"text_encoder_2.{_Q}"),
        ("flux1", "diffusers", Component.T5, _T5, f"text_encoder_2.{_T5}"),
        ("sd2", "comfyui", Component.CLIP_H, _Q, f"text_encoders.clip_h.transformer.{_Q}"),
        ("sdxl", "comfyui", Component.CLIP_G, _Q, f"text_encoders.clip_g.transformer.{_Q}"),
        ("flux1", "comfyui", Component.T5, _T5, f"text_encoders.t5xxl.transformer.{_T5}"),
    ],
)
def test_text_encoder_modules_are_called_what_the_toolchain_calls_them(
    architecture_id: str, dialect_id: str, component: Component, module: str, expected: str
) -> None:
    assert dialect(dialect_id).base(architecture(architecture_id), ModuleRef(component, module)) == expected
