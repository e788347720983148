"""What is remembered of a table of tensors is what reading the file in full says."""

import pytest
from support.files import write, write_sparse
from support.keylists import expectations, key_list
from unit.library.small_lora import small_lora, write_lora

from hubtool.library.facts import Shapes, read_facts
from hubtool.library.index import Index
from hubtool.library.record import Folder
from hubtool.library.scan import Report, scan_folder

NAMES = sorted(expectations())[::5]


@pytest.mark.parametrize("name", NAMES)
def test_a_remembered_table_says_what_the_file_says(tmp_path, name):
    shapes = {key: ("F16", shape) for key, shape in key_list(name).shapes.items()}
    path = write_sparse(tmp_path / "x.safetensors", shapes)
    memory = Shapes({}.get)
    first = read_facts(path, memory)
    assert len(memory.fresh) == 1
    assert read_facts(path, memory) == first == read_facts(path)


def test_metadata_that_decide_are_part_of_what_is_remembered(tmp_path):
    memory = Shapes({}.get)
    plain = read_facts(write_lora(tmp_path / "a.safetensors", 1, {"x": "y"}), memory)
    trained = {"ss_network_module": "networks.dylora", "ss_output_name": "alias"}
    dylora = read_facts(write_lora(tmp_path / "b.safetensors", 1, trained), memory)
    assert (plain.parametrizations, dylora.parametrizations) == (("lora",), ("dylora",))
    assert dylora.alias == "alias"


def test_a_cut_file_is_not_taken_for_its_whole_twin(tmp_path):
    memory = Shapes({}.get)
    read_facts(write_lora(tmp_path / "a.safetensors", 1), memory)
    (tmp_path / "b.safetensors").write_bytes(small_lora(1)[:-2])
    assert "cut off" in read_facts(tmp_path / "b.safetensors", memory).problem


def test_hashes_are_kept_as_stated_and_as_they_can_be_compared(tmp_path):
    stated = "0xABCDEF" + "0" * 58
    facts = read_facts(write(tmp_path / "a.safetensors", {}, {"sshs_model_hash": stated}))
    assert facts.problem == ""
    assert (facts.stated_hash, facts.embedded_hash) == (stated, stated[2:].lower())
    facts = read_facts(write(tmp_path / "b.safetensors", {}, {"sshs_model_hash": "e3b0c44298fc1c149afb"}))
    assert (facts.stated_hash, facts.embedded_hash) == ("e3b0c44298fc1c149afb", "")


def test_a_file_that_said_nothing_is_read_again_by_another_hubtool(tmp_path):
    folder = tmp_path / "loras"
    write_lora(folder / "known.safetensors", 1)
    write_sparse(
        folder / "unknown.safetensors",
        {"mystery.lora_up.weight": ("F16", (7, 1)), "mystery.lora_down.weight": ("F16", (1, 5))},
    )
    with Index(tmp_path / "index.sqlite") as index:
        with index.writing():
            index.remember(Folder(folder, "a1111"))
        scan_folder(index, Folder(folder, "a1111"), Report())
        index.ask("UPDATE fact SET reader = 'older'")
        report = Report()
        scan_folder(index, Folder(folder, "a1111"), report)
        assert report.changed == [str(folder / "unknown.safetensors")]
        scan_folder(index, Folder(folder, "a1111"), again := Report())
        assert again == Report()
