"""`list`, `prompt`, `config` and `completion` as people and scripts run them."""

import json
import os
import subprocess
import sys

import pytest
from unit.library.small_lora import write_lora

HUBTOOL = [sys.executable, "-c", "from hubtool.cli import main; main()"]


@pytest.fixture
def environment(tmp_path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUBTOOL", "CIVITAI"))}
    return kept | {"HUBTOOL_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}


@pytest.fixture
def run(tmp_path, environment):
    def run(*arguments, **options):
        return subprocess.run(
            [*HUBTOOL, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models" / "Lora"


def answer(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# ---------------------------------------------------------------- list


def test_list_tells_files_of_one_name_apart(run, folder):
    for place in ("a", "b"):
        write_lora(folder / place / "ink.safetensors", 1)
    write_lora(folder / "fog.safetensors", 2)
    first = [line.split("  ")[0] for line in run("list").stdout.splitlines()[1:]]
    assert sorted(first) == sorted(["fog", *(str(folder / place / "ink.safetensors") for place in "ab")])


def test_list_shows_files_put_there_by_hand_with_the_contracts_fields(run, folder):
    write_lora(folder / "ink.safetensors", metadata={"modelspec.trigger_phrase": "ink"})
    (folder / "ink.json").write_text('{"preferred weight": 0.7}')
    (row,) = answer(run("list", "--json"))["results"]
    assert row["name"] == "ink"
    assert row["path"] == str(folder / "ink.safetensors")
    assert (row["target"], row["architecture"], row["dialect"]) == ("a1111", "sd1", "kohya")
    assert (row["parametrizations"], row["trigger_words"], row["preferred_weight"]) == (["lora"], ["ink"], 0.7)
    assert (row["tags"], row["favourite"], row["sha256"]) == ([], False, None)


def test_list_finds_by_words(run, folder):
    write_lora(folder / "pixel-art.safetensors", 1)
    write_lora(folder / "watercolor.safetensors", 2)
    assert [row["name"] for row in answer(run("list", "pix", "--json"))["results"]] == ["pixel-art"]
    assert answer(run("list", "oil", "--json"))["results"] == []


def test_list_as_text_is_a_table_on_stdout(run, folder):
    write_lora(folder / "pixel-art.safetensors")
    result = run("list")
    assert "pixel-art" in result.stdout
    assert result.stdout.startswith("NAME")
    assert result.stderr == ""


def test_a_pipe_sees_every_row_and_whole_values(run, folder):
    words = ", ".join(f"a long trigger word {number}" for number in range(20))
    write_lora(folder / "wordy.safetensors", metadata={"modelspec.trigger_phrase": words})
    for number in range(101):
        write_lora(folder / f"画-{number:03}.safetensors")
    lines = run("list").stdout.splitlines()
    assert len(lines) == 103
    assert lines[1].endswith(words)
    assert {line.index("sd1") for line in lines[2:]} == {lines[2].index("sd1")}


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_terminal_gets_a_page_and_how_to_see_more(run, folder, environment, tmp_path):
    import pty

    for number in range(101):
        write_lora(folder / f"style-{number:03}.safetensors")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*HUBTOOL, "list"], stdout=theirs, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    os.close(theirs)
    shown = b""
    while b"style-099" not in shown:
        shown += os.read(ours, 1 << 16)
    said = process.communicate(timeout=60)[1]
    os.close(ours)
    assert b"style-000" in shown
    assert b"style-100" not in shown
    assert said.startswith("The first 100.")


def test_list_with_a_library_shows_only_that(run, tmp_path, folder):
    write_lora(folder / "here.safetensors", 1)
    write_lora(tmp_path / "b" / "models" / "Lora" / "there.safetensors", 2)
    run("list")
    assert [row["name"] for row in answer(run("list", "--library", "b", "--json"))["results"]] == ["there"]
    assert [row["name"] for row in answer(run("list", "--json"))["results"]] == ["there", "here"]


def test_nothing_installed_is_no_error(run):
    assert answer(run("list", "--json"))["results"] == []
    assert run("list").returncode == 0


def test_hostile_names_and_titles_do_not_reach_the_terminal_raw(run, folder):
    write_lora(folder / "a\x1b[2J.safetensors", metadata={"modelspec.trigger_phrase": "\x1b]0;owned\x07\x9b2J"})
    result = run("list")
    assert not {"\x1b", "\x9b", "\x07"} & set(result.stdout + result.stderr)


# ---------------------------------------------------------------- tidying


def test_a_library_bounds_what_is_organized_and_invokeais_files_stay(run, tmp_path, folder):
    write_lora(folder / "mine.safetensors", 1)
    there = write_lora(tmp_path / "b" / "models" / "Lora" / "there.safetensors", 2)
    theirs = write_lora(tmp_path / "b" / "store" / "theirs.safetensors", 3)
    run("list", "--library", "b")
    run("scan", theirs.parent, "--target", "invokeai")
    done = run("organize", "--template", "{architecture}", "--library", "b")
    assert "1 of InvokeAI left alone" in done.stderr
    assert done.stdout.splitlines() == [f"{there} -> {there.parent / 'sd1' / there.name}"]
    assert (folder / "mine.safetensors").exists()
    assert theirs.exists()


def test_what_cannot_be_restored_is_named_and_the_rest_is_back(run, folder):
    for number, name in enumerate(("x", "sub/y")):
        write_lora(folder / f"{name}.safetensors", number)
    run("trash", "x", "sub/y")
    write_lora(folder / "x.safetensors", 5)
    done = run("restore")
    assert done.returncode == 17
    assert f"Its place is taken: {folder / 'x.safetensors'}" in done.stderr
    assert (folder / "sub" / "y.safetensors").exists()
    again = run("restore", "x", "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["results"][0]["error"]["code"] == "exists"


def test_linking_equal_files_says_what_was_left(run, tmp_path, folder):
    write_lora(folder / "a.safetensors", 1)
    (folder / "b.safetensors").symlink_to(write_lora(tmp_path / "elsewhere" / "b.safetensors", 1))
    done = run("dupes", "--link", "--json")
    assert answer(done)["left"] == [str(folder / "b.safetensors")]
    assert "Left as it is" in done.stderr


# ---------------------------------------------------------------- prompt


def test_prompt_parse_resolves_against_what_is_installed(run, folder):
    write_lora(folder / "ink.safetensors", metadata={"ss_output_name": "inky"})
    found = answer(run("prompt", "parse", "a cat <lora:inky:0.5:1> <lora:inc> <hypernet:h:1>", "--json"))
    ink, inc, hypernet = found["tags"]
    assert (ink["kind"], ink["name"], ink["text_encoder"], ink["denoiser"], ink["dyn"]) == (
        "lora",
        "inky",
        0.5,
        1.0,
        None,
    )
    assert (ink["raw"], ink["path"], ink["have"]) == ("<lora:inky:0.5:1>", str(folder / "ink.safetensors"), True)
    assert len(ink["sha256"]) == 64
    assert (inc["have"], inc["path"], inc["sha256"], inc["suggestions"]) == (False, None, None, ["ink"])
    assert hypernet["kind"] == "hypernet"
    assert found["missing"] == ["inc"]
    assert found["prompt"] == "a cat   "


def test_prompt_parse_reads_stdin(run):
    found = answer(run("prompt", "parse", "-", "--json", input="a\n<lora:x:1>\n"))
    assert [tag["name"] for tag in found["tags"]] == ["x"]
    assert found["prompt"] == "a\n"


def test_the_dialect_decides_which_strength_is_which(run):
    for dialect, expected in (("a1111", 0.2), ("comfyui", 0.7), ("swarmui", 0.7)):
        (tag,) = answer(run("prompt", "parse", "<lora:x:0.7:0.2>", "--dialect", dialect, "--json"))["tags"]
        assert tag["denoiser"] == expected
    assert run("prompt", "parse", "x", "--dialect", "nonsense").returncode == 2


# ---------------------------------------------------------------- config


def test_config_is_set_and_read_and_found(run, tmp_path):
    path = tmp_path / "home" / "config" / "config.toml"
    assert answer(run("config", "path", "--json"))["path"] == str(path)
    assert answer(run("config", "set", "jobs", "3", "--json"))["value"] == 3
    assert run("config", "get", "jobs").stdout == "3\n"
    assert answer(run("config", "get", "--json"))["settings"]["jobs"] == 3
    assert run("config", "path").stdout == f"{path}\n"
    assert run("config", "set", "jobs", "x").returncode == 2
    assert run("config", "get", "nonsense").returncode == 2


def test_the_configured_target_is_used(run, tmp_path):
    run("config", "set", "target", f"comfyui={tmp_path / 'comfy'}")
    run("install", write_lora(tmp_path / "ink.safetensors"))
    assert (tmp_path / "comfy" / "models" / "loras" / "ink.safetensors").is_file()


# ---------------------------------------------------------------- completion, start-up


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(run, shell):
    result = run("completion", shell)
    assert result.returncode == 0
    assert "_HUBTOOL_COMPLETE" in result.stdout
    assert "\N{REPLACEMENT CHARACTER}" not in result.stdout


@pytest.mark.parametrize("arguments", [["list"], ["list", "x"], ["prompt", "parse", "<lora:ink:1>"], ["config", "get"]])
def test_no_heavy_package_is_imported(environment, tmp_path, folder, arguments):
    write_lora(folder / "ink.safetensors")
    code = (
        "import sys\nfrom hubtool.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'httpx', 'pydantic', 'diffusers'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.stderr.splitlines()[-1] == "[]"
