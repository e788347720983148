"""What every command promises: one JSON document, exit codes from one table, talk on stderr, nothing asked twice."""

import json
import os
from pathlib import Path

import pytest
from support.adapters import lora, modules_like
from support.files import Raw, container, number, random_tensor, write
from support.in_process import Run

from hubtool.cli import root
from hubtool.cli._errors import EXITS, exit_code, printable_lines, run_guarded
from hubtool.cli._output import plain, safe_json

K = modules_like("sd1", "attn2.to_k")[:3]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "good.safetensors", lora("sd1", "kohya", K, alpha=2), {"ss_output_name": "Good"})


INSPECT = {
    *(
        "path",
        "kind",
        "dialect",
        "architecture",
        "candidates",
        "ambiguous",
        "malformed",
        "parametrizations",
        "modifiers",
    ),
    *("components", "modules", "rank", "alpha", "dtypes", "coverage", "leftovers", "trigger_words", "base_model"),
    *("title", "hashes", "metadata", "error"),
}
VALIDATE = {"path", "verdict", "problems", "error"}
CONVERT = {
    *(
        "input",
        "output",
        "from",
        "to",
        "architecture",
        "modules",
        "exact",
        "lossy",
        "dropped",
        "fused",
        "split",
        "alpha",
    ),
    *("sha256", "error"),
}


def test_inspect_answers_the_contracts_fields(run: Run, good: Path) -> None:
    document = run("inspect", "--json", good).document
    assert {"schema": document["schema"], "command": document["command"]} == {"schema": 1, "command": "inspect"}
    (row,) = document["results"]
    assert row.keys() >= INSPECT
    assert (row["kind"], row["dialect"], row["architecture"], row["title"]) == ("adapter", "kohya", "sd1", "Good")
    assert row["candidates"][0].keys() >= {"dialect", "architecture", "coverage", "evidence"}
    assert (row["rank"], row["alpha"]) == ({"min": 4, "max": 4}, {"min": 2.0, "max": 2.0})
    assert (row["parametrizations"], row["components"]) == ({"lora": 3}, {"denoiser": 3})
    assert (row["hashes"], row["error"]) == (None, None)


def test_inspect_answers_hashes_when_asked(run: Run, good: Path) -> None:
    from hashlib import sha256

    (row,) = run("inspect", "--json", "--hashes", good).document["results"]
    assert row["hashes"].keys() == {"sha256", "autov1", "autov2", "autov3", "crc32", "blake3", "tensors_sha256"}
    assert row["hashes"]["sha256"] == sha256(good.read_bytes()).hexdigest()


