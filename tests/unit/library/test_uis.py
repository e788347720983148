"""UIs are found by their own files, remembered by name, and share one copy of a LoRA."""

from dataclasses import replace

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import LibraryProblem, StorageProblem, UsageProblem
from hubtool.library.acquire import Order
from hubtool.library.adding_ui import added_ui
from hubtool.library.index import Index
from hubtool.library.install import Wish
from hubtool.library.model_paths import add_lora_folder, lora_folders
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.spreading import install_everywhere
from hubtool.library.target import all_targets, choose_place
from hubtool.library.uis import detect, known_uis, target_at
from hubtool.settings import Directories, Settings, load

LAYOUTS = {
    "a1111": ("webui.py", "extensions-builtin/Lora/networks.py", "modules/shared.py"),
    "forge": ("webui.py", "modules_forge/main.py", "extensions-builtin/sd_forge_lora/x.py"),
    "sdnext": ("webui.py", "installer.py", "modules/lora/network.py", "extensions-builtin/Lora/x.py"),
    "comfyui": ("main.py", "folder_paths.py", "comfy/lora.py"),
    "swarmui": ("SwarmUI.sln", "src/Core/Program.cs"),
    "invokeai": ("invokeai.yaml",),
    "fooocus": ("fooocus_version.py", "webui.py", "modules/util.py"),
}
EXAMPLE = """# theirs
a111:
    base_path: ui   # relative to this file
    checkpoints: models/Stable-diffusion
    loras: |
        models/Lora
        models/LyCORIS
other:
    loras: /elsewhere/loras
broken: 3
"""


def make(root, target):
    for name in LAYOUTS[target]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    return Settings(Directories(home, home, home), library=tmp_path)


@pytest.mark.parametrize("target", LAYOUTS)
def test_each_ui_is_known_by_its_files(tmp_path, target):
    assert target_at(make(tmp_path / "somewhere", target)).id == target


def test_every_target_that_is_a_program_can_be_found():
    assert {target.id for target in all_targets().values() if target.markers} == set(LAYOUTS)


def test_uis_below_a_folder_are_found_and_other_folders_are_not(tmp_path, settings):
    for place, target in (
        ("AI/ComfyUI", "comfyui"),
        ("StabilityMatrix/Packages/forge", "forge"),
        ("Fooocus_win64/Fooocus", "fooocus"),
    ):
        make(tmp_path / place, target)
    (tmp_path / "AI" / "node_modules" / "x").mkdir(parents=True)
    (tmp_path / "Pictures").mkdir()
    found = {(ui.target, ui.root.relative_to(tmp_path).as_posix()) for ui in detect(settings, [tmp_path])}
    assert found == {
        ("comfyui", "AI/ComfyUI"),
        ("forge", "StabilityMatrix/Packages/forge"),
        ("fooocus", "Fooocus_win64/Fooocus"),
    }


def test_extra_model_paths_are_read_in_every_section(tmp_path):
    path = tmp_path / "extra_model_paths.yaml"
    assert lora_folders(path) == []
    path.write_text(EXAMPLE)
    assert [folder.as_posix() for folder in lora_folders(path)] == [
        (tmp_path / "ui/models/Lora").as_posix(),
        (tmp_path / "ui/models/LyCORIS").as_posix(),
        "/elsewhere/loras",
    ]


def test_our_section_is_added_and_extended_without_touching_others(tmp_path):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(EXAMPLE)
    assert add_lora_folder(path, tmp_path / "one")
    assert add_lora_folder(path, tmp_path / "two words")
    assert not add_lora_folder(path, tmp_path / "one")
    assert path.read_text().startswith(EXAMPLE.rstrip())
    assert lora_folders(path)[-2:] == [tmp_path / "one", tmp_path / "two words"]
    assert path.read_text().count("hubtool:") == 1


def test_a_broken_yaml_is_said_with_its_line_and_left_alone(tmp_path):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text("a:\n  b: [")
    with pytest.raises(LibraryProblem, match="line"):
        add_lora_folder(path, tmp_path)
    assert path.read_text() == "a:\n  b: ["


def test_an_added_ui_is_a_target_by_its_name(tmp_path, settings):
    root = make(tmp_path / "my comfy", "comfyui")
    (root / "models" / "loras").mkdir(parents=True)
    write_lora(root / "models" / "loras" / "ink.safetensors")
    config = tmp_path / "config.toml"
    found = added_ui(settings, config, f"main={root}", None, print)
    assert (found.target, found.folders) == ("comfyui", (root / "models/loras",))
    fresh = load(config, {"HUBTOOL_HOME": str(tmp_path / "home")})
    assert [(ui.name, ui.root) for ui in known_uis(fresh)] == [("main", root)]
    assert choose_place(fresh, "main").folder == root / "models" / "loras"
    with Index(settings.index_path) as index:
        assert [folder.path for folder in index.folders()] == [root / "models" / "loras"]


def test_sharing_writes_comfyuis_file(tmp_path, settings):
    root, shared = make(tmp_path / "comfy", "comfyui"), tmp_path / "shared"
    shared.mkdir()
    found = added_ui(settings, tmp_path / "config.toml", f"comfyui={root}", shared, print)
    assert shared in found.folders
    with pytest.raises(UsageProblem, match="ComfyUI"):
        added_ui(settings, tmp_path / "config.toml", f"forge={make(tmp_path / 'f', 'forge')}", shared, print)


@pytest.mark.parametrize(("text", "error"), [("comfyui", UsageProblem), ("x=/nowhere/at/all", StorageProblem)])
def test_what_is_no_ui_is_refused(tmp_path, settings, text, error):
    with pytest.raises(error):
        added_ui(settings, tmp_path / "config.toml", text, None, print)


def test_a_folder_that_says_nothing_is_refused(tmp_path, settings):
    with pytest.raises(LibraryProblem, match="which UI"):
        added_ui(settings, tmp_path / "config.toml", f"mine={tmp_path}", None, print)


def test_one_file_for_several_uis_takes_its_space_once(tmp_path, settings):
    source = write_lora(tmp_path / "from" / "ink.safetensors", 1, {"modelspec.trigger_phrase": "ink"})
    places = [choose_place(settings, f"{target}={tmp_path / target}") for target in ("a1111", "comfyui", "invokeai")]
    orders = [Order(place, Wish(sidecars=choose_sidecars(None, place.target.sidecars))) for place in places]
    (done,) = install_everywhere(settings, [str(source)], orders, print)
    paths = [done.first.installation.path, *done.also]
    assert [path.parent for path in paths] == [place.folder for place in places]
    assert {path.name for path in paths} == {"ink.safetensors"}
    assert len({path.stat().st_ino for path in paths}) == 1
    assert done.error is None
    assert (places[1].folder / "ink.json").exists()
    again = install_everywhere(settings, [str(source)], orders, print)[0]
    assert again.first.installation.status == "present"
    assert list(again.also) == paths[1:]


def test_one_folder_that_refuses_does_not_stop_the_others(tmp_path, settings):
    source = write_lora(tmp_path / "from" / "ink.safetensors", 1)
    places = [choose_place(settings, f"a1111={tmp_path / name}") for name in "abc"]
    write_lora(places[1].folder / "ink.safetensors", 9)
    orders = [Order(place, Wish(sidecars=())) for place in places]
    (done,) = install_everywhere(settings, [str(source)], orders, print)
    assert done.error is not None
    assert done.also == (places[2].folder / "ink.safetensors",)
    assert replace(done.first).installation.path == places[0].folder / "ink.safetensors"
