from dataclasses import replace
from pathlib import Path

import pytest

from hubtool.errors import UsageProblem
from hubtool.hubs.opening import open_hub
from hubtool.hubs.tokens import CIVITAI, CIVITAI_ORIGINS, token_for
from hubtool.settings import Directories, Settings

SETTINGS = Settings(Directories(Path(), Path(), Path()), hubs={"mine": "https://loras.example.org/api/v1/"})


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HUBTOOL_TOKEN", *CIVITAI):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("mine", "https://loras.example.org"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/api/v1", "http://127.0.0.1:8080"),
        ("HTTP://LOCALHOST:80/", "http://localhost"),
        ("https://example.org/proxy/civitai/api/v1/", "https://example.org/proxy/civitai"),
    ],
)
def test_a_hub_is_chosen_by_its_name_or_address(name: str, base: str) -> None:
    site = open_hub(SETTINGS, name).client.site
    assert site.base == base
    assert site.origins == {base.partition("/proxy")[0]}


def test_civitai_is_the_default_and_one_credential_domain() -> None:
    site = open_hub(SETTINGS).client.site
    assert site.origins == CIVITAI_ORIGINS == open_hub(SETTINGS, "https://civitai.com").client.site.origins
    assert open_hub(replace(SETTINGS, hub="mine")).name == "mine"


@pytest.mark.parametrize(
    "name",
    ["nosuch", "127.0.0.1:8080", "ftp://example.org", "https://", "https://u:p@h", "https://h?token=x"],
)
def test_what_is_no_hub_is_refused_without_repeating_a_secret(name: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        open_hub(SETTINGS, name)
    assert "token=x" not in str(caught.value)
    assert "u:p" not in str(caught.value)


def test_the_token_for_any_hub_comes_before_those_of_civitai() -> None:
    everything = {name: name.lower() for name in ("HUBTOOL_TOKEN", *CIVITAI)}
    for name in ("HUBTOOL_TOKEN", *CIVITAI):
        assert token_for("https://civitai.red", everything) == name.lower()
        del everything[name]
    assert token_for("https://civitai.red", everything) == ""


@pytest.mark.parametrize(
    "origin", ["http://civitai.com", "https://evilcivitai.com", "https://b2.civitai.com", "http://127.0.0.1:1"]
)
def test_civitais_token_goes_to_its_own_https_hosts_only(origin: str) -> None:
    assert token_for(origin, {"CIVITAI_TOKEN": "secret"}) == ""


def test_a_token_with_a_line_break_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageProblem) as caught:
        token_for("https://civitai.com", {"HUBTOOL_TOKEN": "abc\ndef"})
    assert "abc" not in str(caught.value)


def test_a_token_is_in_no_representation() -> None:
    assert token_for("https://civitai.com", {"HUBTOOL_TOKEN": " secret \n"}) == "secret"
    from hubtool.hubs.question import Site

    assert "secret" not in repr(Site("https://civitai.com", frozenset(), "secret"))
