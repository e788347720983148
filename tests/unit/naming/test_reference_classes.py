"""Every architecture's table against the classes it describes: diffusers' and, where they were built, the authors' own."""

import re
from collections import Counter
from pathlib import Path

import pytest
from support.keylists import FIXTURES, Shape, reference
from support.naming import readings

import hubtool.naming.architecture as tables
from hubtool.naming.address import Component, ModuleRef
from hubtool.naming.architecture import Architecture, architecture, architecture_ids
from hubtool.naming.dialect import dialect

REFERENCES = sorted(path.stem for path in (FIXTURES / "families").glob("*.json"))
NATIVE = [id for id in REFERENCES if reference(id).native]
PAIRED = [id for id in REFERENCES if reference(id).pairs]

#: Modules of our tables that are no layers of the class: Wan's `modulation`, a parameter that `diff_m` changes.
PARAMETERS = re.compile(r"^blocks\.\d+$")
#: Anima's adapter between its language model and the transformer is a class of its own in diffusers.
APART = re.compile(r"^(text_conditioner|llm_adapter)\.")
#: Their norms are a class of their own, which the list of the authors' class leaves out.
OWN_NORMS = re.compile(r"\.(query|key)_norm$|^distilled_guidance_layer\.norms")
#: Not in diffusers' class.
ELSEWHERE = {"lumina2": {"norm_final"}}


def names_of_authors(target: Architecture) -> dict[str, Shape]:
    whole = {
        name: target.shape(ModuleRef(Component.DENOISER, name)) for name, row in target.fused.items() if not row.partial
    }
    return {name: target.modules[path] for path, name in target.original.items()} | whole


def without_first_number(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".#", path, count=1)


def test_every_list_is_of_an_architecture() -> None:
    assert set(REFERENCES) <= set(architecture_ids())


@pytest.mark.parametrize("id", REFERENCES)
def test_modules_and_shapes_are_those_of_diffusers_class(id: str) -> None:
    ours = {path: shape for path, shape in architecture(id).modules.items() if not PARAMETERS.match(path)}
    assert {path: shape for path, shape in ours.items() if not APART.match(path)} == dict(reference(id).modules)


@pytest.mark.parametrize("id", NATIVE)
def test_the_authors_names_and_shapes_are_those_of_their_class(id: str) -> None:
    names = names_of_authors(architecture(id)).items()
    ours = {name: shape for name, shape in names if not (PARAMETERS.match(name) or APART.match(name))}
    theirs = {name: shape for name, shape in reference(id).native.items() if name not in ELSEWHERE.get(id, set())}
    assert {name: shape for name, shape in ours.items() if not OWN_NORMS.search(name)} == theirs


@pytest.mark.parametrize("id", PAIRED)
def test_what_is_renamed_stacked_and_swapped_is_what_was_checked_against_both_classes(id: str) -> None:
    target, found = architecture(id), Counter[tuple[str, str, tuple[str, ...]]]()
    for path, name in target.original.items():
        if len(target.modules[path]) > 1 and not (PARAMETERS.match(path) or APART.match(path)):
            found["rename", without_first_number(name), (without_first_number(path),)] += 1
    for name, row in target.fused.items():
        if not row.partial:
            operation = "swap_halves" if row.swapped else "fuse_rows"
            found[operation, without_first_number(name), tuple(map(without_first_number, row.parts))] += 1
    pairs = {row[:3]: row[3] for row in reference(id).pairs}
    assert {row: found[row] for row in pairs} == pairs
    assert all(name == path for _, name, (path, *_) in found.keys() - pairs.keys())  # what has one name needs no pair


@pytest.mark.parametrize("id", [id for id in REFERENCES if reference(id).original])
def test_names_that_follow_no_pattern_are_those_of_the_checkpoint(id: str) -> None:
    assert dict(architecture(id).original) == dict(reference(id).original)


@pytest.mark.parametrize("id", REFERENCES)
def test_an_unchecked_configuration_is_said_so_at_the_top_of_the_table(id: str) -> None:
    text = (Path(tables.__file__).parent / "architectures" / f"{id}.toml").read_text("utf-8")
    said = "the config was not checked against a published one" in text.split("\nid = ")[0]
    assert said == reference(id).note.startswith("UNVERIFIED CONFIG")


#: Weights that the authors keep in a shape which no row can say; see the heads of the tables.
UNSAYABLE = {
    "bria-fibo": r".",
    "cogvideox-2b": r"\.norm[12]\.linear$",
    "cogvideox-5b": r"\.norm[12]\.linear$",
    "ovis-image": r"\.ff(_context)?\.net\.0\.proj$",
}


@pytest.mark.parametrize("id", REFERENCES)
def test_every_weight_has_one_home_in_the_authors_naming(id: str) -> None:
    target = architecture(id)
    whole = [fused for fused in target.fused.values() if not fused.partial]
    homes = Counter([*target.original, *(part for fused in whole for part in fused.parts)])
    weights = {path for path, shape in target.modules.items() if len(shape) > 1}
    assert {path for path in weights if homes[path] > 1} == set()
    unsayable = UNSAYABLE.get(id)
    assert {path for path in weights if not homes[path]} == {
        p for p in weights if unsayable and re.search(unsayable, p)
    }


