"""What `check` says of files: modules counted, reasons, and conversions that do what they promise."""

import shlex
from pathlib import Path

import pytest
from support.adapters import denoiser, lora, modules_like, pair, spelt
from support.files import Raw, number, random_tensor, write, write_sparse
from support.keylists import at_rank, key_list, with_values

from hubtool.errors import NotAnAdapter, UnknownArchitecture, UsageProblem
from hubtool.naming.address import Role
from hubtool.operations.check import Check, check
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.loader import loaders

SDXL = modules_like("sdxl", "transformer_blocks.0.attn2.to_k")
FLUX = denoiser("transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v")


def checked(tmp_path: Path, tensors: dict[str, Raw], *targets: str, base: str | None = None, **metadata: str) -> Check:
    path = write(tmp_path / "x.safetensors", tensors, metadata or None)
    return check(path, targets or tuple(loaders()), base)


def loads(found: Check) -> dict[str, str]:
    return {id: verdict.loads for id, verdict in found.targets.items()}


# ---------------------------------------------------------------- how much


def test_kohyas_sdxl_loads_everywhere(tmp_path: Path) -> None:
    found = checked(tmp_path, lora("sdxl", "kohya", SDXL, alpha=2))
    assert set(loads(found).values()) == {"all"}
    assert not any(verdict.reasons or verdict.convert for verdict in found.targets.values())
    assert {verdict.modules for verdict in found.targets.values()} == {len(SDXL)}


def test_a_program_that_does_not_run_the_architecture_loads_nothing_and_nothing_mends_that(tmp_path: Path) -> None:
    verdict = checked(tmp_path, lora("flux1", "diffusers", FLUX), "a1111").targets["a1111"]
    assert (verdict.loads, verdict.modules_loaded, verdict.modules, verdict.convert) == ("none", 0, 3, None)
    assert verdict.reasons == ("AUTOMATIC1111 runs no FLUX.1 LoRAs.",)


def test_keys_that_a_program_does_not_know_are_named_and_a_rename_is_proposed(tmp_path: Path) -> None:
    found = checked(tmp_path, lora("sd1", "diffusers", modules_like("sd1", "attn2.to_k")), "a1111", "diffusers")
    assert loads(found) == {"a1111": "none", "diffusers": "all"}
    verdict = found.targets["a1111"]
    assert "knows no Stable Diffusion 1.x key such as unet.down_blocks.0." in verdict.reasons[0]
    assert verdict.convert == f"hubtool convert {tmp_path}/x.safetensors --to kohya"


def test_part_of_a_file_is_counted_by_modules(tmp_path: Path) -> None:
    paths = ["transformer_blocks.0.attn.to_q", "norm_out.linear"]
    tensors = lora("flux1", "diffusers", denoiser(*paths))
    tensors |= {
        f"text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.{side}.weight": random_tensor(9, shape)
        for side, shape in (("lora_A", (4, 4096)), ("lora_B", (4096, 4)))
    }
    verdict = checked(tmp_path, tensors, "comfyui").targets["comfyui"]
    assert (verdict.loads, verdict.modules_loaded, verdict.modules) == ("some", 2, 3)
    assert "t5" in verdict.reasons[0]


def test_twelve_strange_keys_pass_in_forge_and_thirteen_are_refused(tmp_path: Path) -> None:
    tensors = lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k"))
    strange = {f"bundle.{number}": random_tensor(number, (2, 2)) for number in range(13)}
    few = checked(tmp_path, {**tensors, **dict(list(strange.items())[:12])}, "forge", "fooocus")
    many = checked(tmp_path, {**tensors, **strange}, "forge", "fooocus")
    assert set(loads(few).values()) == {"all"}
    assert set(loads(many).values()) == {"none"}
    assert "more than 12 keys that it does not know: here are 13" in many.targets["forge"].reasons[0]


def test_a_change_of_modulation_alone_is_lost_and_nothing_is_proposed(tmp_path: Path) -> None:
    shapes = key_list("issue_wanwrapper807_lightx2v_diff_m").shapes
    path = write_sparse(tmp_path / "x.safetensors", {key: ("F16", shape) for key, shape in shapes.items()})
    verdict = check(path, ["comfyui"]).targets["comfyui"]
    assert (verdict.loads, verdict.convert) == ("none", None)