def test_inspect_looks_at_values_when_asked(run: Run, tmp_path: Path) -> None:
    tensors = lora("sd1", "kohya", K)
    key = next(iter(tensors))
    tensors[key] = Raw("F16", tensors[key].shape, b"\x00\x7e" * (len(tensors[key].data) // 2))
    (row,) = run("inspect", "--json", "--values", write(tmp_path / "x.safetensors", tensors)).document["results"]
    assert [found["code"] for found in row["values"]] == ["E_NONFINITE"]


def test_validate_answers_the_contracts_fields(run: Run, good: Path, tmp_path: Path) -> None:
    odd = write(tmp_path / "odd.safetensors", {**lora("sd1", "kohya", K), "x": number(1)})
    ran = run("validate", "--json", good, odd)
    assert (ran.code, ran.document["command"]) == (0, "validate")
    first, second = ran.document["results"]
    assert first.keys() >= VALIDATE
    assert (first["path"], first["verdict"], first["problems"]) == (str(good), "ok", [])
    assert second["verdict"] == "warning"
    assert second["problems"][0].keys() >= {"code", "severity", "key", "message"}


def test_convert_answers_the_contracts_fields(run: Run, good: Path, tmp_path: Path) -> None:
    ran = run(
        "convert",
        "--json",
        good,
        "--to",
        "diffusers",
        "--alpha",
        "record",
        "--hashes",
        "-o",
        tmp_path / "out.safetensors",
    )
    assert (ran.code, ran.document["command"]) == (0, "convert")
    (row,) = ran.document["results"]
    assert row.keys() >= CONVERT
    assert (row["from"], row["to"], row["modules"], row["exact"], row["alpha"]) == (
        "kohya",
        "diffusers",
        3,
        True,
        "recorded",
    )
    assert (
        row["sha256"] == run("inspect", "--json", "--hashes", row["output"]).document["results"][0]["hashes"]["sha256"]
    )


@pytest.mark.parametrize(
    ("command", "key"),
    [(["inspect"], "path"), (["validate"], "path"), (["convert", "--to", "comfyui", "--dry-run"], "input")],
)
def test_results_are_in_the_order_of_the_inputs_and_each_says_whether_it_failed(
    run: Run, good: Path, tmp_path: Path, command: list[str], key: str
) -> None:
    (tmp_path / "empty.safetensors").touch()
    inputs = [tmp_path / "gone.safetensors", good, tmp_path / "empty.safetensors"]
    ran = run(*command, "--json", *inputs)
    rows = ran.document["results"]
    assert [row[key] for row in rows] == list(map(str, inputs))
    assert ran.code == 17
    assert rows[0]["error"].keys() == {"code", "exit", "message", "hint"}
    assert (rows[0]["error"]["code"], rows[0]["error"]["exit"], rows[1]["error"]) == ("file_not_found", 4, None)


@pytest.mark.parametrize("count", [1, 3])
def test_all_failing_for_one_reason_is_that_reasons_exit_code(run: Run, tmp_path: Path, count: int) -> None:
    missing = [tmp_path / f"{i}.safetensors" for i in range(count)]
    assert run("inspect", "--json", *missing).code == 4
    for path in missing:
        path.write_bytes(b"\x80\x04.")
    assert run("inspect", *missing).code == 15
    assert run("validate", *missing).code == 15


# ---------------------------------------------------------------- global options


@pytest.mark.parametrize("before", [True, False])
def test_global_options_stand_before_or_after_the_command(run: Run, good: Path, before: bool) -> None:
    options = ["--json", "--offline", "--no-progress", "-q", "--jobs", "2", "--timeout", "5"]
    arguments = [*options, "inspect", good] if before else ["inspect", *options, good]
    ran = run(*arguments)
    assert (ran.code, ran.document["command"]) == (0, "inspect")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--json", "inspect", "gone"], "inspect"),
        (["--hub", "civitai", "--json", "inspect"], "inspect"),
        (["--config", "x.toml", "--json", "inspect", "--no-such-option"], "inspect"),
        (["--json", "inspekt"], ""),
        (["--json", "prompt", "parse"], "prompt parse"),
    ],
)
def test_an_error_names_the_command_it_belongs_to(run: Run, arguments: list[str], command: str) -> None:
    assert run(*arguments).document["command"] == command


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "--no-such-option", "x"],
        ["convert", "x.safetensors"],
        ["convert", "x.safetensors", "--to", "diffusers", "--dtype", "fp3"],
        ["convert", "x.safetensors", "--to", "diffusers", "--alpha", "maybe"],
        ["convert", "x.safetensors", "--to", "diffusers", "--parametrization", "loha"],
        ["--jobs", "0", "inspect", "x"],
        ["--timeout", "soon", "inspect", "x"],
        ["--timeout", "nan", "inspect", "x"],
        ["mark", "x", "--weight", "nan"],
        ["mark", "x", "--weight", "-inf"],
        ["mark", "x", "--weight", "1e300"],
        ["extract", "x", "--base", "y", "-o", "z", "--energy", "nan"],
        ["resize", "x", "--energy", "inf"],
        ["merge", "x", "y", "-o", "z", "--density", "nan"],
        ["prompt", "balance", "x", "--total", "nan"],
        ["prompt", "convert", "x"],
        ["mark", "x", "--outfit"],
        ["inspekt", "x"],
        ["--no-such-option"],
    ],
)
def test_wrong_arguments_are_one_sentence_and_a_hint(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    sentence, hint = ran.err.strip().split("\n")
    assert sentence.endswith((".", "?"))
    assert hint.startswith("Hint: See `hubtool")
    error = run("--json", *arguments).document["error"]
    assert (error["code"], error["exit"]) == ("usage", 2)


def test_a_hint_names_the_command(run: Run) -> None:
    for arguments, command in (
        (["config", "set", "colour", "red"], "config set"),
        (["install", "--to"], "install"),
        (["prompt", "convert", "x"], "prompt convert"),
    ):
        assert run(*arguments).err.endswith(f"Hint: See `hubtool {command} --help`.\n")


def test_a_hint_names_the_command_in_rows_too(run: Run, good: Path) -> None:
    (row,) = run("scan", good.parent) and run("--json", "mark", "good", "--outfit", "nameless").document["results"]
    assert row["error"]["hint"] == "See `hubtool mark --help`."


def test_a_mistyped_command_is_answered_with_the_likely_one(run: Run) -> None:
    assert "inspect" in run("inspekt", "x").err


def test_an_unknown_dialect_is_a_usage_error_that_names_the_known_ones(run: Run, good: Path) -> None:
    ran = run("convert", "--json", good, "--to", "latin")
    error = ran.document["results"][0]["error"]
    assert (ran.code, error["code"]) == (2, "unknown_dialect")
    assert "kohya" in error["hint"]


def test_a_config_that_is_no_toml_is_a_usage_error(run: Run, good: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("hub = ")
    assert run("--config", tmp_path / "bad.toml", "list").code == 2


def test_a_config_that_was_named_is_there(run: Run, tmp_path: Path) -> None:
    error = run("--config", tmp_path / "gone.toml", "--json", "list").document["error"]
    assert (error["code"], error["exit"]) == ("file_not_found", 4)
    assert run("--config", tmp_path / "new.toml", "config", "set", "jobs", "2").code == 0


@pytest.mark.parametrize("command", [["scan"], ["usage"], ["ui", "detect"], ["ui", "add", "x="]])
def test_a_folder_that_is_not_there_is_not_found(run: Run, tmp_path: Path, command: list[str]) -> None:
    gone = str(tmp_path / "gone")
    error = run(
        "--json", *command[:-1], *([command[-1] + gone] if "=" in command[-1] else [command[-1], gone])
    ).document
    assert (error["error"]["code"], error["error"]["exit"]) == ("file_not_found", 4)
    assert "space" not in error["error"]["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["mark", "good", "--weight", "0.5", "--tag", "x"],
        ["sidecar", "write", "good"],
        ["sidecar", "import", "good"],
        ["sidecar", "sync", "good"],
        ["config", "set", "jobs", "3"],
        ["logout", "civitai"],
    ],
    ids=" ".join,
)
def test_a_trial_answers_and_writes_nothing(run: Run, good: Path, own_home: Path, arguments: list[str]) -> None:
    good.with_suffix(".json").write_text('{"notes": "mine"}')
    (own_home / "config").mkdir(parents=True)
    (own_home / "config" / "tokens.json").write_text('{"civitai": "secret"}')
    run("scan", good.parent)
    places = (good.parent, own_home / "config")
    before = {path: path.read_bytes() for place in places for path in place.iterdir()}
    tried = run("--json", *arguments, "--dry-run")
    assert before == {path: path.read_bytes() for place in places for path in place.iterdir()}
    done = run("--json", *arguments)
    assert (tried.code, tried.document) == (0, done.document)


# ---------------------------------------------------------------- what is safe to show


HOSTILE = "\x1b[2J\x9b31m\u202e\u200f\x7f\u2028[/red][link=x]\r\n" + "\ud800"


def test_json_escapes_what_steers_a_terminal_and_keeps_the_rest(run: Run) -> None:
    text = safe_json({"k": HOSTILE, "title": "猫 é 😀"})
    assert text.isprintable()
    assert json.loads(text) == {"k": HOSTILE, "title": "猫 é 😀"}
    assert "猫 é 😀" in text


def test_text_replaces_what_steers_a_terminal() -> None:
    shown = printable_lines(HOSTILE)
    assert all(c.isprintable() or c == "\n" for c in shown)


FAMILY, PERSIAN, WIDE = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "می\u200cخواهم", "水\u3000墨\ufe0f"


@pytest.mark.parametrize("text", [FAMILY, PERSIAN, WIDE, "a\tb\nc", "\U0001f3f4\U000e0067\U000e007f"])
def test_what_text_needs_and_steers_nothing_stays(text: str) -> None:
    assert printable_lines(text) == text
    assert json.dumps(text, ensure_ascii=False) in safe_json({"k": text})


@pytest.mark.parametrize("text", [f"{FAMILY}, {PERSIAN}", "a\r\nb \u200fc", "raw \x1b[1m \udcff byte"])
def test_a_bare_value_goes_into_a_pipe_as_it_is(capfdbinary: pytest.CaptureFixture[bytes], text: str) -> None:
    assert run_guarded(root, ["prompt", "strip", f"{text}<lora:x:1>"]) == 0
    assert capfdbinary.readouterr().out == os.fsencode(text) + b"\n"


def test_a_value_amid_words_is_tamed_in_a_pipe_too(run: Run) -> None:
    assert "\x1b" not in run("prompt", "parse", "<lora:\x1b[2J:1>").out


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_names_and_metadata_of_a_stranger_reach_the_terminal_tamed(
    run: Run, tmp_path: Path, command: str, options: list[str]
) -> None:
    key = HOSTILE.removesuffix("\ud800")
    tensors = {**lora("sd1", "kohya", K), key: number(1), f"lora_unet_{key}.lora_up.weight": random_tensor(1, (4, 4))}
    metadata = {
        "ss_output_name": key,
        "modelspec.title": key,
        "trigger_words": key,
        key: key,
        "ss_base_model_version": key,
    }
    path = write(tmp_path / "\x1b]0;title\x07\u202e.safetensors", tensors, metadata)
    ran = run(command, *options, path)
    assert all(c.isprintable() or c == "\n" for c in ran.out + ran.err)
    if options:
        assert ran.document["results"][0]["path"] == str(path)


def test_a_file_name_that_is_no_unicode_is_answered(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "\udcff.safetensors"
    path.write_bytes(container("{}"))
    for options in ([], ["--json"]):
        ran = run("validate", *options, path)
        assert ran.code == 10


def test_plain_turns_whatever_operations_return_into_json() -> None:
    from dataclasses import dataclass
    from types import MappingProxyType

    from hubtool.naming.address import Component

    @dataclass
    class Row:
        from_: str
        parts: object

    row = Row(
        "a", (Component.CLIP_L, MappingProxyType({Component.T5: Path("x")}), frozenset({"b", "a"}), None, 1.5, True)
    )
    assert plain(row) == {"from": "a", "parts": ["clip_l", {"t5": "x"}, ["a", "b"], None, 1.5, True]}


def test_every_code_has_an_exit_that_says_something() -> None:
    assert all((1 <= number < 128 or number in {128 + 2, 128 + 15}) and text for number, text in EXITS.values())
    assert exit_code("no such code") == 1
