"""Real key lists go to another dialect and come back with the same keys, shapes, alphas and bytes."""

from collections import Counter
from pathlib import Path

import pytest
from support.effects import difference, effects
from support.files import number, write
from support.keylists import at_rank, key_list, with_values
from support.lazy import contents

from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.inspect import inspect

#: kohya files of every architecture in every combination of components, LDM and diffusers names, fused and not
KOHYA = [
    "gen_sdscripts_sd15_lora",
    "gen_sdscripts_sd15_locon",
    "gen_sdscripts_sdxl_lora",
    "gen_sdscripts_sdxl_locon",
    "gen_sdscripts_flux_te1_te3",
    "invokeai_flux_lora_kohya_format",
    "issue_comfyui5655_sdxl_kohya",
    "issue_comfyui2364_sd15_kohya",
]
TARGETS = ["diffusers", "comfyui", "peft", "diffusers-old"]
WAYS = [(name, target) for name in KOHYA for target in TARGETS]
WAYS.append(("invokeai_flux_lora_kohya_format", "original"))  # which has no names for text encoders
every_way = pytest.mark.parametrize(("name", "target"), WAYS)


class Sources:
    """The lists at rank 2 with random values, each written once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, alpha: float) -> Path:
        path = self.folder / f"{name}-{alpha}.safetensors"
        if path.exists():
            return path
        return write(path, with_values(at_rank(key_list(name).shapes, 2), alpha=alpha), {"ss_tag": "kept"})


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return Sources(tmp_path_factory.mktemp("real"))


@every_way
@pytest.mark.parametrize("alpha", [1.0, 0.7])
def test_kohya_to_another_dialect_and_back_is_the_same_file(
    tmp_path: Path, source: Sources, name: str, target: str, alpha: float
) -> None:
    before = source(name, alpha)
    there = convert(before, target, tmp_path / "there.safetensors")
    assert there.exact
    back = convert(there.output, "kohya", tmp_path / "back.safetensors")
    assert back.exact
    assert contents(back.output) == contents(before)
    report = inspect(back.output)
    assert (report.dialect, report.metadata["ss_tag"]) == ("kohya", "kept")
    assert not {"lora_adapter_metadata", "hubtool.alpha", "hubtool.fused"} & report.metadata.keys()


@every_way
def test_the_effect_on_the_model_is_the_same_in_every_dialect(
    tmp_path: Path, source: Sources, name: str, target: str
) -> None:
    before = source(name, 0.7)
    there = convert(before, target, tmp_path / "there.safetensors")
    assert difference(effects(before), effects(there.output)) < 1e-12


@every_way
def test_the_converted_file_is_recognised_as_what_it_was_converted_to(
    tmp_path: Path, source: Sources, name: str, target: str
) -> None:
    there = convert(source(name, 1.0), target, tmp_path / "there.safetensors")
    report = inspect(there.output)
    assert (report.dialect, report.coverage, report.malformed) == (target, 1.0, False)
    assert key_list(name).expected["architecture"] in {candidate.architecture for candidate in report.candidates}


OTHERS = [
    "gen_diffusers_peft_sd15",
    "gen_diffusers_peft_sdxl-base",
    "invokeai_flux_lora_aitoolkit_format",
    "invokeai_flux_lora_diffusers_base_model_format",
    "invokeai_hist_flux_cctv_mania_lora_down_up",
    "issue_comfyui1144_sdxl_processor_noprefix",
    "issue_comfyui4202_flux_diffusers_attn_only",
]
#: Their dialect has two spellings, and ours is the other: no prefix, or lora_A beside diffusion_model.
RESPELT = {"issue_comfyui1144_sdxl_processor_noprefix", "invokeai_flux_lora_aitoolkit_format"}


#: A few lines of a file, which fit relatives just as well.
QUOTED = {"issue_comfyui1144_sdxl_processor_noprefix", "issue_comfyui4202_flux_diffusers_attn_only"}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_dialects_keep_their_effect_on_the_way_to_kohya_and_back(tmp_path: Path, name: str) -> None:
    tensors = with_values(at_rank(key_list(name).shapes, 2))
    before = write(tmp_path / "before.safetensors", tensors)
    known = ConvertOptions(architecture=key_list(name).expected["architecture"] if name in QUOTED else None)
    there = convert(before, "kohya", tmp_path / "there.safetensors", known)
    back = convert(there.output, there.from_, tmp_path / "back.safetensors")
    assert (there.exact, back.exact) == (True, True)
    assert difference(effects(before), effects(there.output)) < 1e-12
    found = contents(back.output)
    assert Counter(found.values()) == Counter(tensors.values())
    if name not in RESPELT:
        assert found == tensors


RENAMED = [
    "gen_lycoris_sd15_loha",
    "gen_lycoris_sd15_lokr",
    "gen_lycoris_sd15_lokr_tucker_bothdecomp_norm",
    "gen_lycoris_sd15_ia3",
    "gen_lycoris_sd15_locon",
    "gen_lycoris_sd15_locon_dora_out",
    "gen_lycoris_sd15_dylora",
    "gen_lycoris_sd15_diag-oft",
    "gen_lycoris_sdxl_lokr",
    "issue_comfyui3060_sdxl_locon_dora",
]


@pytest.mark.parametrize("name", RENAMED)
@pytest.mark.parametrize("target", ["comfyui"])
def test_every_family_is_renamed_between_kohya_and_the_authors_names_without_a_change(
    tmp_path: Path, name: str, target: str
) -> None:
    before = write(tmp_path / "before.safetensors", with_values(key_list(name).shapes))
    there = convert(before, target, tmp_path / "there.safetensors")
    back = convert(there.output, "kohya", tmp_path / "back.safetensors")
    assert (there.exact, there.alpha, there.fused, there.split) == (True, "kept", 0, 0)
    assert Counter(contents(there.output).values()) == Counter(contents(before).values())
    assert contents(back.output) == contents(before)


def test_a_malformed_hybrid_comes_out_well_formed(tmp_path: Path) -> None:
    name = "issue_comfyui3494_sdxl_malformed_dora_hybrid"
    before = write(tmp_path / "before.safetensors", with_values(at_rank(key_list(name).shapes, 2)))
    there = convert(before, "kohya", tmp_path / "there.safetensors")
    report = inspect(there.output)
    assert there.malformed
    assert (report.dialect, report.architecture, report.malformed, report.coverage) == ("kohya", "sdxl", False, 1.0)


def test_the_two_numbers_of_a_t5_encoder_lead_to_one_file(tmp_path: Path) -> None:
    shapes = {key: shape for key, shape in key_list("gen_sdscripts_flux_te1_te3").shapes.items() if "_te3_" in key}
    tensors = with_values(at_rank(shapes, 2))
    first = write(tmp_path / "te3.safetensors", tensors)
    second = write(tmp_path / "te2.safetensors", {key.replace("_te3_", "_te2_"): raw for key, raw in tensors.items()})
    flux = ConvertOptions(architecture="flux1")  # SD 3 has a T5, too, under another name
    out = [
        convert(path, "diffusers", tmp_path / f"{path.stem}.out.safetensors", flux).output for path in (first, second)
    ]
    assert contents(out[0]) == contents(out[1])


def test_alphas_of_every_dtype_and_shape_in_one_file_come_back(tmp_path: Path) -> None:
    tensors = with_values(at_rank(key_list("gen_sdscripts_sd15_lora").shapes, 4))
    kinds = [("F32", ()), ("F16", ()), ("BF16", ()), ("I64", ()), ("F32", (1,)), ("I64", (1,)), ("F64", ())]
    for index, key in enumerate(key for key in list(tensors) if key.endswith(".alpha")):
        dtype, shape = kinds[index % len(kinds)]
        tensors[key] = number([4, 2, 1, 8, 3][index % 5], dtype, shape)
        if index % 11 == 0:
            del tensors[key]
    before = write(tmp_path / "before.safetensors", tensors)
    for target in TARGETS:
        there = convert(before, target, tmp_path / f"{target}.safetensors")
        back = convert(there.output, "kohya", tmp_path / f"{target}.back.safetensors")
        assert contents(back.output) == tensors, target
        assert difference(effects(before), effects(there.output)) < 1e-12
