"""UIs are found by their own files, remembered by name, and share one copy of a LoRA."""

import os
from dataclasses import replace

import pytest
from unit.library.small_lora import write_lora

from hubtool.errors import FolderMissing, LibraryProblem, UsageProblem
from hubtool.library.acquire import Order
from hubtool.library.adding_ui import Addition, added_ui
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
    found = added_ui(settings, config, Addition(f"main={root}"), print)
    assert (found.target, found.folders) == ("comfyui", (root / "models/loras",))
    fresh = load(config, {"HUBTOOL_HOME": str(tmp_path / "home")})
    assert [(ui.name, ui.root) for ui in known_uis(fresh)] == [("main", root)]
    assert choose_place(fresh, "main").folder == root / "models" / "loras"
    with Index(settings.index_path) as index:
        assert [folder.path for folder in index.folders()] == [root / "models" / "loras"]


def test_sharing_writes_comfyuis_file(tmp_path, settings):
    root, shared = make(tmp_path / "comfy", "comfyui"), tmp_path / "shared"
    shared.mkdir()
    found = added_ui(settings, tmp_path / "config.toml", Addition(f"comfyui={root}", shared), print)
    assert shared in found.folders
    with pytest.raises(UsageProblem, match="ComfyUI"):
        added_ui(settings, tmp_path / "config.toml", Addition(f"forge={make(tmp_path / 'f', 'forge')}", shared), print)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b"\xef\xbb\xbfa:\r\n  x: 1\r\n",
            b"\xef\xbb\xbfa:\r\n  x: 1\r\n\r\nhubtool:\r\n    loras: |\r\n        %s\r\n",
        ),
        (
            b"hubtool:  # mine\n  base_path: /data\n  loras: first\n  vae: v\n\n# end\nb: {}\n",
            b"hubtool:  # mine\n  base_path: /data\n  loras: |\n      first\n      %s\n  vae: v\n\n# end\nb: {}\n",
        ),
        (b"hubtool:\n    vae: v\na: 1", b"hubtool:\n    loras: |\n        %s\n    vae: v\na: 1"),
        (
            b"hubtool:\r\n    loras: |\r\n        one\r\n\r\n        two\r\n\r\nb: 1\r\n",
            b"hubtool:\r\n    loras: |\r\n        one\r\n        two\r\n        %s\r\n\r\nb: 1\r\n",
        ),
    ],
    ids=["line ends and mark", "other keys", "no folders yet", "several folders"],
)
def test_nothing_but_our_folders_is_changed(tmp_path, before, after):
    path, shared = tmp_path / "extra_model_paths.yaml", tmp_path / "shared"
    path.write_bytes(before)
    assert add_lora_folder(path, shared)
    assert path.read_bytes() == after.replace(b"%s", os.fsencode(shared))
    assert not add_lora_folder(path, shared)


def test_a_section_that_cannot_be_changed_is_left_alone(tmp_path):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text("hubtool: {loras: x, vae: v}\n")
    with pytest.raises(LibraryProblem, match="cannot be changed"):
        add_lora_folder(path, tmp_path)
    assert path.read_text() == "hubtool: {loras: x, vae: v}\n"


def test_a_folder_that_is_not_there_is_not_shared(tmp_path, settings):
    root = make(tmp_path / "comfy", "comfyui")
    with pytest.raises(FolderMissing):
        added_ui(settings, tmp_path / "config.toml", Addition(f"comfyui={root}", tmp_path / "gone"), print)
    assert not (root / "extra_model_paths.yaml").exists()


def test_a_trial_says_what_would_be_and_writes_nothing(tmp_path, settings):
    root, shared = make(tmp_path / "comfy", "comfyui"), tmp_path / "shared"
    shared.mkdir()
    before = sorted(tmp_path.rglob("*"))
    found = added_ui(settings, tmp_path / "config.toml", Addition(f"comfyui={root}", shared, dry_run=True), print)
    assert found.folders[-1] == shared
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("order", [("a1111", "comfyui"), ("comfyui", "a1111"), ("comfyui",)])
def test_a_folder_of_one_ui_that_another_reads_keeps_its_target(tmp_path, settings, order):
    roots = {target: make(tmp_path / target, target) for target in ("a1111", "comfyui")}
    lent = roots["a1111"] / "models" / "Lora"
    lent.mkdir(parents=True)
    (roots["comfyui"] / "models" / "loras").mkdir(parents=True)
    (roots["comfyui"] / "extra_model_paths.yaml").write_text(f"x:\n  is_default: true\n  loras: {lent}\n")
    for target in order:
        added_ui(settings, tmp_path / "config.toml", Addition(f"{target}={roots[target]}"), print)
    with Index(settings.index_path) as index:
        known = {folder.path: folder.target for folder in index.folders()}
    assert known == {lent: "a1111", roots["comfyui"] / "models" / "loras": "comfyui"}


def test_folders_that_a_launcher_lends_are_kept_up_with(tmp_path, settings):
    root = make(tmp_path / "Data" / "Packages" / "webui", "a1111")
    lent = tmp_path / "Data" / "Models" / "Lora"
    lent.mkdir(parents=True)
    (tmp_path / "Data" / "settings.json").write_text('{"InstalledPackages": [{"LibraryPath": "Packages\\\\webui"}]}')
    found = added_ui(settings, tmp_path / "config.toml", Addition(f"mine={root}"), print)
    assert found.folders == detect(settings, [tmp_path])[0].folders == (root / "models" / "Lora", lent)
    with Index(settings.index_path) as index:
        assert lent in {folder.path for folder in index.folders()}


def test_a_name_that_the_files_contradict_is_doubted(tmp_path, settings):
    said = []
    root = make(tmp_path / "next", "sdnext")
    assert added_ui(settings, tmp_path / "c.toml", Addition(f"a1111={root}"), said.append).target == "a1111"
    assert "SD.Next" in said[0]


def test_a_place_that_is_not_there_is_not_searched(tmp_path, settings):
    with pytest.raises(FolderMissing):
        detect(settings, [tmp_path / "gone"])


def test_an_unknown_target_is_answered_with_ones_own_names(settings):
    with pytest.raises(UsageProblem, match=r"fooocus, .*mine"):
        choose_place(replace(settings, uis={"mine": "a1111=/x"}), "nope")


@pytest.mark.parametrize(("text", "error"), [("comfyui", UsageProblem), ("x=/nowhere/at/all", FolderMissing)])
def test_what_is_no_ui_is_refused(tmp_path, settings, text, error):
    with pytest.raises(error):
        added_ui(settings, tmp_path / "config.toml", Addition(text), print)


def test_a_folder_that_says_nothing_is_refused(tmp_path, settings):
    with pytest.raises(LibraryProblem, match="which UI"):
        added_ui(settings, tmp_path / "config.toml", Addition(f"mine={tmp_path}"), print)


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
