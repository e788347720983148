"""Every way in which tools spell the keys of SD 1.x, 2.x, SDXL and FLUX leads to the same modules."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from support.adapters import decoded
from support.files import number, random_tensor

from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import architecture

KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
RAW = (".lora_A.default.weight", ".lora_B.default.weight")
OLD = (".lora.down.weight", ".lora.up.weight")
LINEAR = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
PLAIN = (".down.weight", ".up.weight")


class Variant(NamedTuple):
    """Beginnings of keys that name these modules, in one tool's way."""

    dialect: str
    architecture: str
    suffixes: tuple[str, str]
    bases: dict[str, ModuleRef]
    malformed: bool = False


def unet(path: str) -> ModuleRef:
    return ModuleRef(Component.DENOISER, path)


A = "attentions.0.transformer_blocks.0.attn2.to_k"
CLIP = "text_model.encoder.layers.3.self_attn.q_proj"
T5 = "encoder.block.2.layer.1.DenseReluDense.wi_0"


def of(component: Component) -> Callable[[str], ModuleRef]:
    return lambda path: ModuleRef(component, path)


L, G, H, X = of(Component.CLIP_L), of(Component.CLIP_G), of(Component.CLIP_H), of(Component.T5)


VARIANTS = {
    "K1 unet and te": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}"),
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj": L(CLIP)}),
    "K1 for SD 2.x": Variant("kohya", "sd2", KOHYA, {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}"),
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj": H(CLIP)}),
    "te1 in an SD 1.x file": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"mid_block.{A}"),
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": L(CLIP)}),
    "two underscores": Variant("kohya", "sd1", KOHYA, {
        "lora_unet__down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}")}),
    "K2": Variant("kohya", "sdxl", KOHYA, {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}"),
        "lora_unet_output_blocks_5_2_conv": unet("up_blocks.1.upsamplers.0.conv"),
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": L(CLIP),
        "lora_te2_text_model_encoder_layers_3_self_attn_q_proj": G(CLIP),
        "lora_te2_text_projection": G("text_projection")}),
    "K2b": Variant("kohya", "sdxl", KOHYA, {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}"),
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": L(CLIP),
        "lora_te2_text_model_encoder_layers_3_self_attn_q_proj": G(CLIP)}),
    "SD 1.x in the authors' names": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k": unet(f"down_blocks.1.{A}")}),
    "K3": Variant("kohya", "flux1", KOHYA, {
        "lora_unet_double_blocks_0_img_attn_qkv": unet("double_blocks.0.img_attn.qkv"),
        "lora_unet_double_blocks_0_txt_mlp_2": unet("transformer_blocks.0.ff_context.net.2"),
        "lora_unet_single_blocks_37_linear1": unet("single_blocks.37.linear1"),
        "lora_unet_final_layer_adaLN_modulation_1": unet("final_layer.adaLN_modulation.1"),
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": L(CLIP),
        "lora_te3_encoder_block_2_layer_1_DenseReluDense_wi_0": X(T5)}),
    "K3 with T5 as te2": Variant("kohya", "flux1", KOHYA, {
        "lora_unet_double_blocks_0_img_attn_qkv": unet("double_blocks.0.img_attn.qkv"),
        "lora_te2_encoder_block_2_layer_1_DenseReluDense_wi_0": X(T5)}),
    "D1": Variant("diffusers-old", "sd1", PLAIN, {
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora": unet(f"mid_block.{A}"),
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora":
            unet("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")}),
    "D1 without a prefix": Variant("diffusers-old", "sd1", PLAIN, {
        "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora": unet(f"mid_block.{A}"),
        "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora":
            unet("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")}),
    "D1 with its text encoder": Variant("diffusers-old", "sd1", PLAIN, {
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora": unet(f"mid_block.{A}"),
        "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora": L(CLIP),
        "text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora": L(CLIP.replace("q_proj", "out_proj"))}),
    "D2": Variant("diffusers-old", "sdxl", OLD, {
        "unet.mid_block.attentions.0.transformer_blocks.9.attn2.to_k":
            unet("mid_block.attentions.0.transformer_blocks.9.attn2.to_k"),
        "unet.mid_block.attentions.0.proj_in": unet("mid_block.attentions.0.proj_in")}),
    "D2 for FLUX": Variant("diffusers-old", "flux1", OLD, {
        "transformer.single_transformer_blocks.0.attn.to_k": unet("single_transformer_blocks.0.attn.to_k"),
        "transformer.transformer_blocks.0.attn.add_q_proj": unet("transformer_blocks.0.attn.add_q_proj")}),
    "D2 text encoders": Variant("diffusers-old", "sdxl", LINEAR, {
        "text_encoder.text_model.encoder.layers.3.self_attn.q_proj": L(CLIP),
        "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj": G(CLIP)}),
    "D3": Variant("diffusers", "sdxl", PEFT, {
        f"unet.down_blocks.1.{A}": unet(f"down_blocks.1.{A}"),
        f"text_encoder.{CLIP}": L(CLIP), f"text_encoder_2.{CLIP}": G(CLIP)}),
    "D3 without text_model": Variant("diffusers", "sdxl", PEFT, {
        f"unet.down_blocks.1.{A}": unet(f"down_blocks.1.{A}"),
        "text_encoder.encoder.layers.3.self_attn.q_proj": L(CLIP),
        "text_encoder_2.encoder.layers.3.self_attn.q_proj": G(CLIP)}),
    "D3 for FLUX": Variant("diffusers", "flux1", PEFT, {
        "transformer.transformer_blocks.0.attn.to_out.0": unet("transformer_blocks.0.attn.to_out.0"),
        "transformer.norm_out.linear": unet("norm_out.linear"),
        f"text_encoder.{CLIP}": L(CLIP), f"text_encoder_2.{T5}": X(T5)}),
    "D3 without .weight": Variant("diffusers", "flux1", (".lora_A", ".lora_B"), {
        "transformer.transformer_blocks.0.attn.to_q": unet("transformer_blocks.0.attn.to_q")}),
    "P1": Variant("peft", "sd1", PEFT, {f"base_model.model.mid_block.{A}": unet(f"mid_block.{A}")}),
    "P1 around a pipeline": Variant("peft", "sd1", PEFT, {f"base_model.model.unet.mid_block.{A}": unet(f"mid_block.{A}")}),
    "P1 inside a component": Variant("peft", "flux1", PEFT, {
        "transformer.base_model.model.transformer_blocks.0.attn.to_q": unet("transformer_blocks.0.attn.to_q")}),
    "P1 inside the unet": Variant("peft", "sd1", PEFT, {f"unet.base_model.model.mid_block.{A}": unet(f"mid_block.{A}")}),
    "P2": Variant("peft", "flux1", RAW, {
        "transformer.transformer_blocks.0.attn.to_q": unet("transformer_blocks.0.attn.to_q")}),
    "P2 without a prefix": Variant("peft", "flux1", RAW, {
        "single_transformer_blocks.0.proj_out": unet("single_transformer_blocks.0.proj_out")}),
    "P2 in the authors' names": Variant("peft", "flux1", RAW, {
        "double_blocks.0.img_attn.qkv": unet("double_blocks.0.img_attn.qkv")}),
    "P2 inside a component": Variant("peft", "sd1", (".lora_A.my-style.weight", ".lora_B.my-style.weight"), {
        f"base_model.model.mid_block.{A}": unet(f"mid_block.{A}")}),
    "F1": Variant("peft", "flux1", PEFT, {
        "base_model.model.double_blocks.0.img_attn.qkv": unet("double_blocks.0.img_attn.qkv"),
        "base_model.model.single_blocks.0.linear1": unet("single_blocks.0.linear1")}),
    "C1": Variant("comfyui", "flux1", PEFT, {
        "diffusion_model.double_blocks.0.img_attn.qkv": unet("double_blocks.0.img_attn.qkv"),
        f"text_encoders.clip_l.transformer.{CLIP}": L(CLIP), f"text_encoders.t5xxl.transformer.{T5}": X(T5)}),
    "C1 with down and up": Variant("comfyui", "sdxl", KOHYA, {
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k": unet(f"down_blocks.1.{A}"),
        f"text_encoders.clip_g.transformer.{CLIP}": G(CLIP)}),
    "C1 twice wrapped": Variant("comfyui", "sd1", PEFT, {
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k": unet(f"mid_block.{A}")}),
    "C1 in diffusers' names": Variant("comfyui", "flux1", PEFT, {
        "diffusion_model.transformer_blocks.0.attn.to_q": unet("transformer_blocks.0.attn.to_q")}),
    "Z1 dots left": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2.to_k": unet(f"mid_block.{A}"),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out.0":
            unet("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")}, malformed=True),
    "Z1 trailing underscore": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k_": unet(f"mid_block.{A}")}, malformed=True),
    "Z1 suffixes of another tool": Variant("kohya", "sd1", PEFT, {
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k": unet(f"mid_block.{A}")}, malformed=True),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_spelling_leads_to_its_modules(variant: Variant) -> None:
    tensors = {}
    for base, module in variant.bases.items():
        shape = architecture(variant.architecture).shape(module)
        down, up = (base + suffix for suffix in variant.suffixes)
        tensors |= {
            down: random_tensor(1, (4, *shape[1:])),
            up: random_tensor(2, (shape[0], 4, *(1,) * len(shape[2:]))),
        }
    found = decoded(tensors, architecture_id=variant.architecture)  # so few modules fit relatives just as well
    assert found.dialect == variant.dialect
    assert variant.architecture in {candidate.architecture for candidate in found.identification.candidates}
    assert {module: layer.base for module, layer in found.layers.items()} == {
        m: base for base, m in variant.bases.items()
    }
    assert (found.malformed, dict(found.leftovers), found.misfits) == (variant.malformed, {}, ())


def test_oft_of_sd_scripts_has_a_prefix_of_its_own() -> None:
    base = "oft_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    found = decoded({f"{base}.oft_blocks": random_tensor(1, (4, 320, 320)), f"{base}.alpha": number(1)})
    assert (found.dialect, found.layers.keys()) == ("kohya", {unet(f"mid_block.{A}")})


def test_a_magnitude_under_a_name_with_dots_joins_the_module_of_its_flat_factors() -> None:
    base = "lora_unet_middle_block_1_transformer_blocks_8_attn2"
    tensors = {
        f"{base}_to_q.lora_down.weight": random_tensor(1, (4, 1280)),
        f"{base}_to_q.lora_up.weight": random_tensor(2, (1280, 4)),
        f"{base}.to_q.lora_magnitude_vector": random_tensor(3, (1280,)),
    }
    found = decoded(tensors)
    assert found.malformed
    assert [len(layer.tensors) for layer in found.layers.values()] == [3]


def test_two_adapters_in_one_dump_are_not_mixed_up() -> None:
    base = f"base_model.model.mid_block.{A}"
    shapes = {"lora_A": (4, 768), "lora_B": (1280, 4)}
    tensors = {
        f"{base}.{part}.{name}.weight": random_tensor(1, shape)
        for name in ("one", "two")
        for part, shape in shapes.items()
    }
    found = decoded(tensors)
    assert len(found.layers) == 1
    assert set(found.leftovers) == {key for key in tensors if ".two." in key}
