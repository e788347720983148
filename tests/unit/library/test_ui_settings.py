"""Each UI's own settings decide where its LoRAs go; broken ones are said and stop nothing that can go on."""

import json
import time

import pytest

from hubtool.errors import LibraryProblem, StorageProblem
from hubtool.library.model_paths import folders_by_rank, lora_folders
from hubtool.library.stability_matrix import library_folder, packages_of
from hubtool.library.target import all_targets, choose_place, known_places
from hubtool.library.uis import detect
from hubtool.settings import Directories, Settings

SWARM = """#comment
IsInstalled: true
Paths:
\tModelRoot: Models;%s
\t#SDLoraFolder: nonsense
\tSDLoraFolder: Lora;loras
Backends:
\tSDLoraFolder: wrong
"""


@pytest.fixture
def settings(tmp_path):
    home = tmp_path / "home"
    return Settings(Directories(home, home, home), library=tmp_path)


def folders(target, root):
    return [
        folder.as_posix().removeprefix(f"{root.as_posix()}/") for folder in all_targets()[target].lora_folders(root)
    ]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "webui-user.sh",
            "export COMMANDLINE_ARGS=\"--xformers --lora-dir '/data/my loras'\"",
            ["/data/my loras", "(LyCORIS)"],
        ),
        ("webui-user.sh", '#COMMANDLINE_ARGS="--lora-dir /x"', ["models/Lora", "(LyCORIS)"]),
        ("webui-user.sh", "export COMMANDLINE_ARGS='--lora-dir=/x --lyco-dir /y'", ["/x", "/y"]),
        ("webui-user.sh", "export COMMANDLINE_ARGS='--data-dir /big'", ["/big/models/Lora", "/big/models/LyCORIS"]),
        ("webui-user.sh", "export COMMANDLINE_ARGS='unfinished", ["models/Lora", "(LyCORIS)"]),
        ("webui-user.bat", 'set COMMANDLINE_ARGS=--medvram --lora-dir "/d/my loras"', ["/d/my loras", "(LyCORIS)"]),
        ("webui-user.bat", "set X=" + "%X%%X%" * 900 + "\nset X=%X%%X%" * 40, ["models/Lora", "(LyCORIS)"]),
        ("webui-user.bat", "set COMMANDLINE_ARGS=--lora-dir --medvram", ["models/Lora", "(LyCORIS)"]),
    ],
)
def test_a1111_is_told_on_its_command_line(tmp_path, name, text, expected):
    (tmp_path / name).write_text(f"@echo off\n{text}\n")
    assert folders("a1111", tmp_path) == [one.replace("(LyCORIS)", "models/LyCORIS") for one in expected]


def test_variables_and_long_lines_of_a_batch_file_are_followed(tmp_path):
    text = """@echo off
@REM set COMMANDLINE_ARGS=--lora-dir /wrong
set A1111_HOME=/data/a1111
set COMMANDLINE_ARGS=
set COMMANDLINE_ARGS=%COMMANDLINE_ARGS% ^
 --ckpt-dir %A1111_HOME%/models/Stable-diffusion ^
 --lora-dir %A1111_HOME%/models/Lora
call webui.bat
"""
    (tmp_path / "webui-user.bat").write_bytes(text.encode().replace(b"\n", b"\r\n"))
    assert folders("forge", tmp_path) == ["/data/a1111/models/Lora"]
    (tmp_path / "webui-user.bat").unlink()
    (tmp_path / "webui-user.sh").write_text('BIG=/big\nexport COMMANDLINE_ARGS="--lora-dir $BIG/loras --x ${BIG}"\n')
    assert folders("forge", tmp_path) == ["/big/loras"]


def test_forge_borrows_the_folder_of_an_a1111_that_is_there(tmp_path):
    (tmp_path / "webui-user.sh").write_text("export COMMANDLINE_ARGS='--forge-ref-a1111-home other'")
    assert folders("forge", tmp_path) == ["models/Lora"]
    (tmp_path / "other" / "models" / "lora").mkdir(parents=True)
    assert folders("forge", tmp_path) == ["other/models/lora"]


