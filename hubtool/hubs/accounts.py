"""Who one is on a hub, and the token that says so: log in, log out, ask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import AliasPath, Field

from hubtool.errors import NeedsToken, NotFound, UsageProblem
from hubtool.hubs.addresses import origin
from hubtool.hubs.client import Client
from hubtool.hubs.opening import site_of
from hubtool.hubs.question import Question
from hubtool.hubs.tokens import Store, checked, key_of, refuse_plain
from hubtool.hubs.tolerant import Line, Tolerant, read

if TYPE_CHECKING:
    from hubtool.settings import Settings


_WITHOUT_ACCOUNTS = {"civarchive", "arcenciel", "modelscope", "sample"}


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token is in force on a hub."""

    hub: str
    name: str | None = None  # None: nobody
    tier: str = ""
    source: str = ""  # a variable's name, keyring, or a file
    checked: bool = False  # the hub was asked


class _Civitai(Tolerant):
    """`GET /api/v1/me`."""

    name: Line = Field("", validation_alias="username")
    tier: Line = ""


class _HuggingFace(Tolerant):
    """`GET /api/whoami-v2`."""

    name: Line = ""
    tier: Line = Field("", validation_alias=AliasPath("auth", "accessToken", "role"))


def store_of(settings: Settings) -> Store:
    """Where this user's tokens are."""
    return Store(settings.directories.config / "tokens.json")


def log_in(settings: Settings, hub: str, token: str, *, dry_run: bool = False) -> Account:
    """Store a token for a hub after the hub said whose it is; a trial asks, and stores nothing.

    Raises:
        NeedsToken: the hub does not know it. UsageProblem: it cannot be one, or the hub has no accounts.
        Offline: the hub cannot be asked.
    """
    token = checked(token, "The token")
    if not token:
        raise UsageProblem("The token is empty.", hint="Copy an API key from the hub's account page.")
    account = _verified(settings, hub, token)
    if dry_run:
        return account
    site = site_of(settings, hub)
    return replace(account, source=store_of(settings).write(key_of(origin(site.base)), token))


def log_out(settings: Settings, hub: str, *, dry_run: bool = False) -> bool:
    """Forget the stored token of a hub; whether there was one, or is one in a trial."""
    store, key = store_of(settings), key_of(origin(site_of(settings, hub).base))
    return bool(store.read(key).value) if dry_run else store.remove(key)


def who_am_i(settings: Settings, hub: str) -> Account:
    """Whose token is in force on a hub; offline, only where it comes from.

    Raises:
        NeedsToken: the hub does not accept it.
    """
    site = site_of(settings, hub)
    if not site.token:
        return Account(hub)
    if settings.offline:
        return Account(hub, None, "", site.token_source)
    return replace(_verified(settings, hub, site.token), source=site.token_source)


def _verified(settings: Settings, hub: str, token: str) -> Account:
    """Who the hub says this token belongs to."""
    site = site_of(settings, hub)
    if hub in _WITHOUT_ACCOUNTS:
        raise UsageProblem(f"Files of {hub} need no login.")
    refuse_plain(origin(site.base), "The key")
    client = Client(replace(site, token=token, alternates=()), settings)
    is_hugging = key_of(origin(site.base)) == "huggingface"
    try:
        url = client.url("/api/whoami-v2" if is_hugging else "/api/v1/me")
        said = client.ask(Question(url)).value(url)  # not kept: it says who one is
    except NeedsToken as error:
        hint = "Copy the API key again, or create a new one on the hub's account page."
        raise NeedsToken(f"{hub} does not accept this token.", url=error.url, hint=hint) from error
    except NotFound as error:
        raise UsageProblem(f"{hub} has no accounts that a program can ask for.") from error
    found = read(_HuggingFace, said, hub) if is_hugging else read(_Civitai, said, hub)
    return Account(hub, found.name, found.tier, checked=True)
