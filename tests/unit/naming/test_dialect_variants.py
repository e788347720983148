"""The rarer ways in which tools spell keys: OneTrainer's, LyCORIS's wrapper, Tencent's, AnimateDiff's, cloneofsimo's, hybrids."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import pytest
from support.adapters import decoded
from support.files import Raw, number, random_tensor

from hubtool.errors import NotRepresentable
from hubtool.naming.address import Component, ModuleRef, Role
from hubtool.naming.architecture import architecture
from hubtool.naming.dialect import dialect, dialects, written_dialect
from hubtool.naming.suffixes import split_key

KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
PLAIN = (".down.weight", ".up.weight")
NUMBERED = (":down", ":up")


class Variant(NamedTuple):
    """Beginnings of keys that name these modules, in one tool's way."""

    dialect: str
    architecture: str
    suffixes: tuple[str, str]
    bases: Mapping[str, ModuleRef]
    malformed: bool = False


def of(component: Component) -> Callable[[str], ModuleRef]:
    return lambda path: ModuleRef(component, path)


unet = transformer = of(Component.DENOISER)
clip_l, clip_h, t5 = of(Component.CLIP_L), of(Component.CLIP_H), of(Component.T5)
CLIP = "text_model.encoder.layers.3.self_attn.q_proj"
T5 = "encoder.block.2.layer.1.DenseReluDense.wi_0"
MOTION = "down_blocks.1.motion_modules.0.transformer_blocks.0"
AUTHORS = "down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks"