def test_forge_reads_one_folder(tmp_path):
    (tmp_path / "webui-user.sh").write_text("export COMMANDLINE_ARGS='--lora-dir rel'")
    assert folders("forge", tmp_path) == ["rel"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, "models/Lora"),
        ({"lora_dir": "/x"}, "/x"),
        ({"lora_dir": ""}, "models/Lora"),
        ({"models_dir": "/m"}, "/m/Lora"),
        ({"lora_dir": ["odd"]}, "models/Lora"),
    ],
)
def test_sdnext_is_told_in_its_config(tmp_path, table, expected):
    (tmp_path / "config.json").write_text(json.dumps(table))
    assert folders("sdnext", tmp_path) == [expected]


def test_fooocus_takes_one_folder_or_several_that_are_there(tmp_path):
    (tmp_path / "mine").mkdir()
    for said, expected in (
        (str(tmp_path / "mine"), ["mine"]),
        ([str(tmp_path / "mine"), "/not/there"], ["mine"]),
        ("/not/there", ["models/loras"]),
        (7, ["models/loras"]),
    ):
        (tmp_path / "config.txt").write_text(json.dumps({"path_loras": said}))
        assert folders("fooocus", tmp_path) == expected


def test_swarmui_has_every_folder_below_every_root(tmp_path):
    assert folders("swarmui", tmp_path) == ["Models/Lora"]
    (tmp_path / "Data").mkdir()
    (tmp_path / "Data" / "Settings.fds").write_text(SWARM % "/big")
    assert folders("swarmui", tmp_path) == ["Models/Lora", "Models/loras", "/big/Lora", "/big/loras"]


def test_comfyui_puts_default_sections_before_its_own_folder(tmp_path):
    (tmp_path / "extra_model_paths.yaml").write_text(
        "one:\n  loras: a\n  checkpoints: c\n"
        "two:\n  is_default: true\n  base_path: ~no such user/$NOPE\n  loras: |\n    b\n    ~/c\n"
    )
    assert folders("comfyui", tmp_path) == ["~no such user/$NOPE/~/c", "~no such user/$NOPE/b", "models/loras", "a"]
    assert [path.name for path in folders_by_rank(tmp_path / "extra_model_paths.yaml", "checkpoints").then] == ["c"]


def test_a_folder_that_cannot_be_one_is_passed_over(tmp_path, settings):
    (tmp_path / "config.json").write_text(json.dumps({"lora_dir": "a\0b"}))
    assert choose_place(settings, f"sdnext={tmp_path}").folder == tmp_path / "models" / "Lora"


def test_invokeais_own_store_is_read_besides(tmp_path):
    (tmp_path / "m" / "sdxl" / "lora").mkdir(parents=True)
    (tmp_path / "invokeai.yaml").write_text("schema_version: 4.0.2\nmodels_dir: m\n")
    assert folders("invokeai", tmp_path) == ["autoimport/lora", "m/sdxl/lora"]


def test_an_installation_goes_where_the_settings_say(tmp_path, settings):
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "config.json").write_text(json.dumps({"lora_dir": str(tmp_path / "elsewhere")}))
    assert choose_place(settings, f"sdnext={tmp_path / 'ui'}").folder == tmp_path / "elsewhere"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\0", '{"a": '])
def test_settings_that_cannot_be_understood_stop_an_installation_and_no_listing(tmp_path, settings, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(LibraryProblem, match=r"config\.json"):
        choose_place(settings, f"sdnext={tmp_path}")
    (tmp_path / "models" / "Lora").mkdir(parents=True)
    from dataclasses import replace

    assert [place.folder.name for place in known_places(replace(settings, target="sdnext"))] == ["Lora"]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n"
    for before, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "s:\n  base_path: *m\n  loras: x\n",
        BOMB + "s:\n  loras: *m\n",
        "s:\n  loras: [a, b]\n  base_path: 7\n",
        "- list\n",
        "3",
        "s: {loras: !!set {a}}",
    ],
)
def test_odd_yaml_costs_no_time_and_names_no_folder(tmp_path, text):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(text)
    start = time.perf_counter()
    assert len(lora_folders(path)) <= 1
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("text", ["a: [" * 5000, "a: 2020-99-99", "a: !!python/object:os.system x", "\tx: 1"])
def test_yaml_that_is_none_is_said(tmp_path, text):
    path = tmp_path / "extra_model_paths.yaml"
    path.write_text(text)
    with pytest.raises(LibraryProblem, match="YAML"):
        lora_folders(path)


