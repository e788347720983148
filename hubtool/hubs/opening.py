"""From the hub's name or address, as the user gave it, to a hub that can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hubtool.errors import UsageProblem
from hubtool.hubs.addresses import origin
from hubtool.hubs.arcenciel import ArcEnCiel
from hubtool.hubs.civarchive import CivArchive
from hubtool.hubs.civitai import CivitaiHub
from hubtool.hubs.client import Client
from hubtool.hubs.huggingface import HuggingFace
from hubtool.hubs.link_lists import LinkList, checked_source
from hubtool.hubs.modelscope import ModelScope
from hubtool.hubs.places import (
    ARC_EN_CIEL,
    CIVARCHIVE,
    CIVITAI_API,
    CIVITAI_ORIGINS,
    CIVITAI_PAGES,
    HUGGING_FACE_ORIGINS,
    MODELSCOPE,
    MODELSCOPE_ORIGINS,
    hugging_face_endpoint,
)
from hubtool.hubs.question import Site
from hubtool.hubs.rate import Rate
from hubtool.hubs.sources import Sources
from hubtool.hubs.tokens import Store, refuse_plain, token_in_force
from hubtool.hubs.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.hubs.hub import Catalogue, Hub
    from hubtool.settings import Settings


def open_hub(settings: Settings, name: str = "") -> Hub:
    """The hub called `name` (default: the settings' ones): one of NAMES, a name of the config, or a base URL.

    Civitai is followed by the hubs of the setting `fallback`, which are asked for what it does not have.

    Raises:
        UsageProblem: no hub has this name, or the address is none.
    """
    opening = _Opening(settings, Traffic(Rate(settings.limit_bytes_s)))
    asked = [name] if name else [settings.hub, *settings.further_hubs]
    in_use = [opening.catalogue(entry, in_use=True) for entry in dict.fromkeys(asked)]
    further = [entry for entry in settings.fallback if entry not in asked] if asked == ["civitai"] else []
    first = in_use[0].client.site.base
    pages = CIVITAI_PAGES if asked[0] == "civitai" else first
    return Sources(in_use, [opening.catalogue(entry) for entry in further], opening.catalogue, pages)


def site_of(settings: Settings, name: str) -> Site:
    """Where the hub called `name` lives, with the token for it as the hub in use.

    Raises:
        UsageProblem: no hub has this name, or the address is none.
    """
    return _Opening(settings, Traffic()).catalogue(name, in_use=True).client.site


@dataclass(frozen=True, slots=True)
class _Known:
    """A hub with a file of its own."""

    open: Callable[[str, Client], Catalogue]
    addresses: tuple[str, ...] = ()
    family: frozenset[str] = frozenset()  # origins that are one credential domain


def _civitai(name: str, client: Client) -> Catalogue:
    """Civitai's API is at one address and its pages for people at another."""
    return CivitaiHub(name, client, CIVITAI_PAGES if client.site.base == CIVITAI_API[0] else "")


_KNOWN: Mapping[str, _Known] = {
    "civitai": _Known(_civitai, CIVITAI_API, CIVITAI_ORIGINS),
    "huggingface": _Known(HuggingFace, (), HUGGING_FACE_ORIGINS),  # its address may be in the environment
    "civarchive": _Known(CivArchive, (CIVARCHIVE,)),
    "arcenciel": _Known(ArcEnCiel, (ARC_EN_CIEL,)),
    "modelscope": _Known(ModelScope, (MODELSCOPE,), MODELSCOPE_ORIGINS),
}
NAMES = (*_KNOWN, "sample")


@dataclass(frozen=True, slots=True)
class _Opening:
    """One run's way to its hubs, which share what is known about hosts."""

    settings: Settings
    traffic: Traffic

    def catalogue(self, name: str, *, in_use: bool = False) -> Catalogue:
        """One remote place by its name or address; `in_use` if HUBTOOL_TOKEN is for it."""
        known = _KNOWN.get(name)
        if known is None:
            return self._other(name, in_use=in_use)
        usual = known.addresses or (hugging_face_endpoint(),)
        return known.open(name, self._client(self._addresses(name, usual), known.family, in_use=in_use))

    def _other(self, name: str, *, in_use: bool) -> Catalogue:
        if name == "sample":
            return CivitaiHub(name, self._client((_serve_sample(),), in_use=in_use))
        if name.startswith("list:"):
            return LinkList(checked_source(name[5:]), self.settings, self.traffic)
        addresses = self._addresses(name, (name,))
        if "://" in addresses[0]:
            return CivitaiHub(name, self._client(addresses, in_use=in_use))
        known = ", ".join([*NAMES, *(entry for entry in self.settings.hubs if entry not in NAMES)])
        raise UsageProblem(
            f"There is no hub called {name}.",
            hint=f"Known: {known}; or give an address, such as http://127.0.0.1:8080.",
        )

    def _addresses(self, name: str, usual: tuple[str, ...]) -> tuple[str, ...]:
        """The addresses of a hub: those of the config, separated by commas, else the usual ones; the first is asked first."""
        configured = [part.strip() for part in self.settings.hubs.get(name, "").split(",")]
        return tuple(part for part in configured if part) or usual

    def _client(
        self, addresses: tuple[str, ...], relatives: frozenset[str] = frozenset(), *, in_use: bool = False
    ) -> Client:
        """The client of a hub; where it lives at one of its relatives' origins, all of them are one credential domain."""
        bases = [_base(address) for address in addresses]
        own = origin(bases[0])
        family = next((family for family in (relatives, CIVITAI_ORIGINS) if own in family), frozenset({own}))
        store = Store(self.settings.directories.config / "tokens.json")
        token = token_in_force(own, store, in_use=in_use, may_ask=not self.settings.offline)
        if token.value:
            refuse_plain(own, token.source)
        site = Site(bases[0], family, token.value, tuple(bases[1:]), token.source)
        return Client(site, self.settings, self.traffic)


def _base(address: str) -> str:
    """The base of a hub's address, which may end in `/api/v1`.

    Raises:
        UsageProblem: it is no address.
    """
    try:
        parts = urlsplit(address)
        own = origin(address)
    except ValueError as error:
        raise UsageProblem(f"This is no address of a hub: {address}") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise UsageProblem(
            "A hub's address has the form http(s)://HOST[:PORT][/PATH].", hint="Tokens go into HUBTOOL_TOKEN."
        )
    return own + parts.path.rstrip("/").removesuffix("/api/v1").rstrip("/")


def _serve_sample() -> str:
    """Start the embedded hub on a free loopback port, for as long as this process lives; its address."""
    from hubtool.hubs.sample.server import serve  # noqa: PLC0415  # pulls in the generators of the sample files

    return serve()