VARIANTS = {
    "O1": Variant("onetrainer", "flux1", KOHYA, {
        "lora_transformer_transformer_blocks_0_attn_to_q": transformer("transformer_blocks.0.attn.to_q"),
        "lora_transformer_single_transformer_blocks_0_proj_mlp": transformer("single_transformer_blocks.0.proj_mlp"),
        "lora_te1_text_model_encoder_layers_3_self_attn_q_proj": clip_l(CLIP),
        "lora_te2_encoder_block_2_layer_1_DenseReluDense_wi_0": t5(T5)}),
    "O2 for FLUX": Variant("onetrainer", "flux1", KOHYA, {
        "transformer.double_blocks.0.img_attn.qkv.0": transformer("transformer_blocks.0.attn.to_q"),
        "transformer.double_blocks.0.img_attn.qkv.2": transformer("transformer_blocks.0.attn.to_v"),
        "transformer.double_blocks.0.txt_attn.qkv.1": transformer("transformer_blocks.0.attn.add_k_proj"),
        "transformer.single_blocks.5.linear1.3": transformer("single_transformer_blocks.5.proj_mlp"),
        "transformer.double_blocks.0.img_mlp.0": transformer("transformer_blocks.0.ff.net.0.proj"),
        "transformer.final_layer.adaLN_modulation.1": transformer("final_layer.adaLN_modulation.1"),
        "transformer.img_in.proj": transformer("x_embedder"),
        f"clip_l.{CLIP}": clip_l(CLIP), f"t5.{T5}": t5(T5)}),
    "O2 for SDXL": Variant("onetrainer", "sdxl", KOHYA, {
        "unet.input_blocks.4.1.transformer_blocks.0.attn2.to_k":
            unet("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"),
        "unet.middle_block.1.transformer_blocks.9.attn2.to_k":
            unet("mid_block.attentions.0.transformer_blocks.9.attn2.to_k")}),
    "OneTrainer's backups": Variant("diffusers", "flux1", KOHYA, {
        "transformer.transformer_blocks.0.attn.to_q": transformer("transformer_blocks.0.attn.to_q"),
        f"text_encoder.{CLIP}": clip_l(CLIP)}),
    "O3 original": Variant("original", "flux1", PEFT, {
        "double_blocks.0.img_attn.qkv": transformer("double_blocks.0.img_attn.qkv")}),
    "O3 comfy": Variant("comfyui", "flux1", PEFT, {
        "diffusion_model.double_blocks.0.img_attn.qkv": transformer("double_blocks.0.img_attn.qkv"),
        f"text_encoders.clip_l.transformer.{CLIP}": clip_l(CLIP)}),
    "L1": Variant("lycoris", "flux1", KOHYA, {
        "lycoris_transformer_blocks_0_attn_to_q": transformer("transformer_blocks.0.attn.to_q"),
        "lycoris_single_transformer_blocks_0_proj_mlp": transformer("single_transformer_blocks.0.proj_mlp")}),
    "L1 with a prefix of one's own": Variant("lycoris", "flux1", KOHYA, {
        "mystyle_transformer_blocks_0_attn_to_q": transformer("transformer_blocks.0.attn.to_q"),
        "mystyle_single_transformer_blocks_0_proj_mlp": transformer("single_transformer_blocks.0.proj_mlp")}),
    "L1 without a prefix": Variant("lycoris", "flux1", KOHYA, {
        "transformer_blocks_0_attn_to_q": transformer("transformer_blocks.0.attn.to_q"),
        "single_transformer_blocks_0_attn_to_q": transformer("single_transformer_blocks.0.attn.to_q")}),
    "H2": Variant("hunyuan", "hunyuanvideo", KOHYA, {
        "Hunyuan_video_I2V_lora_double_blocks_3_img_attn_qkv": transformer("double_blocks.3.img_attn.qkv"),
        "Hunyuan_video_I2V_lora_double_blocks_3_img_mlp_fc1": transformer("transformer_blocks.3.ff.net.0.proj"),
        "Hunyuan_video_I2V_lora_single_blocks_3_modulation_linear": transformer("single_transformer_blocks.3.norm.linear")}),
    "musubi's HunyuanVideo": Variant("kohya", "hunyuanvideo", KOHYA, {
        "lora_unet_double_blocks_3_txt_mlp_fc2": transformer("transformer_blocks.3.ff_context.net.2"),
        "lora_unet_double_blocks_3_img_mod_linear": transformer("transformer_blocks.3.norm1.linear")}),
    "FramePack's HunyuanVideo": Variant("kohya", "hunyuanvideo", KOHYA, {
        "lora_unet_transformer_blocks_3_attn_to_q": transformer("transformer_blocks.3.attn.to_q")}),
    "diffusion-pipe's HunyuanVideo": Variant("comfyui", "hunyuanvideo", PEFT, {
        "transformer.double_blocks.3.img_attn_qkv": transformer("double_blocks.3.img_attn.qkv"),
        "transformer.single_blocks.3.linear1": transformer("single_blocks.3.linear1")}),
    "Ideogram 4's conditional transformer": Variant("comfyui", "ideogram4", PEFT, {
        "conditional_transformer.layers.0.attention.qkv": transformer("layers.0.attention.qkv")}),
    "M1": Variant("animatediff", "animatediff", PLAIN, {
        f"{AUTHORS}.0.processor.to_q_lora": unet(f"{MOTION}.attn1.to_q"),
        f"{AUTHORS}.1.processor.to_out_lora": unet(f"{MOTION}.attn2.to_out.0")}),
    "M1 in diffusers' names": Variant("animatediff", "animatediff", PLAIN, {
        f"unet.{MOTION}.attn1.processor.to_q_lora": unet(f"{MOTION}.attn1.to_q"),
        f"unet.{MOTION}.attn2.processor.to_out_lora": unet(f"{MOTION}.attn2.to_out.0")}),
    "motion modules trained with PEFT": Variant("diffusers", "animatediff", PEFT, {
        f"unet.{MOTION}.attn1.to_q": unet(f"{MOTION}.attn1.to_q")}),
    "W1": Variant("cloneofsimo", "sd1", NUMBERED, {
        "unet:0": unet("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
        "unet:4": unet("down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj"),
        "unet:6": unet("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        "unet:54": unet("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
        "unet:143": unet("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"),
        "text_encoder:0": clip_l("text_model.encoder.layers.0.self_attn.k_proj"),
        "text_encoder:47": clip_l("text_model.encoder.layers.11.self_attn.out_proj")}),
    "W1 for SD 2.x": Variant("cloneofsimo", "sd2", NUMBERED, {
        "unet:6": unet("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        "text_encoder:2": clip_h("text_model.encoder.layers.0.self_attn.q_proj")}),
    "F1": Variant("peft", "flux1", PEFT, {
        "base_model.model.double_blocks.0.img_attn.qkv": transformer("double_blocks.0.img_attn.qkv")}),
    "H1": Variant("peft", "hunyuandit", PEFT, {
        "base_model.model.blocks.3.attn1.Wqkv": transformer("blocks.3.attn1.Wqkv"),
        "base_model.model.blocks.3.attn2.kv_proj": transformer("blocks.3.attn2.kv_proj")}),
    "P2 of DiffSynth's FLUX": Variant("peft", "flux1", (".lora_A.default.weight", ".lora_B.default.weight"), {
        "blocks.0.attn.a_to_qkv": transformer("double_blocks.0.img_attn.qkv"),
        "blocks.0.ff_b.2": transformer("transformer_blocks.0.ff_context.net.2"),
        "single_blocks.0.to_qkv_mlp": transformer("single_blocks.0.linear1")}),
    "P2 of DiffSynth's Wan": Variant("peft", "wan21-1.3b", (".lora_A.style.weight", ".lora_B.style.weight"), {
        "blocks.0.self_attn.q": transformer("blocks.0.attn1.to_q"),
        "blocks.0.ffn.0": transformer("blocks.0.ffn.net.0.proj")}),
    "K3 with two underscores": Variant("kohya", "wan21-1.3b", KOHYA, {
        "lora_unet__blocks_0_self_attn_q": transformer("blocks.0.attn1.to_q")}),
    "C2 in diffusers' names": Variant("original", "qwen-image", KOHYA, {
        "transformer_blocks.0.img_mlp.net.0.proj": transformer("transformer_blocks.0.img_mlp.net.0.proj")}),
    "Z1 dots left": Variant("kohya", "sdxl", KOHYA, {
        "lora_unet_middle_block_1_transformer_blocks_8_attn2_to_out.0":
            unet("mid_block.attentions.0.transformer_blocks.8.attn2.to_out.0")}, malformed=True),
    "Z1 trailing underscore": Variant("kohya", "sd1", KOHYA, {
        "lora_unet_down_blocks_0_attentions_0_proj_out_": unet("down_blocks.0.attentions.0.proj_out")}, malformed=True),
    "Z1 beheaded prefix": Variant("diffusers", "flux2", PEFT, {
        "sformer_blocks.0.attn.to_q": transformer("transformer_blocks.0.attn.to_q"),
        "le_transformer_blocks.0.attn.to_out": transformer("single_transformer_blocks.0.attn.to_out")}, malformed=True),
    "Z1 beheaded prefix behind another": Variant("diffusers", "flux2", PEFT, {
        "diffusion_model.sformer_blocks.0.attn.to_q": transformer("transformer_blocks.0.attn.to_q")}, malformed=True),
}  # fmt: skip


def factors(bases: Iterable[tuple[str, ModuleRef]], architecture_id: str, suffixes: tuple[str, str]) -> dict[str, Raw]:
    """A LoRA of rank 4 under these names."""
    tensors = {}
    for base, module in bases:
        shape = architecture(architecture_id).shape(module)
        assert shape is not None, module
        down, up = (base + suffix for suffix in suffixes)
        tensors[down] = random_tensor(1, (4, *shape[1:]))
        tensors[up] = random_tensor(2, (shape[0], 4, *(1,) * len(shape[2:])))
    return tensors


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_spelling_leads_to_its_modules(variant: Variant) -> None:
    tensors = factors(variant.bases.items(), variant.architecture, variant.suffixes)
    found = decoded(tensors, architecture_id=variant.architecture)  # so few modules fit relatives just as well
    assert found.dialect == variant.dialect
    assert {module: layer.base for module, layer in found.layers.items()} == {m: b for b, m in variant.bases.items()}
    assert (found.malformed, dict(found.leftovers), found.misfits) == (variant.malformed, {}, ())


@pytest.mark.parametrize(
    "name", ["O2 for FLUX", "L1 with a prefix of one's own", "H2", "M1", "W1", "Z1 beheaded prefix"]
)
def test_the_architecture_is_among_those_found_without_being_told(name: str) -> None:
    variant = VARIANTS[name]
    found = decoded(factors(variant.bases.items(), variant.architecture, variant.suffixes))
    assert variant.architecture in {candidate.architecture for candidate in found.identification.candidates}
    assert {candidate.dialect for candidate in found.identification.candidates} == {variant.dialect}


def whole_unet(newer: bool) -> dict[str, Raw]:
    """A cloneofsimo file of SD 1.x's UNet, numbered as diffusers before or since 0.15 walks through it."""
    target = architecture("sd1")
    regions = [path for path in target.modules if ".attn1.to_q" in path]
    order = ["down_blocks", "up_blocks", "mid_block"]
    blocks = sorted(regions, key=lambda path: (order.index(path.split(".")[0]), path))
    parts = ["attn1", "attn2", "ff"] if newer else ["attn1", "ff", "attn2"]
    leaves = {"ff": ["net.0.proj"]}
    paths = [
        block.replace("attn1.to_q", f"{part}.{leaf}")
        for block in blocks
        for part in parts
        for leaf in leaves.get(part, ["to_q", "to_k", "to_v", "to_out.0"])
    ]
    return factors(((f"unet:{i}", unet(path)) for i, path in enumerate(paths)), "sd1", NUMBERED)


@pytest.mark.parametrize("newer", [False, True])
def test_numbers_mean_what_the_diffusers_of_their_time_had_in_that_place(newer: bool) -> None:
    tensors = whole_unet(newer)
    found = decoded(tensors)
    assert (found.dialect, found.architecture.id, len(found.layers), found.misfits) == ("cloneofsimo", "sd1", 144, ())
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    number = 4 if newer else 5
    query = found.layers[unet(f"{block}.attn2.to_q")]
    assert query.tensors[Role.DOWN].shape == (4, 320)
    assert query.tensors[Role.UP].view() == tensors[f"unet:{number}:up"].data
    assert found.layers[unet(f"{block}.ff.net.0.proj")].tensors[Role.UP].shape == (2560, 4)


@pytest.mark.parametrize("dialect_id", ["xlabs", "cloneofsimo"])
def test_a_dialect_that_is_only_read_says_so(dialect_id: str) -> None:
    with pytest.raises(NotRepresentable, match=f"{dialect_id} dialect is read but not written") as caught:
        written_dialect(dialect_id)
    assert "kohya" in caught.value.hint
    assert dialect_id not in caught.value.hint
    assert dialect(dialect_id).written(architecture("sd1")) == {}


def test_every_other_dialect_can_be_written() -> None:
    assert {id for id, spoken in dialects().items() if not spoken.is_written} == {"xlabs", "cloneofsimo"}


def test_one_word_is_a_prefix_and_two_are_not() -> None:
    bases = {"my_style_transformer_blocks_0_attn_to_q": transformer("transformer_blocks.0.attn.to_q")}
    more = {
        f"mine_transformer_blocks_{i}_attn_to_q": transformer(f"transformer_blocks.{i}.attn.to_q") for i in (1, 2, 3)
    }
    found = decoded(factors({**bases, **more}.items(), "flux1", KOHYA), architecture_id="flux1")
    assert (found.dialect, len(found.layers)) == ("lycoris", 3)
    assert {key.partition(".")[0] for key in found.leftovers} == set(bases)


def test_a_mixture_of_dialects_is_read_whole_and_said() -> None:
    flat = {
        f"lora_unet_double_blocks_{i}_img_attn_qkv": transformer(f"double_blocks.{i}.img_attn.qkv") for i in range(4)
    }
    dotted = {"diffusion_model.double_blocks.4.img_attn.qkv": transformer("double_blocks.4.img_attn.qkv")}
    odd = {"lora_unet_double_blocks_5.img_attn.qkv": transformer("double_blocks.5.img_attn.qkv")}
    tensors = factors([*flat.items(), *odd.items()], "flux1", KOHYA) | factors(dotted.items(), "flux1", PEFT)
    found = decoded(tensors, architecture_id="flux1")
    assert (found.dialect, found.mixed, found.malformed) == ("kohya", ("comfyui",), True)
    assert (len(found.layers), dict(found.leftovers)) == (6, {})


@pytest.mark.parametrize("name", ["default", "default_0", "my-style", "adapter"])
@pytest.mark.parametrize(
    ("key", "suffix"),
    [
        ("lora_A.{}.weight", ".lora_A.*.weight"), ("lora_B.{}.bias", ".lora_B.*.bias"),
        ("lora_magnitude_vector.{}", ".lora_magnitude_vector.*"), ("lora_embedding_A.{}", ".lora_embedding_A.*"),
        ("hada_w1_a.{}", ".hada_w1_a.*"), ("hada_t2.{}", ".hada_t2.*"), ("lokr_w1.{}", ".lokr_w1.*"),
        ("lokr_w2_a.{}", ".lokr_w2_a.*"), ("oft_R.{}.weight", ".oft_R.*.weight"), ("boft_s.{}", ".boft_s.*"),
        ("ia3_l.{}", ".ia3_l.*"),
    ],
)  # fmt: skip
def test_the_name_of_a_raw_adapter_is_no_part_of_the_module(key: str, suffix: str, name: str) -> None:
    assert split_key(f"base_model.model.x.to_q.{key.format(name)}") == ("base_model.model.x.to_q", suffix)


@pytest.mark.parametrize("key", ["unet:3:up", "text_encoder:11:down"])
def test_a_numbered_key_is_cut_at_its_last_colon(key: str) -> None:
    cut = split_key(key)
    assert cut is not None
    assert cut.base + cut.suffix == key
    assert split_key(key + "x") is None


def test_flux_factors_of_onetrainers_second_format_are_rows_of_one_fused_module() -> None:
    """The same change, written by kohya in one module and by OneTrainer in three."""
    parts = {f"transformer.double_blocks.0.img_attn.qkv.{i}": random_tensor(i, (3072, 4)) for i in range(3)}
    tensors = {f"{base}.lora_up.weight": up for base, up in parts.items()}
    tensors |= {f"{base}.lora_down.weight": random_tensor(9, (4, 3072)) for base in parts}
    tensors |= {f"{base}.alpha": number(4) for base in parts}
    found = decoded(tensors, architecture_id="flux1")
    rows = [found.layers[transformer(f"transformer_blocks.0.attn.to_{x}")].tensors[Role.UP] for x in "qkv"]
    assert [tensor.view() for tensor in rows] == [up.data for up in parts.values()]
