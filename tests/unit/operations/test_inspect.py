"""What a header says about a file, and what it does not."""

import json
import time
from pathlib import Path

import pytest
from support.adapters import in_memory, lora, modules_like
from support.files import Raw, number, random_tensor, write
from support.keylists import key_list, with_values

from hubtool.errors import UnknownArchitecture
from hubtool.operations.inspect import Range, inspect, inspect_file

K = modules_like("sd1", "attn2.to_k")


@pytest.mark.parametrize(
    ("keys", "kind", "what"),
    [
        (["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x"], "checkpoint", "checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight"], "checkpoint", "checkpoint"),
        (["double_blocks.0.img_attn.qkv.weight"], "checkpoint", "checkpoint"),
        (["emb_params"], "embedding", "embedding"),
        (["clip_l", "clip_g"], "embedding", "embedding"),
        (["string_to_param"], "embedding", "embedding"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "other", "VAE"),
        (["control_model.input_blocks.0.0.weight"], "other", "ControlNet"),
        (["controlnet_down_blocks.0.weight"], "other", "ControlNet"),
        (["whatever"], "other", "no LoRA"),
        ([], "other", ""),
    ],
)
def test_files_of_other_kinds_are_named(keys: list[str], kind: str, what: str) -> None:
    found = inspect_file(in_memory({key: random_tensor(1, (4, 4)) for key in keys}))
    assert found.kind == kind or not keys
    assert what in found.what
    assert (found.dialect, found.architecture, found.modules, found.coverage) == (None, None, 0, 0.0)


def test_an_adapter_of_an_unknown_model_is_an_adapter() -> None:
    found = inspect_file(
        in_memory({f"net.{i}.lora_{ab}.weight": random_tensor(i, (4, 4)) for i in range(3) for ab in "AB"})
    )
    assert (found.kind, found.architecture, found.candidates) == ("adapter", None, ())
    assert "unknown" in found.what


def test_ranks_alphas_dtypes_and_components_are_counted() -> None:
    tensors = lora("sd1", "kohya", K[:3], rank=4, alpha=2) | lora("sd1", "kohya", K[3:5], rank=16, alpha=8, dtype="F32")
    found = inspect_file(in_memory(tensors))
    assert (found.rank, found.alpha) == (Range(4, 16), Range(2.0, 8.0))
    assert found.dtypes == {"F16": 6, "F32": 4 + 5}
    assert (found.components, found.parametrizations, found.modules) == ({"denoiser": 5}, {"lora": 5}, 5)


@pytest.mark.parametrize(
    "alpha",
    [
        number(float("nan")),
        number(float("inf")),
        number(1, "F32", (3,)),
        Raw("F8_E4M3", (), b"1"),
        Raw("F32", (0,), b""),
    ],
)
def test_an_alpha_that_is_no_number_is_left_to_validation(alpha: Raw) -> None:
    tensors = lora("sd1", "kohya", K[:2], alpha=2)
    tensors[next(key for key in tensors if key.endswith("alpha"))] = alpha
    assert inspect_file(in_memory(tensors)).alpha == Range(2.0, 2.0)


def test_several_families_in_one_file_are_counted_apart() -> None:
    name = "gen_lycoris_sd15_lokr_tucker_bothdecomp_norm"
    found = inspect_file(in_memory(with_values(key_list(name).shapes)))
    assert set(found.parametrizations) == {"lokr", "norm"}
    assert found.modifiers == ("tucker",)


@pytest.mark.parametrize(
    ("metadata", "title", "base", "words"),
    [
        ({}, None, None, ()),
        ({"ss_output_name": "a", "modelspec.title": "b"}, "b", None, ()),
        ({"ss_output_name": "a", "modelspec.title": ""}, "a", None, ()),
        ({"modelspec.title": "None", "ss_output_name": "a"}, "a", None, ()),
        ({"ss_base_model_version": "sd_v1"}, None, "sd_v1", ()),
        ({"modelspec.trigger_phrase": "one, two , ,one"}, None, None, ("one", "two")),
        ({"modelspec.trigger_phrase": " , ", "trigger_words": "x"}, None, None, ("x",)),
        (
            {"ss_datasets": json.dumps([{"subsets": [{"class_tokens": "cat"}, {"class_tokens": "cat"}]}])},
            None,
            None,
            ("cat",),
        ),
        ({"ss_datasets": '[{"subsets":[{"class_tokens":7},5,null]},{"subsets":3},8]'}, None, None, ()),
        ({"ss_datasets": "{"}, None, None, ()),
        ({"ss_datasets": "[" * 100_000}, None, None, ()),
        ({"ss_tag_frequency": '{"a":{"1girl":99}}'}, None, None, ()),
    ],
)
def test_title_base_model_and_trigger_words_are_those_that_the_header_states(
    metadata: dict[str, str], title: str | None, base: str | None, words: tuple[str, ...]
) -> None:
    found = inspect_file(in_memory(lora("sd1", "kohya", K[:1]), metadata))
    assert (found.title, found.base_model, found.trigger_words) == (title, base, words)


@pytest.mark.parametrize("text", ["[" + "{}," * 1_300_000 + "{}]", "," * 20_000_000, "a," * 10_000_000])
@pytest.mark.parametrize("key", ["ss_datasets", "trigger_words", "lora_adapter_metadata", "hubtool.alpha"])
def test_no_metadata_take_long(key: str, text: str) -> None:
    file = in_memory(lora("sd1", "diffusers", K[:1]), {key: text})
    started = time.process_time()
    inspect_file(file)
    assert time.process_time() - started < 2


def test_an_architecture_that_is_asked_for_is_tried_and_a_wrong_one_refused() -> None:
    file = in_memory(lora("sd1", "kohya", modules_like("sd1", "attn1.to_q")))
    assert inspect_file(file, architecture="sd2").architecture == "sd2"
    with pytest.raises(UnknownArchitecture):
        inspect_file(file, architecture="flux1")


def test_hashes_are_computed_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", lora("sd1", "kohya", K[:1]))
    assert inspect(path).hashes is None
    hashes = inspect(path, hashes=True).hashes
    assert hashes is not None
    assert len(hashes.sha256) == 64


def test_a_dylora_is_told_from_a_lora_by_its_metadata_alone(tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", modules_like("sd1", "attn2.to_k"))
    for metadata in ({"ss_network_module": "networks.dylora"}, {"ss_network_args": '{"algo": "dylora", "unit": 4}'}):
        path = write(tmp_path / "in.safetensors", tensors, metadata)
        assert list(inspect(path).parametrizations) == ["dylora"]
    for metadata in ({"ss_network_module": "networks.lora"}, {"ss_network_args": "dylora"}, {}):
        assert list(inspect(write(tmp_path / "in.safetensors", tensors, metadata)).parametrizations) == ["lora"]
