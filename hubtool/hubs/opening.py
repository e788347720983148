"""From the hub's name or address, as the user gave it, to a hub that can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hubtool.errors import UsageProblem
from hubtool.hubs.addresses import origin
from hubtool.hubs.civitai import CivitaiHub
from hubtool.hubs.client import Client, Site
from hubtool.hubs.tokens import CIVITAI_ORIGINS, token_for

if TYPE_CHECKING:
    from hubtool.hubs.hub import Hub
    from hubtool.settings import Settings

# civitai.com does not answer for every mature model since April 2026, civitai.red answers for all; one account serves both
CIVITAI_API = "https://civitai.red"
CIVITAI_PAGES = "https://civitai.com"
_LATER = ("huggingface", "civarchive")


def open_hub(settings: Settings, name: str = "") -> Hub:
    """The hub called `name` (default: the settings' one): civitai, sample, a name of the config, or a base URL.

    Raises:
        UsageProblem: no hub has this name, or the address is none.
    """
    name = name or settings.hub
    if name == "civitai":
        site = Site(CIVITAI_API, CIVITAI_ORIGINS, token_for(CIVITAI_API))
        return CivitaiHub(name, Client(site, settings), CIVITAI_PAGES)
    if name == "sample":
        return CivitaiHub(name, Client(_site(_serve_sample()), settings))
    address = settings.hubs.get(name, name)
    if "://" in address:
        return CivitaiHub(name, Client(_site(address), settings))
    if name in _LATER:
        raise UsageProblem(f"The hub {name} cannot be asked by this version of hubtool.", hint="Use --hub civitai.")
    known = ", ".join(["civitai", "sample", *settings.hubs])
    raise UsageProblem(
        f"There is no hub called {name}.", hint=f"Known: {known}; or give an address, such as http://127.0.0.1:8080."
    )


def _site(address: str) -> Site:
    """The site at an address that may end in `/api/v1`."""
    try:
        parts = urlsplit(address)
        own = origin(address)
    except ValueError as error:
        raise UsageProblem(f"This is no address of a hub: {address}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise UsageProblem(
            "A hub's address has the form http(s)://HOST[:PORT][/PATH].", hint="Tokens go into HUBTOOL_TOKEN."
        )
    path = parts.path.rstrip("/").removesuffix("/api/v1").rstrip("/")
    return Site(own + path, CIVITAI_ORIGINS if own in CIVITAI_ORIGINS else frozenset({own}), token_for(own))


def _serve_sample() -> str:
    """Start the embedded hub on a free loopback port, for as long as this process lives; its address."""
    from hubtool.hubs.sample.server import serve  # noqa: PLC0415  # pulls in the generators of the sample files

    return serve()