# ---------------------------------------------------------------- loaded, but not as meant


def test_recorded_scales_load_at_another_strength_in_comfyui_and_a_conversion_says_them(tmp_path: Path) -> None:
    source = write(tmp_path / "x.safetensors", lora("flux1", "onetrainer", FLUX, alpha=8))
    convert(source, "diffusers", tmp_path / "y.safetensors", ConvertOptions(alpha="record"))
    verdict = check(tmp_path / "y.safetensors", ["comfyui"]).targets["comfyui"]
    assert verdict.loads == "all"
    assert "`lora_adapter_metadata`, so the strength is another" in verdict.reasons[0]
    assert "--to comfyui" in (verdict.convert or "")
    assert verdict.then
    assert verdict.then.perfect


def test_dora_is_told_where_it_looks_otherwise(tmp_path: Path) -> None:
    module = SDXL[0]
    shape = (640, 2048)
    tensors = spelt(
        "sdxl",
        "kohya",
        {module: {**pair(shape, 4, 1), Role.ALPHA: number(4), Role.MAGNITUDE: random_tensor(5, (640, 1))}},
    )
    found = checked(tmp_path, tensors)
    told = {id for id, verdict in found.targets.items() if verdict.loads == "all" and verdict.reasons}
    assert {"a1111", "comfyui", "forge", "invokeai", "diffusers"} <= told
    assert found.targets["diffusers"].convert  # to PEFT's magnitude, which diffusers has


def test_a_loha_is_an_error_in_diffusers_and_rewritten_as_lora_on_the_way(tmp_path: Path) -> None:
    module = SDXL[0]
    factors = {Role.HADA_W1_A: (640, 4), Role.HADA_W1_B: (4, 2048), Role.HADA_W2_A: (640, 4), Role.HADA_W2_B: (4, 2048)}
    rows = {role: random_tensor(seed, shape) for seed, (role, shape) in enumerate(factors.items())}
    found = checked(tmp_path, spelt("sdxl", "kohya", {module: {**rows, Role.ALPHA: number(4)}}), "diffusers", "comfyui")
    assert loads(found) == {"diffusers": "none", "comfyui": "all"}
    assert "--parametrization lora" in (found.targets["diffusers"].convert or "")


# ---------------------------------------------------------------- the base model


@pytest.mark.parametrize(
    ("base", "expected"), [("Pony", "all"), ("sdxl", "all"), ("Flux.1 D", "none"), ("SD 1.5", "none")]
)
def test_another_base_model_loads_nothing(tmp_path: Path, base: str, expected: str) -> None:
    found = checked(tmp_path, lora("sdxl", "kohya", SDXL), "comfyui", base=base)
    assert loads(found) == {"comfyui": expected}
    if expected == "none":
        assert found.targets["comfyui"].reasons == (
            f"The file is made for Stable Diffusion XL (sdxl), not for {base}.",
        )


def test_a_file_that_fits_two_architectures_is_read_as_the_base_models(tmp_path: Path) -> None:
    tensors = lora(
        "cosmos-predict2-2b", "diffusers", modules_like("cosmos-predict2-2b", "transformer_blocks.0.attn1.to_q")
    )
    for base in ("anima", "cosmos-predict2-2b"):
        assert checked(tmp_path, tensors, "diffusers", base=base).architecture == base


def test_unknown_targets_and_base_models_are_told_apart_from_bad_files(tmp_path: Path) -> None:
    tensors = lora("sdxl", "kohya", SDXL)
    with pytest.raises(UsageProblem, match="no target 'krita'"):
        checked(tmp_path, tensors, "krita")
    with pytest.raises(UsageProblem, match="no base model"):
        checked(tmp_path, tensors, base="SDXXL")
    with pytest.raises((NotAnAdapter, UnknownArchitecture)):
        checked(tmp_path, {"a.weight": random_tensor(1, (2, 2))})


# ---------------------------------------------------------------- mending


