"""The installed command, as people and scripts run it."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from contract.faulty_hub import MODEL, VERSION, Fault, FaultyHub
from unit.library.small_lora import MODULES, small_lora, write_lora

HUBTOOL = [sys.executable, "-c", "from hubtool.cli import main; main()"]
JPEG = b"\xff\xd8\xff\xe0" + bytes(30)


@pytest.fixture
def environment(tmp_path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HUBTOOL", "CIVITAI"))}
    return kept | {"HUBTOOL_HOME": str(tmp_path / "home"), "NO_COLOR": "1"}


@pytest.fixture
def run(tmp_path, environment):
    def run(*arguments, cwd=tmp_path, **options):
        return subprocess.run(
            [*HUBTOOL, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def hub():
    with FaultyHub(small_lora(5)) as hub:
        pictures = [{"url": f"{hub.api}/p.mp4", "type": "video"}, {"url": f"{hub.api}/p.jpeg", "type": "image"}]
        hub.version = {
            "trainedWords": ["ink", "brush"],
            "images": pictures,
            "description": "<p>An <b>ink</b> style.</p>",
        }
        hub.answers["/p.jpeg"] = (200, {"Content-Type": "image/png"}, JPEG)
        yield hub


def rows(result):
    return json.loads(result.stdout)["results"]


def files(folder: Path):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


# ---------------------------------------------------------------- from a hub


def test_a_model_of_a_hub_is_installed_with_sidecars_and_preview(run, hub, tmp_path):
    result = run("--hub", hub.api, "install", MODEL, "--json")
    assert result.returncode == 0, result.stderr
    (row,) = rows(result)
    folder = tmp_path / "models" / "Lora"
    assert files(folder) == {f"style{suffix}" for suffix in (".safetensors", ".json", ".civitai.info", ".preview.jpg")}
    assert (row["spec"], row["status"], row["error"]) == (str(MODEL), "installed", None)
    assert row["path"] == str(folder / "style.safetensors")
    assert row["sha256"] == hub.sha256
    assert (row["architecture"], row["dialect"], row["parametrizations"]) == ("sd1", "kohya", ["lora"])
    assert row["sidecars"] == [str(folder / "style.json"), str(folder / "style.civitai.info")]
    assert row["preview"] == str(folder / "style.preview.jpg")
    assert (row["trigger_words"], row["prompt"]) == (["ink", "brush"], "<lora:style:1>")
    assert (row["hub"], row["model_id"], row["version_id"]) == (hub.api, MODEL, VERSION)
    info = json.loads((folder / "style.civitai.info").read_text())
    assert (info["id"], info["modelId"], info["model"]["name"]) == (VERSION, MODEL, "A style")
    sidecar = json.loads((folder / "style.json").read_text())
    assert (sidecar["description"], sidecar["activation text"]) == ("An ink style.", "ink, brush")


def test_what_is_installed_is_not_fetched_again(run, hub):
    run("--hub", hub.api, "install", MODEL)
    before = len(hub.requests("storage"))
    (row,) = rows(run("--hub", hub.api, "install", f"v:{VERSION}", "--json"))
    assert row["status"] == "present"
    assert len(hub.requests("storage")) == before
    (row,) = rows(run("--hub", hub.api, "--offline", "install", f"sha256:{hub.sha256}", "--json"))
    assert row["status"] == "present"


def test_offline_what_is_at_hand_is_present_and_the_rest_is_not(run, hub):
    assert run("--hub", hub.api, "--offline", "install", MODEL).returncode == 14
    run("--hub", hub.api, "install", MODEL)
    for spec in (MODEL, f"v:{VERSION}", f"{MODEL}@{VERSION}", f"sha256:{hub.sha256}"):
        assert rows(run("--hub", hub.api, "--offline", "install", spec, "--json"))[0]["status"] == "present"
    assert run("--hub", hub.api, "--offline", "install", f"{MODEL}@7").returncode == 14


def test_a_file_without_a_published_hash_is_not_fetched_again_either(run, hub):
    hub.file = {"hashes": {}}
    run("--hub", hub.api, "install", MODEL)
    before = len(hub.requests("storage"))
    assert rows(run("--hub", hub.api, "install", MODEL, "--json"))[0]["status"] == "present"
    assert len(hub.requests("storage")) == before


def test_a_lost_picture_fails_nothing(run, hub):
    del hub.answers["/p.jpeg"]
    (row,) = rows(run("--hub", hub.api, "install", MODEL, "--json"))
    assert (row["status"], row["preview"]) == ("installed", None)


def test_without_preview_no_picture_is_asked_for(run, hub):
    run("--hub", hub.api, "install", MODEL, "--no-preview", "--sidecar", "none")
    assert not [seen for seen in hub.requests("api") if seen.path == "/p.jpeg"]


def test_the_token_reaches_neither_pictures_nor_files(run, hub, environment, tmp_path):
    environment["HUBTOOL_TOKEN"] = "hubtok_SECRET123"
    hub.version["downloadUrl"] = "https://x.example/a?token=hubtok_SECRET123"
    result = run("--hub", hub.api, "install", MODEL, "--json", "-v")
    assert rows(result)[0]["status"] == "installed"
    asked = [seen for seen in hub.seen if "authorization" in seen.headers]
    assert asked
    assert all(seen.port == "api" and seen.path != "/p.jpeg" for seen in asked)
    assert "SECRET123" not in result.stdout + result.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"SECRET123" not in path.read_bytes()


def test_a_dry_run_fetches_and_writes_nothing(run, hub, tmp_path):
    (row,) = rows(run("--hub", hub.api, "install", MODEL, "--dry-run", "--json"))
    assert (row["status"], row["path"]) == ("planned", str(tmp_path / "models" / "Lora" / "style.safetensors"))
    assert hub.requests("storage") == []
    assert not (tmp_path / "models").exists()


def test_a_taken_name_is_refused_before_the_download(run, hub, tmp_path):
    write_lora(tmp_path / "models" / "Lora" / "mine.safetensors", 9)
    result = run("--hub", hub.api, "install", MODEL, "--name", "mine", "--json")
    assert result.returncode == 1
    assert rows(result)[0]["error"]["code"] == "exists"
    assert hub.requests("storage") == []


def test_a_broken_file_of_a_hub_leaves_nothing_behind(run, hub, tmp_path):
    hub.content = small_lora(value=float("nan"))
    result = run("--hub", hub.api, "install", MODEL, "--json")
    (row,) = rows(result)
    assert (result.returncode, row["status"], row["error"]["exit"]) == (10, "failed", 10)
    assert files(tmp_path / "models") == set()


def test_several_specs_each_get_a_row_and_one_failure_is_partial(run, hub, tmp_path):
    local = write_lora(tmp_path / "here.safetensors")
    result = run("--hub", hub.api, "install", MODEL, local, "999", tmp_path / "absent.safetensors", "--json")
    found = rows(result)
    assert result.returncode == 17
    assert [row["status"] for row in found] == ["installed", "installed", "failed", "failed"]
    assert [row["spec"] for row in found] == [str(MODEL), str(local), "999", str(tmp_path / "absent.safetensors")]
    assert [row["error"]["exit"] for row in found[2:]] == [4, 4]


def test_one_file_named_several_times_is_fetched_once(run, hub):
    result = run("--hub", hub.api, "install", MODEL, f"v:{VERSION}", f"{MODEL}@{VERSION}", "--json", "--jobs", "3")
    assert sorted(row["status"] for row in rows(result)) == ["installed", "present", "present"]
    assert [row["spec"] for row in rows(result)] == [str(MODEL), f"v:{VERSION}", f"{MODEL}@{VERSION}"]
    assert len(hub.requests("storage")) == 1


# ---------------------------------------------------------------- from this disk


def test_stdout_is_the_path_and_stderr_the_talk(run, tmp_path):
    result = run("install", write_lora(tmp_path / "ink.safetensors"))
    assert result.stdout == f"{tmp_path / 'models' / 'Lora' / 'ink.safetensors'}\n"
    assert "<lora:ink:1>" in result.stderr


def test_the_folder_can_be_chosen_in_three_ways(run, tmp_path):
    path = write_lora(tmp_path / "ink.safetensors")
    run("install", path, "--library", tmp_path / "a")
    run("install", path, "--target", f"comfyui={tmp_path / 'b'}")
    run("install", path, "--to", tmp_path / "c")
    for folder in ("a/models/Lora", "b/models/loras", "c"):
        assert (tmp_path / folder / "ink.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("cut.safetensors", small_lora()[:-9], 10),
        ("pickle.safetensors", b"\x80\x02}q\x00.", 15),
        ("page.safetensors", b"<!DOCTYPE html><html></html>", 15),
        ("empty.safetensors", b"", 10),
    ],
)
def test_a_bad_file_has_its_exit_code_and_one_sentence(run, tmp_path, name, body, code):
    (tmp_path / name).write_bytes(body)
    result = run("install", tmp_path / name)
    assert result.returncode == code
    assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 2  # the sentence and the hint
    assert not (tmp_path / "models" / "Lora").exists() or files(tmp_path / "models") == set()


def test_contradicting_options_are_a_usage_error(run, tmp_path):
    path = write_lora(tmp_path / "ink.safetensors")
    for options in (
        ["--target", "nonsense"],
        ["--sidecar", "nonsense"],
        ["--target", "a1111=x", "--to", "y"],
        ["--subdir", "{x}"],
    ):
        assert run("install", path, *options).returncode == 2
    assert run("install", path, path, "--name", "x").returncode == 2


def test_names_of_all_scripts_pass_through(run, tmp_path):
    name = "水墨 画 🎨 (v1.5) [x]"
    result = run("install", write_lora(tmp_path / f"{name}.safetensors"), "--json")
    assert rows(result)[0]["prompt"] == f"<lora:{name}:1>"
    parsed = json.loads(run("prompt", "parse", f"<lora:{name}:0.5>", "--json").stdout)
    assert parsed["tags"][0]["have"] is True


# ---------------------------------------------------------------- accidents


def big_lora(path: Path) -> bytes:
    """A LoRA of 40 MB, which takes a while to check and copy."""
    table, body = {}, b""
    for module, (outputs, inputs) in MODULES.items():
        for suffix, shape in ((".lora_down.weight", (1024, inputs)), (".lora_up.weight", (outputs, 1024))):
            data = struct.pack("<e", 0.01 if "down" in suffix else 0.02) * (shape[0] * shape[1])
            span = [len(body), len(body) + len(data)]
            table[module + suffix] = {"dtype": "F16", "shape": list(shape), "data_offsets": span}
            body += data
    header = json.dumps(table).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path.read_bytes()


def test_killed_at_any_moment_an_installation_leaves_the_whole_file_or_none(run, environment, tmp_path):
    content = big_lora(tmp_path / "big.safetensors")
    folder = tmp_path / "models" / "Lora"
    for tenths in range(1, 9):
        process = subprocess.Popen(
            [*HUBTOOL, "install", "big.safetensors"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
        )
        time.sleep(tenths / 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in folder.glob("*.safetensors"):
            assert path.read_bytes() == content
            path.unlink()
    result = run("install", "big.safetensors", "--json")
    assert rows(result)[0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(rows(run("list", "--json"))) == 1


def test_a_download_that_was_killed_goes_on_where_it_stopped(environment, tmp_path):
    big_lora(tmp_path / "big.safetensors")
    with FaultyHub((tmp_path / "big.safetensors").read_bytes()) as hub:
        hub.always["storage"] = Fault(pause_s=30)
        command = [*HUBTOOL, "--hub", hub.api, "install", str(MODEL), "--json"]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        folder = tmp_path / "models" / "Lora"
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 1 << 20 for path in folder.rglob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert list(folder.rglob("*.safetensors")) == []
        hub.always.clear()
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
        assert rows(result)[0]["sha256"] == hub.sha256
        assert hub.requests("storage")[-1].headers["range"].startswith("bytes=")
        assert list(folder.glob(".*")) == []


def test_many_processes_install_one_file_once(environment, hub, tmp_path):
    command = [*HUBTOOL, "--hub", hub.api, "install", str(MODEL), "--json"]
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) for _ in range(4)]
    found = [json.loads(process.communicate(timeout=60)[0])["results"][0] for process in processes]
    assert sorted(row["status"] for row in found) == ["installed", "present", "present", "present"]
    folder = tmp_path / "models" / "Lora"
    assert files(folder) == {f"style{suffix}" for suffix in (".safetensors", ".json", ".civitai.info", ".preview.jpg")}
    assert len(hub.requests("storage")) == 1
    assert list(folder.glob(".*")) == []


def test_a_damaged_index_is_rebuilt_with_a_note(run, tmp_path):
    run("install", write_lora(tmp_path / "ink.safetensors"))
    (tmp_path / "home" / "data" / "index.sqlite").write_bytes(b"rubbish" * 1000)
    result = run("list", "--json")
    assert [row["name"] for row in rows(result)] == ["ink"]
    assert "damaged" in result.stderr


def test_a_folder_that_refuses_is_named_in_one_sentence(run, tmp_path):
    (tmp_path / "models").write_text("a file in the way")
    result = run("install", write_lora(tmp_path / "ink.safetensors"))
    assert result.returncode == 1
    assert "models" in result.stderr
    assert len(result.stderr.splitlines()) == 2
