"""Regular keys, alphas, metadata and hashes; the same effect, and nothing to do the second time."""

from __future__ import annotations

import hashlib
from pathlib import Path  # noqa: TC003  # pytest reads annotations

import pytest
from support.adapters import denoiser, lora, modules_like
from support.effects import difference, effects
from support.files import Raw, number, parsed, random_tensor, write
from support.keylists import at_rank, expectations, key_list, with_values

from hubtool.adapters.codec import read_adapter
from hubtool.errors import BrokenAdapter, NotAnAdapter, OutputExists, UnknownArchitecture
from hubtool.operations.normalize import Normalization, NormalizeOptions, normalize
from hubtool.operations.validate import validate

K = modules_like("sd1", "attn2.to_k")
FLUX = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in.safetensors"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "out.safetensors"


def tensors_of(path: Path) -> dict[str, Raw]:
    return parsed(path.read_bytes())[0]


def metadata_of(path: Path) -> dict[str, str]:
    return parsed(path.read_bytes())[1]


def codes(found: Normalization) -> set[str]:
    return {fix.code for fix in found.fixes}


REAL = [name for name, expected in expectations().items() if expected["parametrization"] == "lora"]


@pytest.mark.parametrize("name", REAL)
def test_normalizing_a_real_file_keeps_its_effect_and_twice_is_once(name: str, path: Path, output: Path) -> None:
    shapes = key_list(name).shapes
    few = dict(list(at_rank(shapes, 2).items())[:60])
    write(path, with_values(few))
    if validate(path).verdict == "broken":  # quoted lists hold halves of modules, and some have invented shapes
        with pytest.raises((BrokenAdapter, UnknownArchitecture, NotAnAdapter)):
            normalize(path, output)
        assert not output.parent.exists()
        return
    found = normalize(path, output)
    again = normalize(output, output.with_name("again"))
    assert (again.fixes, output.with_name("again").read_bytes()) == ((), output.read_bytes())
    before = read_adapter(path, architecture_id=found.architecture)
    after = read_adapter(output, architecture_id=found.architecture)
    assert not after.malformed
    assert {m: set(layer.tensors) for m, layer in before.layers.items()}.items() <= {
        m: set(layer.tensors) & set(before.layers[m].tensors) for m, layer in after.layers.items()
    }.items()


# ---------------------------------------------------------------- keys


def test_regular_keys_stay_as_they_are(path: Path, output: Path) -> None:
    """SDXL under diffusers' names is a regular spelling of kohya's, though not the one that we write."""
    tensors = {
        "lora_unet_" + key.removeprefix("unet.").removesuffix(suffix).replace(".", "_") + kohya: raw
        for key, raw in lora("sdxl", "diffusers", modules_like("sdxl", "attn2.to_k")).items()
        for suffix, kohya in ((".lora_A.weight", ".lora_down.weight"), (".lora_B.weight", ".lora_up.weight"))
        if key.endswith(suffix)
    }
    alphas = {key.replace(".lora_up.weight", ".alpha"): number(4) for key in tensors if "lora_up" in key}
    normalize(write(path, tensors | alphas), output)
    assert tensors_of(output) == tensors | alphas


def test_a_malformed_hybrid_is_spelt_as_its_nearest_dialect_has_it(path: Path, output: Path) -> None:
    """ComfyUI issue 3494: dots left in flat keys; sd-scripts issue 1463: a trailing underscore."""
    good = lora("sd1", "kohya", K, alpha=2)
    bad = {
        key.replace("attn2_to_k.", "attn2.to_k_." if "down" in key else "attn2.to_k."): raw for key, raw in good.items()
    }
    found = normalize(write(path, bad), output)
    assert read_adapter(path).malformed
    assert tensors_of(output) == good
    assert "W_MALFORMED" in codes(found)
    assert validate(output).verdict == "ok"


def test_modules_of_another_dialect_join_the_others(path: Path, output: Path) -> None:
    """q, k and v under diffusers' names become the fused module that kohya's other keys are of."""
    rest = modules_like("flux1", ".img_attn.qkv", ".linear1")[2:]
    mixed = lora("flux1", "kohya", rest, alpha=4) | lora("flux1", "diffusers", denoiser(*FLUX))
    found = normalize(write(path, mixed), output, NormalizeOptions(architecture="flux1"))
    assert "W_MIXED_DIALECT" in codes(found)
    assert all(key.startswith("lora_unet_") for key in tensors_of(output))
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight" in tensors_of(output)
    assert difference(effects(path), effects(output)) < 1e-6
    assert validate(output).verdict == "ok"


