"""Lists of links: fetched, read, expanded, downloaded; what cannot be had is explained."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, FaultyHub, lora
from contract.small_site import Page, SmallSite
from unit.library.small_lora import small_lora

from hubtool.errors import (
    BadSpec,
    BrowserNeeded,
    FileMissing,
    HubProblem,
    NotFound,
    NotRegularFile,
    Offline,
    StorageProblem,
    UnsafeAddress,
    WrongFile,
)
from hubtool.hubs.batch import Wish, download_all
from hubtool.hubs.delivery import deliver
from hubtool.hubs.link_lists import LinkList, expand_lists
from hubtool.hubs.opening import open_hub
from hubtool.hubs.refusals import Refusal, problem_of
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.in_process import Run

LIST = """# Styles
{url}/files/ab12cd.safetensors ink_(style) activation trigger is ink lines
[Clouds]({url}/files/ef34.zip) soft
https://mega.nz/file/x#y big_one
https://civitai.com/models/1001 A page
"""


@pytest.fixture
def site() -> Iterator[SmallSite]:
    with SmallSite() as running:
        running.pages["/list"] = Page(LIST.format(url=running.url).encode(), headers={"Content-Type": "text/plain"})
        running.pages["/files/ab12cd.safetensors"] = Page(lora(), ranged=True)
        running.pages["/files/ef34.zip"] = Page(
            zipped({"a/clouds.safetensors": lora(1), "read.txt": b"x"}), ranged=True
        )
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.3)


def zipped(members: dict[str, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return body.getvalue()


def test_entries_are_downloaded_under_their_labels(site: SmallSite, settings: Settings, tmp_path: Path) -> None:
    source = f"list:{site.url}/list"
    specs = list(expand_lists(settings, ["1", source]))
    assert specs == ["1", f"{source}#ink_(style)", f"{source}#Clouds", f"{source}#A"]
    outcomes = download_all(open_hub(settings), specs[1:3], Wish(), Transfer(tmp_path / "out"), 2)
    done = [outcome.downloaded for outcome in outcomes]
    assert [each.path.name for each in done if each] == ["ink_(style).safetensors", "clouds.safetensors"]
    assert [each.verified for each in done if each] == [False, False]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "clouds.safetensors",
        "ink_(style).safetensors",
    ]
    resolved = outcomes[0].resolved
    assert resolved is not None
    assert (resolved.version.trigger_words, resolved.model.tags) == (("ink lines",), ("Styles",))
    assert site.paths().count("/list") == 1  # one command after another reads the same page


def test_an_entry_that_is_a_page_of_a_hub_is_asked_there(site: SmallSite, settings: Settings) -> None:
    from dataclasses import replace

    with FaultyHub() as civitai:
        chosen = replace(settings, hub=civitai.api)
        wanted = open_hub(chosen).resolve(f"list:{site.url}/list#A")
        assert (wanted.model.id, wanted.file.sha256, wanted.hub) == (MODEL, civitai.sha256, civitai.api)


def test_an_entry_that_only_a_browser_gets_is_explained(site: SmallSite, settings: Settings) -> None:
    with pytest.raises(BrowserNeeded, match="MEGA encrypts"):
        open_hub(settings).resolve(f"list:{site.url}/list#big_one")
    with pytest.raises(BrowserNeeded) as caught:
        open_hub(settings).resolve("https://mega.nz/file/id#the-key")
    assert "the-key" not in f"{caught.value} {caught.value.url}"


def test_labels_may_be_patterns_and_unknown_ones_are_said(site: SmallSite, settings: Settings) -> None:
    source = f"list:{site.url}/list"
    assert list(expand_lists(settings, [f"{source}#INK*"])) == [f"{source}#ink_(style)"]
    assert list(expand_lists(settings, [f"{source}#big_one"])) == [f"{source}#big_one"]  # so that it is explained
    assert list(expand_lists(settings, [f"{source}#nothing"])) == [f"{source}#nothing"]  # likewise
    with pytest.raises(NotFound, match="no entry nothing"):
        open_hub(settings).resolve(f"{source}#nothing")


def test_a_list_on_this_disk_may_lead_to_public_places_only(
    site: SmallSite, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "links.md"
    path.write_text(f"https://127.0.0.1:{site.url.rpartition(':')[2]}/files/ab12cd.safetensors ink\n")
    hub = open_hub(settings)
    with pytest.raises(UnsafeAddress):
        deliver(hub, hub.resolve(f"list:{path}#ink"), Transfer(tmp_path / "out"))
    path.write_text(f"{site.url}/files/ab12cd.safetensors ink\n")
    hub = open_hub(settings)
    with pytest.raises(UnsafeAddress):
        deliver(hub, hub.resolve(f"list:{path}#ink"), Transfer(tmp_path / "out"))
    assert not site.asked


def test_a_page_of_html_is_read_as_its_text(site: SmallSite, settings: Settings) -> None:
    body = f"""<!doctype html><html><head><title>t</title></head><body><nav><a href="/x.safetensors">nav</a></nav>
    <article><h2>Styles</h2><p><a href="/files/ab12cd.safetensors">{site.url}/files/ab12cd.safetensors</a> ink keyword is inky</p>
    <table><tr><td>cloud</td><td><a href="/files/ef34.zip">download</a></td></tr></table></article></body></html>"""
    site.pages["/page"] = Page(body.encode(), headers={"Content-Type": "text/html"})
    entries = LinkList(f"{site.url}/page", settings).page().entries()
    rows = [(link.label, link.category, link.triggers, link.url) for link in entries]
    assert rows == [
        ("ink", ("Styles",), ("inky",), f"{site.url}/files/ab12cd.safetensors"),
        ("cloud", ("Styles",), (), f"{site.url}/files/ef34.zip"),
    ]


def test_a_login_page_is_not_an_empty_list(site: SmallSite, settings: Settings) -> None:
    site.pages["/private"] = Page(
        b'<html><form id="new_user" action="/users/sign_in"></form></html>', headers={"Content-Type": "text/html"}
    )
    with pytest.raises(NotFound, match="shows a login"):
        LinkList(f"{site.url}/private", settings).page()


def test_a_list_that_is_away_or_too_large_is_said(site: SmallSite, settings: Settings, tmp_path: Path) -> None:
    from dataclasses import replace

    site.pages["/huge"] = Page(b"x" * (6 << 20))
    with pytest.raises(HubProblem, match="5 MiB"):
        LinkList(f"{site.url}/huge", settings).page()
    with pytest.raises(FileMissing):
        LinkList(str(tmp_path / "nowhere.md"), settings).page()
    with pytest.raises(StorageProblem):
        LinkList(str(tmp_path), settings).page()
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(NotRegularFile):
            LinkList(str(tmp_path / "pipe"), settings).page()
    for source in ("http://example.org/list", "ftp://example.org/list", "https://[", "https://", "file:///etc/passwd"):
        with pytest.raises(BadSpec):
            open_hub(settings).resolve(f"list:{source}#x")
    with pytest.raises(Offline):
        LinkList(f"{site.url}/list", replace(settings, offline=True)).page()
    LinkList(f"{site.url}/list", settings).page()
    assert LinkList(f"{site.url}/list", replace(settings, offline=True)).page().entries()


def test_a_list_that_changed_says_how(site: SmallSite, settings: Settings) -> None:
    def read(text: str) -> list[tuple[str, str, str]]:
        site.pages["/news"] = Page(text.format(h="https://files.catbox.moe").encode())
        page = LinkList(f"{site.url}/news", settings).page()
        return [(each.label, each.change, each.before) for each in page.changes]

    assert read("{h}/aaaaaa.safetensors ink\n{h}/bbbbbb.safetensors oil\n{h}/cccccc.safetensors wax") == []
    assert read("{h}/dddddd.safetensors ink\n{h}/bbbbbb.safetensors tar\n{h}/eeeeee.safetensors fresh") == [
        ("ink", "moved", "https://files.catbox.moe/aaaaaa.safetensors"),
        ("tar", "renamed", "oil"),
        ("fresh", "added", ""),
        ("wax", "removed", ""),
    ]


def test_one_entry_that_fails_does_not_stop_the_others(site: SmallSite, run: Run, tmp_path: Path) -> None:
    source = f"list:{site.url}/list"
    ended = run("download", f"{source}#nothing", f"{source}#ink_(style)", "-o", tmp_path / "out", "--json")
    assert ended.code == 17
    assert [row["status"] for row in ended.document["results"]] == ["failed", "downloaded"]
    assert run("download", "list:https://127.0.0.1:9/list", "--timeout", "0.1", "--json").code == 5


def test_the_command_shows_entries_and_reasons(site: SmallSite, run: Run) -> None:
    ended = run("list-links", f"{site.url}/list", "--json")
    rows = ended.document["results"]
    assert [(row["label"], row["kind"]) for row in rows] == [
        ("ink_(style)", "file"),
        ("Clouds", "archive"),
        ("big_one", "manual"),
        ("A", "page"),
    ]
    assert rows[0]["spec"] == f"list:{site.url}/list#ink_(style)"
    assert rows[2]["spec"] is None
    assert "MEGA" in rows[2]["reason"]
    shown = run("list-links", f"{site.url}/list")
    assert (shown.code, "ink_(style)" in shown.out, "4 entries" in shown.err) == (0, True, True)


def test_a_label_is_installed_with_its_triggers(site: SmallSite, run: Run, tmp_path: Path) -> None:
    site.pages["/files/ab12cd.safetensors"] = Page(small_lora(1), ranged=True)
    site.pages["/files/ef34.zip"] = Page(zipped({"clouds.safetensors": small_lora(2)}), ranged=True)
    ended = run("install", f"list:{site.url}/list#Clouds", "--to", tmp_path / "loras", "--json")
    row = ended.document["results"][0]
    assert (row["status"], Path(row["path"]).name) == ("installed", "clouds.safetensors"), row
    ended = run("install", f"list:{site.url}/list#ink_(style)", "--to", tmp_path / "loras", "--json")
    assert ended.document["results"][0]["trigger_words"] == ["ink lines"]
    assert sorted(path.suffix for path in (tmp_path / "loras").iterdir() if path.suffix == ".zip") == []


# ---------------------------------------------------------------- archives


def fetch_archive(site: SmallSite, settings: Settings, folder: Path, body: bytes) -> list[Path]:
    site.pages["/files/ef34.zip"] = Page(body, ranged=True)
    hub = open_hub(settings)
    return [done.path for done in deliver(hub, hub.resolve(f"list:{site.url}/list#Clouds"), Transfer(folder))]


def test_every_lora_of_an_archive_comes_out_by_its_last_name(
    site: SmallSite, settings: Settings, tmp_path: Path
) -> None:
    members = {
        "../../evil.safetensors": lora(1),
        "C:\\x\\two.safetensors": lora(2),
        "b/two.safetensors": lora(3),
        "__MACOSX/._two.safetensors": b"x",
        "run.py": b"boom",
    }
    paths = fetch_archive(site, settings, tmp_path / "out", zipped(members))
    assert [path.read_bytes() for path in paths] == [lora(1), lora(2), lora(3)]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(path.name for path in paths)
    assert {"evil.safetensors", "two.safetensors"} < set(names)
    assert not list(tmp_path.glob("*.safetensors"))


def bomb() -> bytes:
    return zipped({"a.safetensors": bytes(64 << 20)})


def damaged() -> bytes:
    body = bytearray(zipped({"a.safetensors": lora(1)}))
    body[100_000] ^= 0xFF
    return bytes(body)


def locked() -> bytes:
    body = bytearray(zipped({"a.safetensors": lora(1)}))
    body[6] |= 1
    central = body.rfind(b"PK\x01\x02")
    body[central + 8] |= 1
    return bytes(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(zipped({"read.txt": b"x" * 600}), id="no lora"),
        pytest.param(zipped({"a.safetensors": b"no tensors" * 100}), id="a member that is none"),
        pytest.param(zipped({"a.safetensors": struct.pack("<Q", 1 << 40) + b"{}" * 300}), id="a lying header"),
        pytest.param(damaged(), id="a wrong checksum"),
        pytest.param(locked(), id="a password"),
        pytest.param(bomb(), id="a bomb"),
        pytest.param(b"<html>Not found</html>" * 40, id="a page"),
        pytest.param(zipped({"a.safetensors": lora(1)})[:-30], id="cut short"),
    ],
)
def test_an_archive_that_holds_no_sound_lora_leaves_nothing(
    site: SmallSite, settings: Settings, tmp_path: Path, body: bytes
) -> None:
    with pytest.raises(WrongFile):
        fetch_archive(site, settings, tmp_path / "out", body)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_whose_hash_is_published_is_verified_by_it(settings: Settings, tmp_path: Path) -> None:
    with FaultyHub(zipped({"inside.safetensors": lora(4)})) as civitai:
        civitai.file = {"name": "style.zip", "metadata": {"format": "Other"}}
        hub = civitai.open(tmp_path)
        done = deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))[0]
        assert (done.path.name, done.verified, done.sha256) == (
            "inside.safetensors",
            True,
            hashlib.sha256(lora(4)).hexdigest(),
        )
        assert deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))[0].status == "present"


# ---------------------------------------------------------------- pixeldrain


def test_pixeldrains_answers_are_read() -> None:
    from hubtool.hubs.hosted import _Drained
    from hubtool.hubs.tolerant import read

    folder = Path(__file__).parents[2] / "fixtures" / "responses" / "pixeldrain"
    said = read(_Drained, json.loads((folder / "info.json").read_text("utf-8")), "pixeldrain")
    assert (said.name, said.size_bytes, said.sha256) == ("ink.safetensors", 200072, "2" * 64)
    refused = json.loads((folder / "hotlink_403.json").read_text("utf-8"))
    problem = problem_of(Refusal(403, json.dumps(refused["body"]).encode(), {}, "https://pixeldrain.com/api/file/x"))
    assert isinstance(problem, BrowserNeeded)
    assert "only be downloaded from its page" in str(problem)
