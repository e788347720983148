import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubtool.hubs.names import MAX_NAME_BYTES, final_name, header_name, numbered, safe_name, url_names

VECTORS = json.loads(
    (Path(__file__).parents[3] / "fixtures/responses/content_disposition_vectors.json").read_text("utf-8")
)


@pytest.mark.parametrize("vector", VECTORS, ids=[str(number) for number in range(len(VECTORS))])
def test_a_content_disposition_gives_the_safe_name_that_its_vector_says(vector: dict[str, str]) -> None:
    name = header_name(vector["header_latin1"])
    assert (safe_name(name) if name is not None else None) == vector["expected"]


@given(st.text(max_size=400))
def test_a_safe_name_is_one_component_that_every_system_accepts(raw: str) -> None:
    name = safe_name(raw)
    if name is None:
        return
    assert not set(name) & set('/\\<>:"|?*\0\n\r\x1b\u202e')
    assert name == name.strip(" ").rstrip(".")
    assert name.strip(".")
    assert len(name.encode("utf-8")) <= MAX_NAME_BYTES + 1
    assert name.partition(".")[0].rstrip().lower() not in {"con", "nul", "aux", "prn", "com1", "lpt9"}
    assert safe_name(name) == name


@given(st.lists(st.text(max_size=300), max_size=3))
def test_a_final_name_always_has_an_extension_that_cannot_run(candidates: list[str]) -> None:
    name = final_name(candidates, "2001")
    assert name.lower().endswith((".safetensors", ".zip", ".json", ".yaml", ".yml", ".txt", ".gguf"))
    assert len(name.encode()) <= MAX_NAME_BYTES + 1
    assert Path(name).name == name


@pytest.mark.parametrize(
    "name", ["CONIN$.safetensors", "com\N{SUPERSCRIPT TWO}.safetensors", "Lpt1.x.safetensors", "nul"]
)
def test_device_names_of_windows_get_an_underscore(name: str) -> None:
    assert safe_name(name) == f"_{name}"


def test_a_name_is_cut_at_a_characters_border_and_keeps_its_extension() -> None:
    name = safe_name("名" * 100 + ".safetensors")
    assert name == "名" * 62 + ".safetensors"


def test_a_mark_survives_the_cut() -> None:
    marked = numbered("a" * 180 + ".safetensors", "1234567890")
    assert marked.endswith("_1234567890.safetensors")
    assert len(marked) <= MAX_NAME_BYTES


def test_the_first_usable_candidate_wins_and_an_extension_alone_is_none() -> None:
    assert final_name(["..", ".safetensors", "", "b.safetensors", "c.safetensors"], "7") == "b.safetensors"
    assert final_name([".."], "7") == "7.safetensors"


def test_a_disposition_inside_an_address_comes_before_its_path() -> None:
    url = "https://s.example/x/raw.bin?b2ContentDisposition=attachment%3B%20filename%3D%22Nice.safetensors%22"
    assert url_names(url) == ["Nice.safetensors", "raw.bin"]