def test_what_the_dialect_cannot_say_without_rounding_keeps_its_key(path: Path, output: Path) -> None:
    """An alpha of 3 at rank 4 has no place in diffusers' keys, and metadata would not be honoured everywhere."""
    some, others = K[:12], K[12:]
    mixed = lora("sd1", "diffusers", some) | lora("sd1", "kohya", others, alpha=3)
    found = normalize(write(path, mixed), output)
    assert tensors_of(output) == mixed
    assert "W_MIXED_DIALECT" in {left.code for left in found.problems_left}


def test_equal_copies_go_and_different_ones_are_refused(path: Path, output: Path) -> None:
    kohya = lora("sd1", "kohya", K, alpha=4)
    copies = lora("sd1", "diffusers", K[:2])
    found = normalize(write(path, kohya | copies), output)
    assert tensors_of(output) == kohya
    assert {fix.key for fix in found.fixes if fix.code == "W_EQUAL_COPIES"} == set(copies)
    other = {key: Raw(raw.dtype, raw.shape, raw.data[::-1]) for key, raw in copies.items()}
    with pytest.raises(BrokenAdapter):
        normalize(write(path, kohya | other), output.with_name("other"))
    assert not output.with_name("other").exists()


def test_a_lone_alpha_goes_and_what_is_not_understood_stays(path: Path, output: Path) -> None:
    tensors = lora("sd1", "kohya", K[1:], alpha=4)
    (lone,) = [key for key in lora("sd1", "kohya", K[:1], alpha=4) if key.endswith("alpha")]
    unknown = {"bundle_emb.x.clip_l": random_tensor(1, (2, 768))}
    found = normalize(write(path, tensors | {lone: number(4)} | unknown), output)
    assert tensors_of(output) == tensors | unknown
    assert [fix.key for fix in found.fixes if fix.code == "W_ORPHAN_KEY"] == [lone]


# ---------------------------------------------------------------- alphas


def test_a_missing_alpha_is_the_rank(path: Path, output: Path) -> None:
    bare = lora("sd1", "kohya", K, rank=4)
    normalize(write(path, bare), output)
    assert tensors_of(output) == lora("sd1", "kohya", K, rank=4, alpha=4)
    assert difference(effects(path), effects(output)) == 0


def test_a_missing_alpha_has_the_dtype_of_the_others(path: Path, output: Path) -> None:
    tensors = {
        key: number(2, "F16") if key.endswith("alpha") else raw for key, raw in lora("sd1", "kohya", K, alpha=2).items()
    }
    first = next(key for key in tensors if key.endswith("alpha"))
    normalize(write(path, {key: raw for key, raw in tensors.items() if key != first}), output)
    assert tensors_of(output)[first] == number(4, "F16")


@pytest.mark.parametrize("dialect", ["comfyui", "diffusers"])
def test_no_alpha_is_added_where_files_have_none(dialect: str, path: Path, output: Path) -> None:
    tensors = lora("sd1", dialect, K)
    normalize(write(path, tensors), output)
    assert tensors_of(output) == tensors


@pytest.mark.parametrize(
    ("alpha", "plain", "code"),
    [
        (number(2, "I64"), number(2), "W_ALPHA_INTEGER"),
        (number(2, "F16", (1,)), number(2, "F16"), "W_ALPHA_SHAPE"),
        (number(2, "I32", (1, 1)), number(2), "W_ALPHA_INTEGER"),
        (number(1 << 40, "I64"), number(1 << 40, "F64"), "W_ALPHA_INTEGER"),
    ],
)
def test_alphas_become_plain_numbers(alpha: Raw, plain: Raw, code: str, path: Path, output: Path) -> None:
    tensors = lora("sd1", "kohya", K, alpha=2)
    odd = {key: alpha if key.endswith("alpha") else raw for key, raw in tensors.items()}
    found = normalize(write(path, odd), output)
    assert {key: raw for key, raw in tensors_of(output).items() if key.endswith("alpha")} == dict.fromkeys(
        (key for key in tensors if key.endswith("alpha")), plain
    )
    assert code in codes(found)
    assert difference(effects(path), effects(output)) == 0


