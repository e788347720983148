"""Every target is whole, and folders are chosen as the contract says."""

from pathlib import Path

import pytest

from hubtool.errors import UsageProblem
from hubtool.library.prompts import DIALECTS
from hubtool.library.sidecar import all_sidecars
from hubtool.library.target import all_targets, choose_place, known_places, target_named
from hubtool.settings import Directories, Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(Directories(tmp_path, tmp_path, tmp_path), library=tmp_path / "ui")


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda target: target.id)
def test_a_target_is_whole(target):
    assert target.source
    assert not Path(target.folder).is_absolute()
    assert ".safetensors" in target.extensions
    assert all(extension == extension.lower() for extension in target.extensions)
    assert set(target.sidecars) <= set(all_sidecars())
    assert target.prompt("x") == "<lora:x:1>"


def test_the_default_is_a1111_below_the_library(settings, tmp_path):
    place = choose_place(settings)
    assert (place.target.id, place.folder) == ("a1111", tmp_path / "ui" / "models" / "Lora")


def test_a_target_may_bring_its_root(settings, tmp_path):
    place = choose_place(settings, f"comfyui={tmp_path / 'comfy'}")
    assert place.folder == tmp_path / "comfy" / "models" / "loras"
    assert choose_place(settings, "comfyui").folder == tmp_path / "ui" / "models" / "loras"


def test_to_names_the_very_folder(settings, tmp_path):
    assert choose_place(settings, to=tmp_path / "x").folder == tmp_path / "x"
    assert choose_place(settings, "comfyui", tmp_path / "x").target.id == "comfyui"
    with pytest.raises(UsageProblem):
        choose_place(settings, "comfyui=/ui", tmp_path / "x")


def test_an_unknown_target_is_refused_with_the_known_ones():
    with pytest.raises(UsageProblem, match="comfyui"):
        target_named("nonsense")


def test_only_folders_that_exist_are_looked_into(settings, tmp_path):
    assert known_places(settings) == ()
    (tmp_path / "ui" / "models" / "LyCORIS").mkdir(parents=True)
    assert [place.folder.name for place in known_places(settings)] == ["LyCORIS"]


A1111S = {".safetensors", ".pt", ".ckpt"}
CONVENTIONS = {  # folder, extensions that are listed, grammar of prompts, what stands before a preview's extension
    "a1111": ("models/Lora", A1111S, "a1111", ".preview"),
    "forge": ("models/Lora", A1111S, "forge", ".preview"),
    "sdnext": ("models/Lora", A1111S, "sdnext", ".preview"),
    "comfyui": ("models/loras", {*A1111S, ".pt2", ".bin", ".pth", ".pkl", ".sft"}, "comfyui", ".preview"),
    "swarmui": ("Models/Lora", {*A1111S, ".pth", ".sft"}, "swarmui", ".preview"),
    "invokeai": ("autoimport/lora", A1111S, "invokeai", ""),
    "fooocus": ("models/loras", {".safetensors", ".ckpt", ".pth", ".bin"}, "fooocus", ".preview"),
    "diffusers": ("loras", {".safetensors", ".bin"}, "a1111", ".preview"),
}


@pytest.mark.parametrize("id", sorted(all_targets()))
def test_a_target_is_as_its_programs_source_has_it(id):
    target = target_named(id)
    assert (target.folder, set(target.extensions), target.grammar, target.preview) == CONVENTIONS[id]
    assert target.grammar in DIALECTS
