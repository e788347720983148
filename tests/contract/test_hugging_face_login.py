"""The token of a login to Hugging Face: found where huggingface_hub finds it, and renewed by it where only it can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from contract.small_site import Asked, Page, SmallSite, page

from hubtool.errors import NeedsToken
from hubtool.hubs.hugging_face_login import token_of_login

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"HF_HOME": "{root}/own"},
    {"XDG_CACHE_HOME": "{root}/cache"},
    {"HF_TOKEN_PATH": "{root}/elsewhere/t"},
    {"HF_TOKEN_PATH": "$PLACE/elsewhere/t", "PLACE": "{root}"},
    {"HF_HOME": "~/own2"},
    {"HF_HOME": "{root}/own", "XDG_CACHE_HOME": "{root}/cache", "HF_TOKEN_PATH": "{root}/elsewhere/t"},
    {"HF_HOME": "{root}/nowhere"},
]
PLACES = ("home/.cache/huggingface/token", "own/token", "cache/huggingface/token", "elsewhere/t", "home/own2/token")


def surroundings(root: Path, fields: dict[str, str]) -> dict[str, str]:
    named = {name: value.format(root=root) for name, value in fields.items()}
    return {"HOME": str(root / "home"), "PATH": os.environ["PATH"], "HUBTOOL_HOME": str(root / "hubtool")} | named


@pytest.mark.parametrize("fields", ENVIRONMENTS, ids=lambda fields: "+".join(fields) or "nothing")
def test_the_file_is_where_huggingface_hub_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    pytest.importorskip("huggingface_hub")
    for number, place in enumerate(PLACES):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(f"hf_number{number}\n")
    environment = surroundings(tmp_path, fields)
    words = [sys.executable, "-c", "from huggingface_hub import get_token; print(get_token() or '')"]
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert token_of_login(environment, may_ask=False).value == said
    assert bool(said) == ("nowhere" not in str(fields))


def test_a_login_that_is_not_to_be_used_unasked_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    environment = {"HF_HOME": str(tmp_path)}
    assert token_of_login(environment, may_ask=True).value == "hf_secret"
    assert token_of_login(environment | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, may_ask=True).value == ""


# ---------------------------------------------------------------- a login by browser


def log_in_by_browser(root: Path, expires_s: float) -> None:
    """As `hf auth login` leaves it: the token, and beside it how to renew it."""
    (root / "hf").mkdir()
    (root / "hf" / "token").write_text("hf_old")
    fields = f"[me]\nhf_token = hf_old\nrefresh_token = renew_me\nexpires_at = {int(time.time() + expires_s)}\n"
    (root / "hf" / "stored_tokens").write_text(fields)


def ask(site: SmallSite, root: Path, *words: str, **fields: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(root, {"HF_HOME": str(root / "hf"), "HF_ENDPOINT": site.url, **fields})
    command = [sys.executable, "-c", "from hubtool.cli import main; main()", "info", "hf:me/ink", "--json", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)


@pytest.fixture
def site() -> Iterator[SmallSite]:
    pytest.importorskip("huggingface_hub.utils._oauth_device")
    with SmallSite() as running:
        running.pages["/oauth/token"] = page(
            {"access_token": "hf_new", "refresh_token": "renew_me_too", "expires_in": 9999999}
        )
        running.pages["/api/models/me/ink"] = page({"id": "me/ink"})
        yield running


def test_a_token_that_ran_out_is_renewed(site: SmallSite, tmp_path: Path) -> None:
    log_in_by_browser(tmp_path, -60)
    ended = ask(site, tmp_path)
    assert json.loads(ended.stdout)["id"] == "me/ink", ended.stderr
    assert site.paths() == ["/oauth/token", "/api/models/me/ink"]
    assert site.asked[-1].headers["authorization"] == "Bearer hf_new"
    assert (tmp_path / "hf" / "token").read_text() == "hf_new"
    assert "hf_new" not in ended.stdout + ended.stderr


def test_one_that_is_good_for_long_is_used_as_it_is(site: SmallSite, tmp_path: Path) -> None:
    log_in_by_browser(tmp_path, 90 * 86400)
    ask(site, tmp_path)
    assert site.paths() == ["/api/models/me/ink"]
    assert site.asked[-1].headers["authorization"] == "Bearer hf_old"


def test_offline_nobody_is_asked_for_a_fresh_one(site: SmallSite, tmp_path: Path) -> None:
    log_in_by_browser(tmp_path, -60)
    assert ask(site, tmp_path, "--offline").returncode == 14
    assert not site.asked


def test_one_that_cannot_be_renewed_is_tried_and_the_hub_says_no(site: SmallSite, tmp_path: Path) -> None:
    log_in_by_browser(tmp_path, -60)
    site.pages["/oauth/token"] = page({"error": "invalid_grant"}, 400)

    def refuse(asked: Asked) -> Page:
        return page({"error": "Invalid token"}, 401 if asked.headers.get("authorization") else 200)

    site.pages["/api/models/me/ink"] = refuse
    ended = ask(site, tmp_path)
    assert (ended.returncode, json.loads(ended.stdout)["error"]["code"]) == (3, "needs_token")
    assert "hf_old" not in ended.stdout + ended.stderr


def test_a_trusted_publisher_without_a_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub._oidc")
    for name in ("HF_TOKEN", "HF_OIDC_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_OIDC_RESOURCE", "me/ink")
    with pytest.raises(NeedsToken, match=r"no token \(OIDCError\), for HF_OIDC_RESOURCE"):
        token_of_login({"HF_OIDC_RESOURCE": "me/ink", "HF_HOME": str(tmp_path)}, may_ask=True)