# ---------------------------------------------------------------- metadata


def test_modelspec_says_what_the_specification_demands(path: Path, output: Path) -> None:
    normalize(
        write(path, lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k"), alpha=4), {"ss_output_name": "ink"}),
        output,
    )
    found = metadata_of(output)
    assert found["modelspec.sai_model_spec"] == "1.0.0"
    assert found["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert found["modelspec.implementation"] == "https://github.com/Stability-AI/generative-models"
    assert found["modelspec.title"] == "ink"
    assert found["modelspec.hash_sha256"] == "0x" + found["sshs_model_hash"]


def test_what_the_author_stated_is_kept_and_what_the_keys_contradict_is_not(path: Path, output: Path) -> None:
    stated = {
        "modelspec.title": "Ink",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "ss_tag_frequency": "{}",
    }
    found = normalize(write(path, lora("sd1", "kohya", K, alpha=4), stated), output)
    metadata = metadata_of(output)
    assert (metadata["modelspec.title"], metadata["ss_tag_frequency"]) == ("Ink", "{}")
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "W_BASE_MISMATCH" not in {left.code for left in found.problems_left}


def test_an_architecture_that_nobody_can_tell_is_not_written_down(path: Path, output: Path) -> None:
    write(path, lora("flux1", "diffusers", denoiser(*FLUX)))
    found = normalize(path, output)
    assert not [key for key in metadata_of(output) if key.startswith("modelspec.")]
    assert [left.code for left in found.problems_left] == ["W_AMBIGUOUS"]
    told = normalize(path, output.with_name("told"), NormalizeOptions(architecture="flux1"))
    assert told.problems_left == ()
    assert metadata_of(output.with_name("told"))["modelspec.architecture"] == "flux-1-dev/lora"


def test_rank_and_alpha_in_the_metadata_become_those_of_the_tensors(path: Path, output: Path) -> None:
    stated = {"ss_network_dim": "128", "ss_network_alpha": "64"}
    normalize(write(path, lora("sd1", "kohya", K, rank=4, alpha=2), stated), output)
    assert {key: metadata_of(output)[key] for key in stated} == {"ss_network_dim": "4", "ss_network_alpha": "2"}
    several = lora("sd1", "kohya", K[:8], rank=4, alpha=2) | lora("sd1", "kohya", K[8:], rank=8, alpha=2)
    normalize(write(path, several, stated), output.with_name("several"))
    assert metadata_of(output.with_name("several"))["ss_network_dim"] == "Dynamic"


def test_hashes_are_those_of_the_bytes_that_are_written(path: Path, output: Path) -> None:
    """sd-scripts train_util.py: all bytes after the header; and 64 KiB at 1 MiB of the file."""
    nothing = hashlib.sha256(b"").hexdigest()
    write(
        path, lora("sd1", "kohya", K, rank=32, alpha=4), {"sshs_model_hash": nothing, "sshs_legacy_hash": nothing[:8]}
    )
    assert path.stat().st_size > 0x110000
    normalize(path, output)
    raw, found = output.read_bytes(), metadata_of(output)
    body = raw[8 + int.from_bytes(raw[:8], "little") :]
    assert found["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert found["sshs_legacy_hash"] == hashlib.sha256(raw[0x100000:0x110000]).hexdigest()[:8]


def test_the_old_hash_of_a_small_file_would_be_that_of_nothing_and_goes(path: Path, output: Path) -> None:
    write(path, lora("sd1", "kohya", K[:2], alpha=4), {"sshs_legacy_hash": "e3b0c442"})
    normalize(path, output)
    assert "sshs_legacy_hash" not in metadata_of(output)


def test_the_config_beside_a_peft_adapter_goes_along(path: Path, output: Path) -> None:
    model = write(path.with_name("adapter_model.safetensors"), lora("sd1", "peft", K, rank=4))
    model.with_name("adapter_config.json").write_text('{"r": 4, "lora_alpha": 12}')
    normalize(model, output)
    assert difference(effects(model), effects(output)) == 0
    assert {layer.scale for layer in read_adapter(output).layers.values()} == {3.0}


# ---------------------------------------------------------------- files


def test_in_place_changes_only_what_is_irregular(path: Path) -> None:
    write(path, lora("sd1", "kohya", K))
    options = NormalizeOptions(in_place=True)
    assert normalize(path, path, options).output == path
    status = path.stat()
    assert normalize(path, path, options).fixes == ()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_dry_run_says_the_same_and_writes_nothing(path: Path, output: Path) -> None:
    write(path, lora("sd1", "kohya", K))
    said = normalize(path, output, NormalizeOptions(dry_run=True))
    assert not output.parent.exists()
    done = normalize(path, output)
    assert (said.fixes, said.problems_left, said.sha256) == (done.fixes, done.problems_left, None)
    assert done.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()


def test_what_exists_is_not_replaced_unasked(path: Path, output: Path) -> None:
    write(path, lora("sd1", "kohya", K))
    for options in (NormalizeOptions(), NormalizeOptions(dry_run=True)):
        with pytest.raises(OutputExists):
            normalize(path, path, options)
    normalize(path, path, NormalizeOptions(force=True))
    assert validate(path).problems == ()


def test_in_place_goes_through_a_link(path: Path) -> None:
    write(path, lora("sd1", "kohya", K))
    link = path.with_name("link.safetensors")
    link.symlink_to(path)
    normalize(link, link, NormalizeOptions(in_place=True))
    assert link.is_symlink()
    assert validate(path).problems == ()


def test_other_files_and_unknown_base_models_are_named(path: Path, output: Path) -> None:
    vae = {f"decoder.up_blocks.{i}.conv.weight": random_tensor(i, (4, 4)) for i in range(4)}
    with pytest.raises(NotAnAdapter, match="VAE"):
        normalize(write(path, vae), output)
    strange = {
        f"lora_unet_strange_{i}.lora_{part}.weight": random_tensor(i, (4, 4))
        for i in range(4)
        for part in ("up", "down")
    }
    with pytest.raises(UnknownArchitecture):
        normalize(write(path, strange), output)
    assert not output.parent.exists()


def test_an_error_that_only_regular_names_show_is_refused_before_anything_is_written(path: Path, output: Path) -> None:
    """Half the keys are misspelt, so that three models fit and none judges the shapes; spelt well, one model does."""
    layer = "te_text_model_encoder_layers_0_self_attn_"
    parts = {"lokr_w1": (8, 8), "lokr_w2_a": (96, 8), "lokr_w2_b": (8, 96)}
    shapes = {f"lora{'.' if part == 'lokr_w2_a' else '_'}{layer}k_proj.{part}": sides for part, sides in parts.items()}
    shapes |= {key.replace("k_proj", "v_proj"): sides for key, sides in shapes.items()}
    shapes[f"lora_{layer}v_proj.lokr_w2_b"] = (8, 1)
    tensors = {key: random_tensor(i, sides, "F16") for i, (key, sides) in enumerate(shapes.items())}
    write(path, tensors | {f"lora_{layer}q_proj.alpha": number(1.0)})
    with pytest.raises(BrokenAdapter, match=r"768 × 8"):
        normalize(path, output)
    assert not output.parent.exists()


def test_what_would_be_no_adapter_without_its_strays_is_refused(path: Path, output: Path) -> None:
    """Two understood strays and one module make up most of the file; once the strays are gone, the rest is not understood."""
    layer = "lora_te_text_model_encoder_layers_0_self_attn_"
    tensors = {
        f"{layer}q_proj.oft_blocks": random_tensor(1, (8, 128, 6, 6), "F16"),
        f"{layer}q_proj.alpha": number(1.0),
    }
    tensors |= {f"{layer}k_proj.alpha": number(1.0), f"{layer.replace('self_attn_', 'mlp_')}fc2.alpha": number(1.0)}
    tensors |= {f"{layer}v_proj_oft_blocks": random_tensor(2, (8, 128, 6, 6), "F16")}
    write(path, tensors | {f"{layer}{name}_alpha": number(1.0) for name in ("v_proj", "out_proj")})
    assert validate(path).verdict == "warning"
    with pytest.raises(NotAnAdapter):
        normalize(path, output)
    assert not output.parent.exists()
