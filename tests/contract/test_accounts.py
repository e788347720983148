"""Tokens: where they come from, who hears them, and that nothing shows them."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from contract.faulty_hub import MODEL, Fault, FaultyHub
from contract.small_site import Page, SmallSite, page
from unit.library.small_lora import small_lora

from hubtool.errors import NeedsToken, Offline, StorageProblem, UsageProblem
from hubtool.hubs.accounts import log_in, log_out, who_am_i
from hubtool.hubs.delivery import deliver
from hubtool.hubs.opening import open_hub
from hubtool.hubs.tokens import Store, key_of
from hubtool.hubs.transfer import Transfer
from hubtool.settings import Directories, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.in_process import Run

SECRET = "hubtok_SECRET123"


@pytest.fixture
def site() -> Iterator[SmallSite]:
    """A Civitai-style site that knows one key."""

    def me(asked: object) -> Page:
        known = getattr(asked, "headers", {}).get("authorization") == f"Bearer {SECRET}"
        return page({"id": 5, "username": "ann", "tier": "gold"}) if known else page({"error": "Unauthorized"}, 401)

    with SmallSite() as running:
        running.pages["/api/v1/me"] = running.pages["/api/whoami-v2"] = me
        yield running


@pytest.fixture
def settings(site: SmallSite, tmp_path: Path) -> Settings:
    return Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), hub=site.url, timeout_s=0.3)


def test_a_login_is_verified_stored_for_its_owner_only_and_used(site: SmallSite, settings: Settings) -> None:
    account = log_in(settings, site.url, f" {SECRET}\n")
    path = settings.directories.config / "tokens.json"
    assert (account.name, account.tier, account.source) == ("ann", "gold", str(path))
    assert json.loads(path.read_text()) == {site.url: SECRET}
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert who_am_i(settings, site.url).name == "ann"
    assert [entry.name for entry in path.parent.iterdir()] == ["tokens.json"]
    site.pages["/api/v1/models/5"] = page({"id": 5})
    open_hub(settings).model(5)
    assert site.asked[-1].headers["authorization"] == f"Bearer {SECRET}"
    assert log_out(settings, site.url) is True
    assert log_out(settings, site.url) is False
    assert who_am_i(settings, site.url).source == ""


def test_a_trial_asks_whose_key_it_is_and_stores_nothing(site: SmallSite, settings: Settings) -> None:
    account = log_in(settings, site.url, SECRET, dry_run=True)
    assert (account.name, account.source) == ("ann", "")
    assert not (settings.directories.config / "tokens.json").exists()
    assert not log_out(settings, site.url, dry_run=True)
    log_in(settings, site.url, SECRET)
    assert log_out(settings, site.url, dry_run=True)
    assert log_out(settings, site.url)


def test_a_key_that_the_hub_does_not_know_is_not_stored(site: SmallSite, settings: Settings) -> None:
    with pytest.raises(NeedsToken) as caught:
        log_in(settings, site.url, "wrong_KEY")
    assert "wrong_KEY" not in f"{caught.value} {caught.value.hint}"
    assert not settings.directories.config.exists()
    for key in ("", "two words", "caf\xe9", "a\nb"):
        with pytest.raises(UsageProblem):
            log_in(settings, site.url, key)


def test_the_environment_goes_before_what_is_stored(
    site: SmallSite, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(settings, site.url, SECRET)
    monkeypatch.setenv("HUBTOOL_TOKEN", "other")
    with pytest.raises(NeedsToken):
        who_am_i(settings, site.url)
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    assert who_am_i(settings, site.url).source == "HUBTOOL_TOKEN"


def test_hugging_faces_own_login_is_honoured(
    site: SmallSite, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert who_am_i(settings, "huggingface").source == ""
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(SECRET)
    assert who_am_i(settings, "huggingface").source == str(tmp_path / "hf" / "token")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert who_am_i(settings, "huggingface").source == "HF_TOKEN"
    assert site.asked[-1].path == "/api/whoami-v2"


def test_one_login_serves_all_of_civitais_hosts() -> None:
    assert {key_of(f"https://{host}") for host in ("civitai.com", "civitai.red", "www.civitai.com")} == {"civitai"}
    assert key_of("https://evilcivitai.com") == "https://evilcivitai.com"


def test_a_damaged_store_is_reported_without_its_content(settings: Settings) -> None:
    path = settings.directories.config / "tokens.json"
    path.parent.mkdir()
    path.write_text(f'{{"civitai": "{SECRET}"')
    with pytest.raises(StorageProblem) as caught:
        who_am_i(settings, "civitai")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    path.write_text("[]")
    assert Store(path).read("civitai").value == ""


def test_the_commands_read_the_key_from_stdin_and_never_show_it(
    site: SmallSite, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    ended = run("login", site.url, "--json")
    assert (ended.code, ended.document["name"]) == (0, "ann")
    shown = run("whoami", site.url)
    asked = run("whoami", site.url, "--json").document
    assert (asked["name"], asked["checked"]) == ("ann", True)
    assert asked["source"].endswith("tokens.json")
    assert run("whoami", site.url, "--offline", "--json").document["checked"] is False
    gone = run("logout", site.url)
    assert "not logged in" in run("whoami", site.url).out
    for end in (ended, shown, gone):
        assert SECRET not in end.out + end.err


def test_a_key_goes_over_plain_http_to_this_machine_only(settings: Settings) -> None:
    with pytest.raises(UsageProblem, match="need no login"):
        log_in(settings, "modelscope", SECRET)
    with pytest.raises(UsageProblem, match="plain http"):
        log_in(settings, "http://example.org", SECRET)


def test_a_login_does_not_go_on_line_when_that_is_forbidden(site: SmallSite, settings: Settings) -> None:
    from dataclasses import replace

    with pytest.raises(Offline):
        log_in(replace(settings, offline=True), site.url, SECRET)
    assert not site.asked


# ---------------------------------------------------------------- nobody else hears it

ELSEWHERE = [
    pytest.param("{other}/file", id="another port"),
    pytest.param("http://localhost:{port}/file", id="another name of the host"),
    pytest.param("{api}/files/style.safetensors", id="the same origin"),
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_what_the_hub_redirects_to_never_hears_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    with FaultyHub() as server, SmallSite() as other:
        other.pages["/file"] = Page(server.content, ranged=True)
        location = target.format(other=other.url, port=other.url.rpartition(":")[2], api=server.api)
        server.always["download"] = Fault(headers={"Location": location})
        hub = server.open(tmp_path)
        deliver(hub, hub.resolve(str(MODEL)), Transfer(tmp_path / "out"))
        assert not any(SECRET in str(asked) for asked in other.asked)
        assert all("authorization" not in seen.headers for seen in server.seen if seen.path.startswith("/files/"))
        with_token = [seen.path for seen in server.seen if "authorization" in seen.headers]
        assert all(path.startswith("/api/") for path in with_token)
        assert with_token


def test_a_list_of_links_and_what_it_leads_to_never_hear_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUBTOOL_TOKEN", "CIVITAI_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    with SmallSite() as other:
        other.pages["/list"] = Page(f"{other.url}/a.safetensors ink".encode())
        other.pages["/a.safetensors"] = Page(small_lora(), ranged=True)
        settings = Settings(Directories(tmp_path / "c", tmp_path / "d", tmp_path / "e"), timeout_s=0.3)
        hub = open_hub(settings)
        deliver(hub, hub.resolve(f"list:{other.url}/list#ink"), Transfer(tmp_path / "out"))
        deliver(hub, hub.resolve(f"{other.url}/a.safetensors"), Transfer(tmp_path / "two"))
        assert len(other.asked) == 3
        assert not any(SECRET in str(asked) for asked in other.asked)


# ---------------------------------------------------------------- nothing shows it


@pytest.mark.parametrize(
    ("fault", "as_json"),
    [
        (Fault(), True),
        (Fault(status=401, body=json.dumps({"error": f"Bad token {SECRET}"}).encode()), False),
        (Fault(status=500, body=SECRET.encode()), True),
        (Fault(headers={"Location": f"file:///x?token={SECRET}"}), True),
        (Fault(headers={"Location": f"http://127.0.0.1:9/x?token={SECRET}"}), False),
        (Fault(headers={"Location": f"http://u:{SECRET}@127.0.0.1:9/x"}), False),
    ],
    ids=["fine", "echoed by a refusal", "echoed by an error", "in a bad address", "in a dead address", "as a login"],
)
def test_no_output_file_log_or_argument_holds_the_token(tmp_path: Path, fault: Fault, *, as_json: bool) -> None:
    with FaultyHub(small_lora()) as server:
        if fault != Fault():
            server.always["download"] = fault
        server.version = {"images": [{"url": f"{server.api}/picture?token={SECRET}", "type": "image"}]}
        home = tmp_path / "home"
        environment = {
            **os.environ,
            "HUBTOOL_HOME": str(home),
            "HUBTOOL_HUB": server.api,
            "HUBTOOL_TOKEN": SECRET,
            "HUBTOOL_TIMEOUT": "0.3",
        }
        program = "import logging, sys; logging.basicConfig(level=10); from hubtool.cli import main; main(sys.argv[1:])"
        words = [sys.executable, "-c", program, "install", str(MODEL), "--to", str(tmp_path / "loras"), "--debug", "-v"]
        words += ["--json"] * as_json
        ran = subprocess.run(words, env=environment, capture_output=True, cwd=tmp_path, check=False)
    for said in (ran.stdout, ran.stderr):
        place = said.find(SECRET.encode())
        assert place < 0, said[max(0, place - 200) : place + 50]
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert holders == []
    assert any(seen.headers.get("authorization") == f"Bearer {SECRET}" for seen in server.seen)


def test_httpx_logs_at_debug_level_hold_no_token(
    site: SmallSite, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBTOOL_TOKEN", SECRET)
    with caplog.at_level(logging.DEBUG):
        assert who_am_i(settings, site.url).name == "ann"
    assert SECRET not in caplog.text


KEYRING = '''
"""A keyring that keeps secrets in a file beside it."""
import json, pathlib
from keyring import errors
PLACE = pathlib.Path(__file__).with_name("secrets.json")

class Ring:
    priority = {priority}

def get_keyring():
    return Ring()

def _all():
    return json.loads(PLACE.read_text()) if PLACE.exists() else {{}}

def get_password(service, name):
    return _all().get(f"{{service}}/{{name}}")

def set_password(service, name, secret):
    if secret == "refused":
        raise errors.KeyringError("will not store refused")
    PLACE.write_text(json.dumps(_all() | {{f"{{service}}/{{name}}": secret}}))

def delete_password(service, name):
    PLACE.write_text(json.dumps({{k: v for k, v in _all().items() if k != f"{{service}}/{{name}}"}}))
'''


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package `keyring` with a small keyring of ours; the folder that it keeps secrets in."""
    folder = tmp_path / "site" / "keyring"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(KEYRING.format(priority=5))
    (folder / "errors.py").write_text("class KeyringError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in ("keyring", "keyring.errors"):
        sys.modules.pop(name, None)


def test_a_keyring_that_is_installed_holds_the_key_and_the_file_does_not(
    site: SmallSite, settings: Settings, keyring: Path
) -> None:
    assert log_in(settings, site.url, SECRET).source == "keyring"
    path = settings.directories.config / "tokens.json"
    assert SECRET not in path.read_text()
    assert SECRET in (keyring / "secrets.json").read_text()
    assert (who_am_i(settings, site.url).name, who_am_i(settings, site.url).source) == ("ann", "keyring")
    assert log_out(settings, site.url)
    assert SECRET not in (keyring / "secrets.json").read_text()


def test_a_keyring_that_refuses_is_reported_without_the_key(settings: Settings, keyring: Path) -> None:
    store = Store(settings.directories.config / "tokens.json")
    with pytest.raises(StorageProblem) as caught:
        store.write("civitai", "refused")
    assert "refused (KeyringError)" in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_keyring_that_has_nothing_to_keep_secrets_in_is_passed_over(
    site: SmallSite, settings: Settings, keyring: Path
) -> None:
    (keyring / "__init__.py").write_text(KEYRING.format(priority=0))
    assert log_in(settings, site.url, SECRET).source.endswith("tokens.json")
