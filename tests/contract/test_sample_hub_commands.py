"""`hubtool --hub sample …` on a machine without a network: fields, files and exit codes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hubtool.cli import root
from hubtool.cli._errors import run_guarded
from hubtool.hubs.sample.catalogue import MODELS, TOKEN, Offer, offers
from hubtool.hubs.sample.made import made

if TYPE_CHECKING:
    from collections.abc import Callable

    Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with --json against the sample hub: (exit code, document)."""
    monkeypatch.setenv("HUBTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HUBTOOL_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = run_guarded(root, ["--hub", "sample", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def only(document: dict[str, object]) -> dict[str, object]:
    """The one result row."""
    rows = document["results"]
    assert len(rows) == 1
    return rows[0]


def test_a_search_finds_every_model_with_its_files(run: Command) -> None:
    code, document = run("search")
    rows = document["results"]
    files = {file["id"]: file["sha256"] for row in rows for version in row["versions"] for file in version["files"]}
    assert code == 0
    assert files == {offer.file.id: made(offer).hashes["SHA256"].lower() for offer in offers()}


def test_a_search_goes_on_where_it_ended(run: Command) -> None:
    found, cursor = [], []
    for _ in MODELS:
        _, document = run("search", "--limit", "2", *cursor)
        found += [row["id"] for row in document["results"]]
        if not document["next_cursor"]:
            break
        cursor = ["--cursor", str(document["next_cursor"])]
    assert sorted(found) == sorted(model.id for model in MODELS)


@pytest.mark.parametrize("offer", offers(), ids=lambda offer: offer.file.name)
def test_a_file_is_known_by_its_hash(run: Command, offer: Offer) -> None:
    for kind in ("sha256", "autov2", "autov3", "blake3", "crc32"):
        published = {name.lower(): digits for name, digits in made(offer).hashes.items()}
        code, document = run("info", f"{kind}:{published[kind].lower()}")
        assert (code, document["id"], document["version_id"]) == (0, offer.model.id, offer.version.id)


def test_everything_that_is_free_downloads_and_verifies(run: Command, tmp_path: Path) -> None:
    free = [offer for offer in offers() if offer.version.access == "open" and offer.file.primary]
    code, document = run("download", *(f"v:{offer.version.id}" for offer in free), "-o", "dl")
    assert code == 0
    rows = document["results"]
    assert [(row["status"], row["verified"]) for row in rows] == [("downloaded", True)] * len(free)
    for offer in free:
        assert (tmp_path / "dl" / offer.file.name).read_bytes() == made(offer).body


def test_all_files_of_a_version_are_fetched_when_asked_for(run: Command, tmp_path: Path) -> None:
    assert run("download", "v:2002", "--all-files")[0] == 0
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {
        "pixel-meadow-v2.safetensors",
        "pixel-meadow-v2-small.safetensors",
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("download", "1006"), 11),  # the newest version is in early access
        (("download", "v:2008"), 11),
        (("download", "1007"), 3),  # wants a login
        (("install", "1007"), 3),
        (("info", "2003"), 13),  # the id of a version
        (("info", "999999"), 4),
        (("download", "v:999999"), 4),
    ],
)
def test_each_refusal_has_its_exit_code_and_leaves_nothing(
    run: Command, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    assert run(*arguments)[0] == code
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_the_sample_token_opens_what_wants_a_login(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", TOKEN)
    assert run("download", "1007")[0] == 0
    assert (tmp_path / "copper-botanica.safetensors").is_file()


def test_an_installed_sample_has_sidecars_and_a_picture(run: Command, tmp_path: Path) -> None:
    code, document = run("install", "1005")
    row = only(document)
    assert (code, row["status"], row["architecture"], row["prompt"]) == (
        0,
        "installed",
        "sdxl",
        "<lora:MossGoblins_Pony:1>",
    )
    words = ["moss goblin", "goblin elder, long beard", "goblin child, mushroom hat"]
    assert row["trigger_words"] == words
    folder = tmp_path / "models" / "Lora"
    assert (folder / "MossGoblins_Pony.preview.png").read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads((folder / "MossGoblins_Pony.civitai.info").read_text("utf-8"))
    assert (sidecar["id"], sidecar["modelId"], sidecar["trainedWords"]) == (2006, 1005, words)
    assert only(run("install", "1005")[1])["status"] == "present"


@pytest.mark.parametrize("place", [("--to", "a folder"), ("--target", "comfyui=ui", "--subdir", "styles")])
def test_the_command_that_verify_prints_brings_a_damaged_file_back_to_its_place(
    run: Command, tmp_path: Path, place: tuple[str, ...]
) -> None:
    wish = ("--name", "it's a meadow", "--file", "3003", "--no-preview")
    path = Path(only(run("install", "1001", *wish, *place)[1])["path"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = set(tmp_path.rglob("*.safetensors"))
    code, found = run("verify", "--full")
    assert (code, [problem["code"] for problem in found["problems"]]) == (10, ["not_as_published"])
    (command,) = found["plan"]
    assert command.endswith("--hub sample")  # though a sidecar, which is all there is of a changed file, names no hub
    assert run(*shlex.split(command)[1:])[0] == 0
    assert path.read_bytes() == whole
    assert run("verify", "--full")[0] == 0
    assert set(tmp_path.rglob("*.safetensors")) == before


MEADOW = "b4a700231a0a"  # AutoV3 of the sample hub's file 3002


def infotext(**hashes: str) -> str:
    """A prompt with one LoRA for each name, and the line of hashes that A1111 writes."""
    tags = " ".join(f"<lora:{name}:1>" for name in hashes)
    listed = ", ".join(f"{name}: {digits}" for name, digits in hashes.items())
    return f'x {tags}\nSteps: 20, Sampler: x, Seed: 1, Lora hashes: "{listed}"'


def test_resolving_with_installation_fails_as_the_hub_does(run: Command) -> None:
    assert run("resolve", "--install", infotext(gone="111111111111"))[0] == 4
    assert run("resolve", "--install", infotext(meadow=MEADOW, gone="111111111111"))[0] == 17
    assert run("resolve", "--install", infotext(meadow=MEADOW))[0] == 0
    assert run("prompt", "parse", "--install", infotext(gone="111111111111"))[0] == 4


def test_what_a_prompt_installed_is_not_said_to_be_missing(run: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(root, ["--hub", "sample", "prompt", "parse", "--install", infotext(meadow=MEADOW)]) == 0
    shown = capsys.readouterr()
    assert "here as pixel-meadow-v2" in shown.out
    assert "not installed" not in shown.err + shown.out


def test_files_that_nobody_hashed_are_told_of_where_something_is_missing(run: Command, tmp_path: Path) -> None:
    path = Path(only(run("install", "1001", "--no-preview")[1])["path"])
    kept, _ = path.rename(path.with_name("renamed.safetensors")), (tmp_path / "home").rename(tmp_path / "old")
    question = infotext(meadow=made(offers()[0]).hashes["AutoV2"].lower())
    row = only(run("resolve", question)[1])
    assert (row["references"][0]["status"], "one file is not known" in row["note"]) == ("missing", True)
    assert "verify --full" in run("prompt", "relink", question)[1]["lost"][-1]
    run("verify", "--full")
    row = only(run("resolve", question)[1])
    assert (row["references"][0]["path"], row["note"]) == (str(kept), "")
