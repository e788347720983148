"""What the catalogues of single hubs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubtool.hubs.client import Client


class Remote:
    """What every catalogue is: a name, whose numbers its ids are (its own), and a connection."""

    def __init__(self, name: str, client: Client) -> None:
        self._name, self._client = name, client

    @property
    def name(self) -> str:
        """The name or base URL under which the user chose it."""
        return self._name

    @property
    def ids(self) -> str:
        """Its own: numbers, or names of repositories."""
        return self._name

    @property
    def client(self) -> Client:
        """The connection."""
        return self._client
