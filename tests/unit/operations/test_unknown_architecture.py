"""Adapters of base models that nobody has told hubtool about."""

import json
from pathlib import Path

import pytest
from support.files import Raw, number, parsed, random_tensor, write

from hubtool.errors import NotRepresentable, UnknownArchitecture
from hubtool.operations.convert import ConvertOptions, convert
from hubtool.operations.inspect import Range, inspect
from hubtool.operations.validate import validate

KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
NAMED = (".lora_A.mine.weight", ".lora_B.mine.weight")
OLD = (".lora.down.weight", ".lora.up.weight")
NAMES = [f"blorp.{i}.mixer.w{x}" for i in range(3) for x in "abc"]
FLAT = [name.replace(".", "_") for name in NAMES]
OUT, IN, RANK = 160, 96, 4


def adapter(
    bases: list[str], suffixes: tuple[str, str], alpha: float | None = None, dtype: str = "F32"
) -> dict[str, Raw]:
    down, up = suffixes
    tensors = {}
    for seed, base in enumerate(bases):
        tensors[base + down] = random_tensor(seed, (RANK, IN), dtype)
        tensors[base + up] = random_tensor(seed + 50, (OUT, RANK), dtype)
        if alpha is not None:
            tensors[base + ".alpha"] = number(alpha)
    return tensors


