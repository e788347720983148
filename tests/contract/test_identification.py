"""Whose many files are: how many questions it takes, who is asked, and what is not asked again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.small_site import Asked, Page, SmallSite, page
from unit.library.small_lora import small_lora

from hubtool.errors import NetworkFailure, NotFound, Offline
from hubtool.hubs.hub import Fingerprint
from hubtool.hubs.opening import open_hub
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.in_process import Run

    from hubtool.hubs.identification import Identities

IDS, WHOLE = "/api/v1/model-versions/by-hash/ids", "/api/v1/model-versions/by-hash"
RECORDED = Path(__file__).parents[2] / "fixtures" / "responses" / "civarchive" / "model_1746460.json"


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def version(number: int) -> dict[str, object]:
    """The version that has the file with hash `digest(number)`."""
    file = {"id": number, "name": f"{number}.safetensors", "hashes": {"SHA256": digest(number).upper()}}
    model = {"name": f"Model {number}", "type": "LORA"}
    return {"id": 100 + number, "modelId": 200 + number, "name": "v1", "model": model, "files": [file]}


@pytest.fixture
def civitai() -> Iterator[SmallSite]:
    """A hub that knows the files 0 to 249."""
    known = {digest(number).upper(): number for number in range(250)}

    def ids(asked: Asked) -> Page:
        hashes = [entry for entry in json.loads(asked.body) if entry in known]
        return page(
            [{"hash": entry, "modelVersionId": 100 + known[entry], "modelId": 200 + known[entry]} for entry in hashes]
        )

    def whole(asked: Asked) -> Page:
        found = [version(known[entry]) for entry in json.loads(asked.body) if entry in known]
        return page([None, *reversed(found), *found[:1]])  # in another order, one twice, one empty

    with SmallSite() as running:
        running.pages[IDS], running.pages[WHOLE] = ids, whole
        yield running


@pytest.fixture
def archive() -> Iterator[SmallSite]:
    with SmallSite() as running:
        yield running


@pytest.fixture
def settings(civitai: SmallSite, archive: SmallSite, tmp_path: Path) -> Settings:
    hubs = {"civitai": civitai.url, "civarchive": archive.url}
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), hubs=hubs, timeout_s=0.2)


def ask(settings: Settings, *wanted: Fingerprint) -> Identities:
    return open_hub(settings).identify(wanted)


def test_two_hundred_and_fifty_files_take_four_questions(civitai: SmallSite, settings: Settings) -> None:
    said = ask(settings, *(Fingerprint(digest(number)) for number in range(250)))
    assert civitai.paths() == [IDS, WHOLE, WHOLE, WHOLE]
    assert [len(json.loads(asked.body)) for asked in civitai.asked] == [250, 100, 100, 50]
    for number in range(250):
        match = said.matches[digest(number)]
        assert (match.version_id, match.model_id, match.hub, match.kind) == (
            100 + number,
            200 + number,
            "civitai",
            "sha256",
        )
        assert match.found is not None
        assert (match.found.model.name, match.found.file and match.found.file.id) == (f"Model {number}", number)


def test_a_server_that_knows_ids_only_is_enough(civitai: SmallSite, settings: Settings) -> None:
    del civitai.pages[WHOLE]
    match = ask(settings, Fingerprint(digest(7))).matches[digest(7)]
    assert (match.version_id, match.found) == (107, None)


def test_what_the_first_does_not_know_is_known_by_its_tensors_or_elsewhere(
    civitai: SmallSite, archive: SmallSite, settings: Settings
) -> None:
    civitai.pages["/api/v1/model-versions/by-hash/ABCDEF123456"] = page(version(3))
    civitai.pages["/api/v1/models/203"] = page({"id": 203, "name": "Model 3", "modelVersions": [version(3)]})
    answer = json.loads(RECORDED.read_text("utf-8"))
    answer["data"]["version"]["files"][0]["sha256"] = digest(900)
    archive.pages[f"/api/sha256/{digest(900)}"] = page(answer)
    wanted = [
        Fingerprint(digest(1)),
        Fingerprint(digest(800), "abcdef123456"),
        Fingerprint(digest(900)),
        Fingerprint(digest(901)),
    ]
    said = ask(settings, *wanted)
    rows = {key: (match.hub, match.model_id, match.version_id, match.kind) for key, match in said.matches.items()}
    assert rows == {
        digest(1): ("civitai", 201, 101, "sha256"),
        digest(800): ("civitai", 203, 103, "autov3"),
        digest(900): ("civarchive", 1746460, 1976567, "sha256"),
    }
    assert said.failures == ()
    assert archive.paths() == [f"/api/sha256/{digest(900)}", f"/api/sha256/{digest(901)}"]


def test_what_nobody_knew_is_not_asked_again_but_what_is_typed_is(
    civitai: SmallSite, archive: SmallSite, settings: Settings
) -> None:
    wanted = Fingerprint(digest(901), "abcdef123456")
    ask(settings, wanted)
    assert (len(civitai.asked), len(archive.asked)) == (2, 1)
    ask(settings, wanted)
    assert (len(civitai.asked), len(archive.asked)) == (2, 1)
    with pytest.raises(NotFound):
        open_hub(settings).find(f"sha256:{digest(901)}")
    assert (len(civitai.asked), len(archive.asked)) == (3, 2)


def test_a_hub_that_fails_is_not_asked_any_further_and_what_was_found_stays(
    archive: SmallSite, settings: Settings
) -> None:
    numbers = (digest(900), digest(901), digest(902))
    archive.pages.update({f"/api/sha256/{entry}": page({"error": "busy"}, 429, Retry_After="400") for entry in numbers})
    said = ask(settings, Fingerprint(digest(1)), *map(Fingerprint, numbers))
    assert set(said.matches) == {digest(1)}
    assert [failure.code for failure in said.failures] == ["rate_limited"]
    assert len(archive.asked) == 1


def test_the_command_says_which_hub_could_not_be_asked(
    civitai: SmallSite, archive: SmallSite, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path = tmp_path / "mine.safetensors"
    path.write_bytes(small_lora(5))
    config = Path(os.environ["HUBTOOL_HOME"]) / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[hubs]\ncivitai = "{civitai.url}"\ncivarchive = "{archive.url}"\n')
    sha256 = hashlib.sha256(small_lora(5)).hexdigest()
    archive.pages[f"/api/sha256/{sha256}"] = page({"error": "busy"}, 429, Retry_After="400")
    ended = run("identify", path, "--json")
    assert (ended.code, ended.document["results"][0]["status"]) == (17, "unknown")
    assert "Not everything was asked" in ended.err


# ---------------------------------------------------------------- the chain


def test_a_hash_is_asked_of_the_next_when_the_first_is_away(archive: SmallSite, settings: Settings) -> None:
    archive.pages[f"/api/sha256/{digest(1)}"] = page(
        {"files": [{"sha256": digest(1), "downloadUrl": f"{archive.url}/x", "name": "x"}]}
    )
    away = replace(settings, hubs=settings.hubs | {"civitai": "http://127.0.0.1:9"}, timeout_s=0.05)
    found = open_hub(away).find(f"sha256:{digest(1)}")
    assert found.file is not None
    assert found.file.sha256 == digest(1)
    with pytest.raises(NetworkFailure):  # nobody knows it: then the first one's failure is what there is to say
        open_hub(away).find(f"sha256:{digest(2)}")
    with pytest.raises(NetworkFailure):  # a number's newest version may be another one elsewhere
        open_hub(away).find("m:5")


def test_a_page_of_an_outage_is_no_answer(civitai: SmallSite, archive: SmallSite, settings: Settings) -> None:
    civitai.pages[f"{WHOLE}/{digest(1).upper()}"] = Page(b"<html>We will be back</html>")
    archive.pages[f"/api/sha256/{digest(1)}"] = page(
        {"files": [{"sha256": digest(1), "downloadUrl": f"{archive.url}/x", "name": "x"}]}
    )
    assert open_hub(settings).find(f"sha256:{digest(1)}").file is not None


def test_offline_whoever_once_knew_it_answers(civitai: SmallSite, archive: SmallSite, settings: Settings) -> None:
    answer = json.loads(RECORDED.read_text("utf-8"))
    archive.pages["/api/models/1746460"] = page(answer)
    assert open_hub(settings).find("m:1746460").model.name == "Mixplin Style [Illustrious]"
    asked = len(civitai.asked) + len(archive.asked)
    quiet = replace(settings, offline=True)
    assert open_hub(quiet).find("m:1746460").model.name == "Mixplin Style [Illustrious]"
    with pytest.raises(Offline):
        open_hub(quiet).find("m:5")
    with pytest.raises(Offline):
        ask(quiet, Fingerprint(digest(1)))
    assert len(civitai.asked) + len(archive.asked) == asked


def test_many_hashes_are_asked_of_a_sister_when_the_first_is_away(civitai: SmallSite, settings: Settings) -> None:
    both = replace(settings, hubs={"civitai": f"http://127.0.0.1:9, {civitai.url}"}, fallback=(), timeout_s=0.05)
    assert ask(both, Fingerprint(digest(4))).matches[digest(4)].version_id == 104