def test_a_settings_file_of_a_gigabyte_is_not_read(tmp_path):
    for name in ("extra_model_paths.yaml", "config.json", "webui-user.sh"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 30)
    for target in ("comfyui", "sdnext", "a1111"):
        with pytest.raises(StorageProblem, match="larger"):
            all_targets()[target].lora_folders(tmp_path)


def test_one_broken_ui_does_not_hide_the_others(tmp_path, settings):
    for name, files in {"comfy": ("folder_paths.py", "comfy/x"), "fooocus": ("fooocus_version.py",)}.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text("")
    (tmp_path / "comfy" / "extra_model_paths.yaml").write_text("a: [")
    found = {ui.target: ui for ui in detect(settings, [tmp_path])}
    assert set(found) == {"comfyui", "fooocus"}
    assert "YAML" in found["comfyui"].problem
    assert found["comfyui"].folders == (tmp_path / "comfy/models/loras",)


@pytest.fixture
def launcher(tmp_path):
    library = tmp_path / "deep" / "er" / "Stability Matrix"
    for name in ("ComfyUI", "mine"):
        (library / "Packages" / name / "comfy").mkdir(parents=True)
        (library / "Packages" / name / "folder_paths.py").write_text("")
    for name in ("Lora", "LyCORIS"):
        (library / "Models" / name).mkdir(parents=True)
    packages = [
        {"LibraryPath": "Packages\\ComfyUI", "PreferredSharedFolderMethod": "Configuration"},
        {"LibraryPath": "Packages/mine", "PreferredSharedFolderMethod": "None"},
        {"Path": "/gone"},
        "odd",
        {},
    ]
    (library / "settings.json").write_text(json.dumps({"InstalledPackages": packages}), "utf-8-sig")
    return library


def test_stability_matrix_lends_its_folders_to_those_that_take_them(launcher, settings):
    found = {ui.root.name: ui for ui in detect(settings, [launcher])}
    assert [folder.relative_to(launcher).as_posix() for folder in found["ComfyUI"].folders] == [
        "Packages/ComfyUI/models/loras",
        "Models/Lora",
        "Models/LyCORIS",
    ]
    assert found["mine"].folders == (launcher / "Packages/mine/models/loras",)


def test_a_package_that_links_its_folder_is_installed_into_the_launchers(launcher, settings):
    models = launcher / "Packages" / "ComfyUI" / "models"
    models.mkdir()
    (models / "loras").symlink_to(launcher / "Models" / "Lora")
    assert choose_place(settings, f"comfyui={models.parent}").folder == launcher / "Models" / "Lora"
    found = next(ui for ui in detect(settings, [launcher]) if ui.root.name == "ComfyUI")
    assert found.folders == (launcher / "Models" / "Lora", launcher / "Models" / "LyCORIS")


def test_another_models_folder_and_another_library_are_followed(launcher, tmp_path, monkeypatch):
    table = json.loads((launcher / "settings.json").read_text("utf-8-sig"))
    (tmp_path / "other" / "Lora").mkdir(parents=True)
    (launcher / "settings.json").write_text(json.dumps(table | {"ModelDirectoryOverride": str(tmp_path / "other")}))
    assert packages_of(launcher)[0].shared == (tmp_path / "other" / "Lora",)
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    assert library_folder() is None
    (tmp_path / "config" / "StabilityMatrix").mkdir(parents=True)
    (tmp_path / "config" / "StabilityMatrix" / "library.json").write_text(json.dumps({"LibraryPath": str(launcher)}))
    assert library_folder() == launcher


@pytest.mark.parametrize("text", ["{", "[]", '{"InstalledPackages": 3}', '{"InstalledPackages": [{"LibraryPath": 1}]}'])
def test_another_programs_settings_are_no_launcher(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    assert packages_of(tmp_path) == []
