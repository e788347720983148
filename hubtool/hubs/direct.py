"""A file that is named by its address alone: nothing is known of it but that."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from hubtool.hubs.hub import Model, RemoteFile, Resolved, Version


def resolved_link(url: str) -> Resolved:
    """The one file behind an address, as a version without ids, size or hashes.

    >>> resolved_link("https://example.org/a/style%20one.safetensors?download=1").file.name
    'style one.safetensors'
    """
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    file = RemoteFile(id="", name=name, url=url, primary=True)
    version = Version(id="", model_id="", name="", files=(file,))
    return Resolved("", Model(id="", name=name, versions=(version,)), version, file)