def test_the_table_shown_to_contributors_is_the_one_that_was_added() -> None:
    guide = (FIXTURES.parent / "CONTRIBUTING.md").read_text("utf-8")
    shown = [line[1:] for line in guide.split("```diff\n+++ b/")[1].split("```")[0].splitlines()[1:]]
    added = Path(tables.__file__).parent / "architectures" / "cogview4.toml"
    assert shown == added.read_text("utf-8").splitlines()


# ---------------------------------------------------------------- two spellings of the authors

SECOND = [id for id in architecture_ids() if architecture(id).second]


def test_hunyuans_models_have_two_spellings() -> None:
    assert {"hunyuanvideo", "hunyuanvideo15", "hunyuanimage21"} <= set(SECOND)


@pytest.mark.parametrize("id", SECOND)
def test_second_names_are_of_modules_that_exist_and_are_not_the_first_names(id: str) -> None:
    target = architecture(id)
    assert set(target.second.values()) <= {*target.modules, *target.fused}
    assert not target.second.keys() & names_of_authors(target).keys()


@pytest.mark.parametrize(
    ("id", "path", "comfyui", "kohya"),
    [
        (
            "hunyuanvideo",
            "transformer_blocks.3.ff.net.0.proj",
            "double_blocks.3.img_mlp.0",
            "double_blocks_3_img_mlp_fc1",
        ),
        (
            "hunyuanvideo",
            "single_transformer_blocks.9.norm.linear",
            "single_blocks.9.modulation.lin",
            "single_blocks_9_modulation_linear",
        ),
        (
            "hunyuanvideo",
            "double_blocks.3.img_attn.qkv",
            "double_blocks.3.img_attn.qkv",
            "double_blocks_3_img_attn_qkv",
        ),
        (
            "hunyuanimage21",
            "transformer_blocks.3.norm1.linear",
            "double_blocks.3.img_mod.lin",
            "double_blocks_3_img_mod_linear",
        ),
        (
            "hunyuanvideo15",
            "transformer_blocks.5.attn.to_add_out",
            "double_blocks.5.txt_attn.proj",
            "double_blocks_5_txt_attn_proj",
        ),
    ],
)
def test_comfyui_and_kohyas_tools_get_the_spelling_they_know(id: str, path: str, comfyui: str, kohya: str) -> None:
    module, target = ModuleRef(Component.DENOISER, path), architecture(id)
    assert dialect("comfyui").base(target, module) == f"diffusion_model.{comfyui}"
    assert dialect("kohya").base(target, module) == f"lora_unet_{kohya}"


@pytest.mark.parametrize("id", SECOND)
@pytest.mark.parametrize(
    ("dialect_id", "prefix", "separator"), [("comfyui", "diffusion_model.", "."), ("kohya", "lora_unet_", "_")]
)
def test_both_spellings_are_read_everywhere(id: str, dialect_id: str, prefix: str, separator: str) -> None:
    target = architecture(id)
    first = {name: path for path, name in target.original.items()} | {name: name for name in target.fused}
    for name, path in {**target.second, **first}.items():
        base = prefix + name.replace(".", separator)
        readings = [table.paths[base[len(table.prefix) :]] for table in dialect(dialect_id).readers(target)
                    if base.startswith(table.prefix) and base[len(table.prefix) :] in table.paths]  # fmt: skip
        assert ModuleRef(Component.DENOISER, path) in readings


def test_where_the_second_spelling_keeps_q_k_and_v_apart_so_does_kohya() -> None:
    written = dialect("kohya").written(architecture("hunyuanvideo15"))
    names = {ref.path: base for ref, base in written.items()}
    assert names["transformer_blocks.0.attn.to_q"] == "lora_unet_double_blocks_0_img_attn_q"
    assert "double_blocks.0.img_attn.qkv" not in names


# ---------------------------------------------------------------- models beside the denoiser


@pytest.mark.parametrize(
    ("dialect_id", "base"),
    [
        ("kohya", "lora_unet_llm_adapter_blocks_5_mlp_0"),
        ("comfyui", "diffusion_model.llm_adapter.blocks.5.mlp.0"),
        ("diffusers", "text_conditioner.blocks.5.mlp.0"),
        ("original", "llm_adapter.blocks.5.mlp.0"),
    ],
)
def test_animas_adapter_is_part_of_the_transformer_to_all_but_diffusers(dialect_id: str, base: str) -> None:
    module, target = ModuleRef(Component.DENOISER, "text_conditioner.blocks.5.mlp.0"), architecture("anima")
    assert dialect(dialect_id).base(target, module) == base
    assert module in readings(dialect(dialect_id), target, base)


def test_animas_adapter_has_the_layers_of_diffusers_class() -> None:
    diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
    if not hasattr(diffusers, "AnimaTextConditioner"):
        pytest.skip("this diffusers has no Anima")
    with torch.device("meta"):
        model = diffusers.AnimaTextConditioner()
    layers = {name: layer.weight for name, layer in model.named_modules() if getattr(layer, "weight", None) is not None}
    theirs = {f"text_conditioner.{name}": tuple(weight.shape) for name, weight in layers.items() if name != "embed"}
    assert {path: shape for path, shape in architecture("anima").modules.items() if APART.match(path)} == theirs
