"""Real key lists are what people say they are, every tensor understood, whatever order they come in."""

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from support.files import write_sparse
from support.keylists import expectations, key_list

from hubtool.formats.safetensors import SafetensorsFile
from hubtool.formats.tensor import LazyTensor
from hubtool.naming.suffixes import split_key
from hubtool.operations.inspect import Inspection, inspect, inspect_file

LISTS = list(expectations())

#: Samples of grammar: their collector gave some modules sizes that no model has.
INVENTED = {
    "invokeai_flux_lokr_bfl_format",
    "invokeai_anima_lora_kohya_format",
    "invokeai_anima_lora_kohya_with_te_format",
    "invokeai_anima_lora_lokr_format",
    "invokeai_anima_lora_peft_format",
    "invokeai_qwen_image_lora_kohya_format",
}

#: Where `inspect` does not say what the list's collector expected, and why.
ARGUED = {
    # the collector's log had `diffusion_model.` stripped, the list has it: `original` is for bare names
    "issue_diffusers13221_zimage_lokr": ("comfyui", "z-image"),
    # block modulation alone is the same in all three Wans of 14B; the commoner is named, the other is a candidate
    "issue_wanwrapper807_lightx2v_diff_m": ("comfyui", "wan-14b"),
}


def dtype_of(key: str) -> str:
    return "I64" if key.endswith(".on_input") else "F32" if key.endswith(".alpha") else "F16"


@cache
def inspected(folder: Path, name: str) -> Inspection:
    """The list as a file of zeros, inspected."""
    shapes = {key: (dtype_of(key), shape) for key, shape in key_list(name).shapes.items()}
    return inspect(write_sparse(folder / f"{name}.safetensors", shapes))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists")


@pytest.mark.parametrize("name", LISTS)
def test_dialect_architecture_and_family_are_what_people_say(folder: Path, name: str) -> None:
    found, expected = inspected(folder, name), key_list(name).expected
    assert found.kind == "adapter"
    assert (found.dialect, found.architecture) == ARGUED.get(name, (expected["dialect"], expected["architecture"]))
    assert expected["architecture"] in {candidate.architecture for candidate in found.candidates}
    assert Counter(found.parametrizations).most_common(1)[0][0] == expected["parametrization"]
    assert found.malformed == expected.get("malformed", False)
    assert set(found.modifiers) >= set(expected.get("modifiers", ()))


@pytest.mark.parametrize("name", LISTS)
def test_every_tensor_is_understood(folder: Path, name: str) -> None:
    found = inspected(folder, name)
    assert (found.coverage, found.leftovers) == (1.0, ())
    assert found.candidates[0].coverage == 1.0 or name in INVENTED
    assert found.tensors == len(key_list(name).shapes)


@pytest.mark.parametrize("name", sorted(set(LISTS) - INVENTED))
def test_no_shape_of_a_real_file_is_a_misfit(folder: Path, name: str) -> None:
    from hubtool.adapters.codec import read_adapter

    inspected(folder, name)
    adapter = read_adapter(folder / f"{name}.safetensors")
    assert (adapter.misfits, adapter.duplicates, adapter.mixed) == ((), {}, ())


MANY = [name for name in LISTS if len(key_list(name).shapes) > 100]


def memory_file(name: str, keys: list[str]) -> SafetensorsFile:
    """Some keys of a list, without a file."""
    shapes = key_list(name).shapes
    tensors = {key: LazyTensor(dtype_of(key), shapes[key], b"\0\0\0\0") for key in keys}
    return SafetensorsFile(Path(f"{name}.safetensors"), tensors, {}, 0, 0, None)


@pytest.mark.parametrize("name", MANY)
def test_the_order_of_keys_does_not_matter(name: str) -> None:
    keys = list(key_list(name).shapes)
    random.Random(name).shuffle(keys)
    found, expected = inspect_file(memory_file(name, keys)), key_list(name).expected
    assert (found.dialect, found.architecture, found.coverage) == (expected["dialect"], expected["architecture"], 1.0)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("name", MANY)
def test_any_part_of_a_file_is_still_what_the_whole_is(name: str, share: float) -> None:
    groups: dict[str, list[str]] = {}
    for key in key_list(name).shapes:
        groups.setdefault(split_key(key).base, []).append(key)
    chosen = random.Random(f"{name}{share}").sample(sorted(groups), max(1, int(share * len(groups))))
    found = inspect_file(memory_file(name, [key for base in chosen for key in groups[base]]))
    assert found.coverage == 1.0
    assert key_list(name).expected["architecture"] in {candidate.architecture for candidate in found.candidates}
    assert found.ambiguous or found.architecture == key_list(name).expected["architecture"]


def test_bare_names_of_the_same_list_are_the_dialect_that_its_collector_expected() -> None:
    listed = key_list("issue_diffusers13221_zimage_lokr")
    tensors = {
        key.removeprefix("diffusion_model."): LazyTensor(dtype_of(key), shape, b"\0\0\0\0")
        for key, shape in listed.shapes.items()
    }
    found = inspect_file(SafetensorsFile(Path("bare.safetensors"), tensors, {}, 0, 0, None))
    assert (found.dialect, found.architecture) == (listed.expected["dialect"], listed.expected["architecture"])


def test_a_tie_of_the_wans_is_said_and_metadata_settle_it() -> None:
    name = "issue_wanwrapper807_lightx2v_diff_m"
    keys = list(key_list(name).shapes)
    found = inspect_file(memory_file(name, keys))
    assert found.ambiguous
    assert [candidate.architecture for candidate in found.candidates] == ["wan-14b", "wan21-i2v-14b", "wan21-vace-14b"]
    told = replace(memory_file(name, keys), metadata={"modelspec.architecture": "wan2.1_i2v_14b/lora"})
    assert inspect_file(told).architecture == key_list(name).expected["architecture"]
