"""A file that is named by its address alone: nothing is known of it but that, and what its host says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.hubs.hosted import hosted_file
from hubtool.hubs.hub import Model, Resolved, Version

if TYPE_CHECKING:
    from hubtool.hubs.client import Client


def direct_file(url: str, client: Client) -> Resolved:
    """The one file behind an address that somebody typed, as a version without ids.

    Raises:
        BrowserNeeded: the host hands files to people only.
    """
    file = hosted_file(url, client)
    version = Version(id="", model_id="", name="", files=(file,))
    return Resolved("", Model(id="", name=file.name, versions=(version,)), version, file)
