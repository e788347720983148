"""Real key lists are what people say they are, every tensor understood, whatever order they come in."""

import random
from collections import Counter
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
    assert (found.dialect, found.architecture) == (expected["dialect"], expected["architecture"])
    assert Counter(found.parametrizations).most_common(1)[0][0] == expected["parametrization"]
    assert found.malformed == expected.get("malformed", False)
    assert set(found.modifiers) >= set(expected.get("modifiers", ()))


@pytest.mark.parametrize("name", LISTS)
def test_every_tensor_is_understood(folder: Path, name: str) -> None:
    found = inspected(folder, name)
    assert (found.coverage, found.leftovers) == (1.0, ())
    assert found.candidates[0].coverage == 1.0
    assert found.tensors == len(key_list(name).shapes)


INVENTED = {"invokeai_flux_lokr_bfl_format"}  # the shapes of this list are somebody's toy sizes


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
