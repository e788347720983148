"""Findings, verdicts, and what is not looked at. The bad files themselves are in tests/hostile."""

from pathlib import Path

import pytest
from support.adapters import lora, modules_like
from support.files import number, random_tensor, write, write_sparse
from support.keylists import at_rank, expectations, key_list, with_values

from hubtool.adapters.codec import read_adapter
from hubtool.errors import BrokenAdapter, FileMissing, NotAnAdapter
from hubtool.formats.safetensors import read_safetensors
from hubtool.operations.rules.problem import CODES, problem
from hubtool.operations.validate import check_values, refuse_broken, validate

K = modules_like("sd1", "attn2.to_k")


def codes(path: Path) -> list[str]:
    return [found.code for found in validate(path).problems]


#: Lists whose modules are whole: quoted ones are not, and those of tests have invented shapes and ranks.
INVENTED = ("invokeai_flux_lokr", "invokeai_anima", "invokeai_qwen_image_lora_kohya", "invokeai_krea2")
WHOLE = [name for name in expectations() if not name.startswith(("issue_", *INVENTED))]


@pytest.mark.parametrize("name", WHOLE)
def test_real_files_are_sound(tmp_path: Path, name: str) -> None:
    shapes = key_list(name).shapes
    small = at_rank(shapes, 2) if key_list(name).expected["parametrization"] == "lora" else shapes
    if sum(1 for _ in small) > 3000 or "full" in name or "boft" in name:
        path = write_sparse(tmp_path / "x.safetensors", {key: ("F16", shape) for key, shape in small.items()})
        assert {found.code for found in validate(path).problems} <= {"W_ALL_ZERO", "W_ZERO_TAIL", "W_ALPHA_ZERO"}
    else:
        assert validate(write(tmp_path / "x.safetensors", with_values(small))).verdict == "ok"


def test_a_path_without_a_file_is_an_error_and_a_broken_link_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        validate(tmp_path / "gone.safetensors")
    (tmp_path / "link").symlink_to("gone")
    assert validate(tmp_path / "link").verdict == "refused"


def test_many_findings_of_one_code_are_summed_up(tmp_path: Path) -> None:
    tensors = lora("sdxl", "kohya", modules_like("sdxl", "attn2.to_k", "attn1.to_q"))
    broken = {key: raw for key, raw in tensors.items() if "lora_down" in key}
    found = validate(write(tmp_path / "x.safetensors", broken)).problems
    told = [one for one in found if one.code == "E_PAIR_MISSING"]
    assert len(told) == 21
    assert told[-1].message == f"There are {len(broken) - 20} more findings like this."


def test_a_note_leaves_a_file_sound(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", lora("sd1", "kohya", K, alpha=4), {"ss_network_dim": "128"})
    assert codes(path) == ["W_DIM_METADATA"]
    assert validate(path).verdict == "ok"


def test_values_of_a_large_file_are_looked_at_only_when_asked(tmp_path: Path) -> None:
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    shapes = {f"{base}.lora_down.weight": ("F16", (130_000, 768)), f"{base}.lora_up.weight": ("F16", (320, 130_000))}
    path = write_sparse(tmp_path / "x.safetensors", shapes)
    assert not validate(path).values_checked
    found = validate(path, check_all_values=True)
    assert found.values_checked
    assert "W_ALL_ZERO" in {one.code for one in found.problems}


def test_values_alone_can_be_checked(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", K)
    key = next(iter(tensors))
    tensors[key] = tensors[key]._replace(data=b"\x00\x7c" + tensors[key].data[2:])
    (found,) = check_values(write(tmp_path / "x.safetensors", tensors))
    assert (found.code, found.key, found.severity) == ("E_NONFINITE", key, "error")


def test_every_code_has_a_severity_a_sentence_and_a_fix() -> None:
    for code, meaning in CODES.items():
        assert meaning.severity in {"refused", "error", "warning", "note"}, code
        assert meaning.sentence.endswith("."), code
        assert meaning.fix.endswith("."), code
        assert code.startswith("E_") == (meaning.severity in {"refused", "error"}), code


@pytest.mark.parametrize("code", ["E_NOT_SAFETENSORS_HTML", "E_NOT_A_LORA_VAE", "E_NOT_A_LORA_OTHER"])
def test_codes_with_an_ending_have_the_severity_of_their_beginning(code: str) -> None:
    assert problem(code, "x").severity == "refused"


# ---------------------------------------------------------------- what rewriting refuses


def refusal(path: Path) -> None:
    refuse_broken(read_safetensors(path), read_adapter(path))


def test_a_sound_adapter_is_let_through(tmp_path: Path) -> None:
    refusal(write(tmp_path / "x.safetensors", lora("sd1", "kohya", K)))


def test_warnings_are_let_through(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", K, alpha=4) | {"stranger": number(1)}
    tensors[next(key for key in tensors if key.endswith(".alpha"))] = number(-1)
    refusal(write(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"up": None}, "no up"),
        ({"up": random_tensor(1, (320, 5))}, "up is"),
        ({"down": random_tensor(1, (4, 999))}, "made for"),
        ({"up": random_tensor(1, (320, 4))._replace(data=b"\x00\x7e" * 1280)}, "NaN"),
    ],
)
def test_an_error_is_raised_with_the_finding_as_its_sentence(tmp_path: Path, change: dict, word: str) -> None:
    tensors = lora("sd1", "kohya", K)
    base = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    for part, raw in change.items():
        key = f"{base}.lora_{part}.weight"
        tensors = {**tensors, key: raw} if raw else {name: old for name, old in tensors.items() if name != key}
    with pytest.raises(BrokenAdapter, match=word) as caught:
        refusal(write(tmp_path / "x.safetensors", tensors))
    assert "validate" in caught.value.hint
    assert base in caught.value.module


def test_a_checkpoint_with_a_few_stray_keys_is_no_adapter(tmp_path: Path) -> None:
    model = {f"model.diffusion_model.input_blocks.{i}.0.weight": random_tensor(i, (2, 2)) for i in range(90)}
    with pytest.raises(NotAnAdapter, match="checkpoint"):
        refusal(write(tmp_path / "x.safetensors", lora("sd1", "kohya", K) | model))