def prefixed(prefix: str, names: list[str] = NAMES) -> list[str]:
    return [prefix + name for name in names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(path: Path) -> dict[str, Raw]:
    return parsed(path.read_bytes())[0]


def test_every_convention_is_recognised_by_its_prefix_and_suffixes(folder: Path) -> None:
    cases = {
        "kohya": adapter([*prefixed("lora_unet_", FLAT), "lora_te_fnord_0_q"], KOHYA, 2),
        "onetrainer": adapter(prefixed("lora_transformer_", FLAT), KOHYA, 2),
        "lycoris": adapter(prefixed("lycoris_", FLAT), KOHYA, 2),
        "comfyui": adapter(prefixed("diffusion_model."), PEFT),
        "diffusers": adapter([*prefixed("transformer."), "text_encoder.fnord.0.q"], PEFT),
        "diffusers-old": adapter(prefixed("unet."), OLD),
        "peft": adapter(prefixed("base_model.model."), NAMED),
        "original": adapter(NAMES, KOHYA, 2),
    }
    for dialect_id, tensors in cases.items():
        found = inspect(write(folder / f"{dialect_id}.safetensors", tensors))
        assert (found.kind, found.dialect, found.architecture) == ("adapter", dialect_id, None)


def test_families_ranks_and_alphas_are_counted_without_knowing_the_model(folder: Path) -> None:
    tensors = adapter(prefixed("lora_unet_", FLAT), KOHYA, 2)
    loha = {f"hada_w{i}_{x}": (OUT, 8) if x == "a" else (8, IN) for i in (1, 2) for x in "ab"}
    tensors |= {f"lora_unet_fnord.{name}": random_tensor(1, shape) for name, shape in loha.items()}
    tensors |= {"lora_unet_fnord.alpha": number(1), "stray": number(1)}
    found = inspect(write(folder / "x.safetensors", tensors))
    assert found.what == "an adapter of an unknown architecture"
    assert found.parametrizations == {"lora": 9, "loha": 1}
    assert (found.modules, found.rank, found.alpha) == (10, Range(4, 8), Range(1.0, 2.0))
    assert (found.coverage, found.leftovers, found.components, found.candidates) == (0.0, ("stray",), {}, ())


def test_the_nearest_relatives_are_named_with_the_share_that_they_explain(folder: Path) -> None:
    known = [f"transformer.transformer_blocks.{i}.attn.{x}" for i in range(2) for x in ("to_q", "add_q_proj")]
    found = inspect(write(folder / "x.safetensors", adapter([*known, *prefixed("transformer.")], PEFT)))
    assert found.architecture is None
    nearest = found.relatives[0]
    assert nearest.names == pytest.approx(4 / 13)
    assert nearest.coverage == 0
    assert f"{4 / 13:.0%} of the module names" in nearest.evidence[0]
    assert len(found.relatives) <= 3


def test_names_of_no_model_have_no_relatives(folder: Path) -> None:
    assert inspect(write(folder / "x.safetensors", adapter(prefixed("diffusion_model."), PEFT))).relatives == ()


def test_structure_is_validated_all_the_same(folder: Path) -> None:
    tensors = adapter(prefixed("diffusion_model."), KOHYA, 2)
    whole = validate(write(folder / "whole.safetensors", tensors))
    assert [problem.code for problem in whole.problems] == ["W_UNKNOWN_ARCHITECTURE"]
    lacking = {key: tensor for key, tensor in tensors.items() if key != f"diffusion_model.{NAMES[0]}.lora_up.weight"}
    broken = validate(write(folder / "broken.safetensors", lacking))
    assert broken.verdict == "broken"
    assert "E_PAIR_MISSING" in {problem.code for problem in broken.problems}


@pytest.mark.parametrize(
    ("bases", "before", "to", "after"),
    [
        (prefixed("diffusion_model."), PEFT, "comfyui", KOHYA),
        (prefixed("diffusion_model."), KOHYA, "diffusers", PEFT),
        (prefixed("lora_unet_", FLAT), KOHYA, "peft", PEFT),
        (prefixed("base_model.model."), NAMED, "peft", PEFT),
        (prefixed("transformer."), PEFT, "kohya", KOHYA),
        (prefixed("transformer."), OLD, "diffusers", PEFT),
        (NAMES, PEFT, "diffusers-old", OLD),
    ],
)
def test_suffixes_change_and_names_do_not(
    folder: Path, bases: list[str], before: tuple[str, str], to: str, after: tuple[str, str]
) -> None:
    tensors = adapter(bases, before)
    done = convert(write(folder / "x.safetensors", tensors), to, folder / "y.safetensors")
    assert (done.architecture, done.modules, done.exact, done.fused, done.split) == (None, 9, True, 0, 0)
    assert "unknown" in done.notes[0]
    assert to in done.notes[0]
    written = read(folder / "y.safetensors")
    pairs = dict(zip(before, after, strict=True))
    endings = {key: next(old for old in pairs if key.endswith(old)) for key in tensors}
    renamed = {key.removesuffix(old) + pairs[old]: tensors[key] for key, old in endings.items()}
    assert written == renamed


def test_alpha_is_kept_where_the_target_has_it(folder: Path) -> None:
    tensors = adapter(NAMES, KOHYA, 3)
    done = convert(write(folder / "x.safetensors", tensors), "comfyui", folder / "y.safetensors")
    assert (done.alpha, done.exact) == ("kept", True)
    assert read(folder / "y.safetensors") == tensors


@pytest.mark.parametrize(("alpha", "exact"), [(2, True), (3, False)])
def test_alpha_is_folded_where_no_program_would_look_for_a_record(folder: Path, alpha: float, exact: bool) -> None:
    tensors = adapter(prefixed("lora_unet_", FLAT), KOHYA, alpha)
    done = convert(write(folder / "x.safetensors", tensors), "diffusers", folder / "y.safetensors")
    assert (done.alpha, done.exact, len(done.lossy)) == ("folded", exact, 0 if exact else 9)
    base = f"lora_unet_{FLAT[0]}"
    before, after = tensors[base + KOHYA[1]], read(folder / "y.safetensors")[base + PEFT[1]]
    assert values(after) == pytest.approx([value * alpha / RANK for value in values(before)], rel=1e-6)


def test_alpha_is_recorded_where_diffusers_looks_for_it_and_comes_back(folder: Path) -> None:
    tensors = adapter(prefixed("transformer."), KOHYA, 3)
    source = write(folder / "x.safetensors", tensors)
    done = convert(source, "diffusers", folder / "y.safetensors")
    assert (done.from_, done.alpha, done.exact) == ("diffusers", "recorded", True)
    metadata = parsed((folder / "y.safetensors").read_bytes())[1]
    record = json.loads(metadata["lora_adapter_metadata"])
    assert (record["transformer.lora_alpha"], record["transformer.r"]) == (3.0, 4)
    assert "hubtool.architecture" not in metadata
    convert(folder / "y.safetensors", "kohya", folder / "z.safetensors")
    assert read(folder / "z.safetensors") == tensors


def values(tensor: Raw) -> list[float]:
    import numpy as np

    return np.frombuffer(tensor.data, "<f4").tolist()


def test_loha_becomes_lora_without_knowing_the_model(folder: Path) -> None:
    loha = {f"hada_w{i}_{x}": (OUT, 2) if x == "a" else (2, IN) for i in (1, 2) for x in "ab"}
    tensors = {f"{name}.{part}": random_tensor(3, shape, "F32") for name in NAMES for part, shape in loha.items()}
    source = write(folder / "x.safetensors", tensors)
    options = ConvertOptions(parametrization="lora", rank=4)
    done = convert(source, "peft", folder / "y.safetensors", options)
    assert done.architecture is None
    assert max(loss.error for loss in done.lossy) < 1e-5  # the Hadamard product of two rank-2 products has rank 4
    assert {key.removesuffix(".weight")[-1] for key in read(folder / "y.safetensors")} == {"A", "B"}


def test_an_architecture_that_is_asked_for_is_not_replaced_by_none(folder: Path) -> None:
    source = write(folder / "x.safetensors", adapter(prefixed("diffusion_model."), PEFT))
    with pytest.raises(UnknownArchitecture, match="flux1"):
        convert(source, "kohya", folder / "y.safetensors", ConvertOptions(architecture="flux1"))


def test_numbers_without_a_model_are_no_names(folder: Path) -> None:
    tensors = adapter([f"unet:{i}" for i in range(900, 909)], (":down", ":up"))
    source = write(folder / "x.safetensors", tensors)
    found = inspect(source)
    assert (found.dialect, found.architecture) == ("cloneofsimo", None)
    with pytest.raises(NotRepresentable, match="numbers"):
        convert(source, "kohya", folder / "y.safetensors")


def test_no_tensor_is_lost(folder: Path) -> None:
    """A role said twice and an alpha of nothing are no part of a module; they are copied and reported."""
    tensors = adapter(NAMES, KOHYA, 2) | {
        f"{NAMES[0]}.lora_A.weight": random_tensor(99, (RANK, IN), "F32"),
        "fnord.alpha": number(7),
    }
    done = convert(write(folder / "x.safetensors", tensors), "comfyui", folder / "y.safetensors")
    assert set(done.leftovers) == {f"{NAMES[0]}.lora_A.weight", "fnord.alpha"}
    assert read(folder / "y.safetensors") == tensors


@pytest.mark.parametrize("to", ["animatediff", "bfl", "hunyuan"])
def test_a_dialect_of_certain_models_is_no_target(folder: Path, to: str) -> None:
    source = write(folder / "x.safetensors", adapter(NAMES, KOHYA))
    with pytest.raises(NotRepresentable, match=f"The {to} dialect has no names"):
        convert(source, to, folder / "y.safetensors")
    assert not (folder / "y.safetensors").exists()


def test_a_module_with_and_without_prefix_is_two_modules(folder: Path) -> None:
    tensors = adapter([*prefixed("transformer."), NAMES[0]], PEFT)
    done = convert(write(folder / "x.safetensors", tensors), "comfyui", folder / "y.safetensors")
    assert (done.modules, len(read(folder / "y.safetensors"))) == (10, 20)