def test_nothing_is_proposed_for_a_file_that_convert_refuses(tmp_path: Path) -> None:
    tensors = lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k"))
    broken = {key: raw for index, (key, raw) in enumerate(tensors.items()) if index}  # half a pair
    verdicts = checked(tmp_path, broken).targets
    assert {verdict.loads for verdict in verdicts.values()} <= {"some", "none"}
    assert not any(verdict.convert for verdict in verdicts.values())


#: Architecture, dialect and modules of files that some programs load in part or not at all.
SPELT = [
    ("sd1", "diffusers", "attn2.to_k"),
    ("sd1", "diffusers-old", "attn1.to_out.0"),
    ("sdxl", "diffusers", "transformer_blocks.0.attn2.to_k"),
    ("sdxl", "peft", "transformer_blocks.0.attn2.to_k"),
    ("sdxl", "onetrainer", "resnets.0.conv1"),
    ("sd3-medium", "diffusers", ".0.attn.to_q"),
    ("flux1", "diffusers", ".0.attn.to_q"),
    ("flux1", "kohya", ".0.img_attn.qkv"),
    ("flux1", "comfyui", ".0.linear1"),
    ("flux2-klein-4b", "kohya", ".0.img_attn.qkv"),
    ("z-image", "comfyui", ".0.attention.qkv"),
    ("qwen-image", "diffusers", ".0.attn.to_q"),
    ("wan21-1.3b", "kohya", ".0.attn1.to_q"),
    ("hunyuanvideo", "diffusers", ".0.attn.to_q"),
    ("lumina2", "comfyui", ".attn.to_out.0"),
    ("krea2", "kohya", ".0.attn.to_q"),
]
LISTED = [
    "invokeai_flux_lora_xlabs_format",
    "issue_comfyui4202_flux_diffusers_attn_only",
    "issue_comfyui3060_sdxl_locon_dora",
    "issue_comfyui1144_sdxl_processor_noprefix",
    "issue_diffusers13221_zimage_lokr",
    "issue_comfyui6381_sd15_ia3",
]


@pytest.mark.parametrize(("architecture", "dialect", "ending"), SPELT)
def test_a_proposed_command_does_what_it_promises(tmp_path: Path, architecture: str, dialect: str, ending: str) -> None:
    modules = modules_like(architecture, ending)[:4]
    assert modules
    proposals_hold(write(tmp_path / "x.safetensors", lora(architecture, dialect, modules, rank=2)))


@pytest.mark.parametrize("name", LISTED)
def test_a_command_proposed_for_a_real_files_keys_does_what_it_promises(tmp_path: Path, name: str) -> None:
    listed = key_list(name)
    shapes = at_rank(listed.shapes, 1) if listed.expected["parametrization"] == "lora" else listed.shapes
    proposals_hold(write(tmp_path / "x.safetensors", with_values(shapes)))


def proposals_hold(path: Path) -> None:
    """The commands are run, and their outputs judged again: exactly what was rehearsed, and better than before."""
    before = check(path, tuple(loaders()))
    for command in sorted({verdict.convert for verdict in before.targets.values() if verdict.convert}):
        output = run(command, path.with_name("y.safetensors"))
        after = check(output, tuple(loaders())).targets
        for id, verdict in before.targets.items():
            if verdict.convert == command:
                assert verdict.then
                assert (after[id].loads, after[id].reasons) == (verdict.then.loads, verdict.then.reasons)
                gain = after[id].modules_loaded / after[id].modules - verdict.modules_loaded / verdict.modules
                assert gain > 0 or (gain == 0 and len(after[id].reasons) < len(verdict.reasons))


def run(command: str, output: Path) -> Path:
    """A proposed `hubtool convert …`, run in this process."""
    words = iter(shlex.split(command)[2:])
    path = Path(next(words))
    given = {word.removeprefix("--"): next(words) for word in words}
    options = ConvertOptions(
        architecture=given.pop("architecture", None),
        parametrization=given.pop("parametrization", None),
        energy=float(energy) if (energy := given.pop("energy", None)) else None,
        alpha=given.pop("alpha", "auto"),  # type: ignore[arg-type]
        force=True,
    )
    convert(path, given.pop("to"), output, options)
    assert not given
    return output
