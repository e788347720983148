"""Files behind bare addresses on hosts that we know: some say more about a file, some hand it to browsers only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, Field

from hubtool.errors import BrowserNeeded
from hubtool.hubs.addresses import public_url
from hubtool.hubs.hub import RemoteFile
from hubtool.hubs.link_hosts import judge, pixeldrain_id
from hubtool.hubs.question import Question
from hubtool.hubs.tolerant import Count, Line, Tolerant, read, sha256_digits

if TYPE_CHECKING:
    from hubtool.hubs.client import Client

PIXELDRAIN = "https://pixeldrain.com"


class _Drained(Tolerant):
    """`GET /api/file/{id}/info` of pixeldrain."""

    name: Line = ""
    size_bytes: Count = Field(None, validation_alias="size")
    sha256: Annotated[str, BeforeValidator(sha256_digits)] = Field("", validation_alias="hash_sha256")


def hosted_file(url: str, client: Client, label: str = "", mirrors: tuple[str, ...] = ()) -> RemoteFile:
    """The file behind an address; `label` is its name where the address has none that means anything.

    Raises:
        BrowserNeeded: the host hands files to people only.
    """
    verdict = judge(url)
    if verdict.kind in {"manual", "expired"}:
        raise BrowserNeeded(f"This address is not fetched: {verdict.reason}.", url=public_url(url))
    drained = pixeldrain_id(url)
    if drained:
        return _from_pixeldrain(drained, client, label, mirrors)
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    suffix = ".zip" if verdict.kind == "archive" else ".safetensors"
    # dots in a label are no extension: "v1.5 style" is all name
    name = label if not label or label.lower().endswith(suffix) else label + suffix
    return RemoteFile(id=label, name=name or last, url=url, primary=True, mirrors=mirrors)


def _from_pixeldrain(file_id: str, client: Client, label: str, mirrors: tuple[str, ...]) -> RemoteFile:
    address = f"{PIXELDRAIN}/api/file/{file_id}"
    question = Question(f"{address}/info", 1 << 16, with_token=False)
    said = read(_Drained, client.ask(question).value(address), "pixeldrain")
    suffix = ".zip" if said.name.lower().endswith(".zip") else ".safetensors"
    return RemoteFile(
        id=label or file_id,
        name=f"{label}{suffix}" if label else said.name,
        url=f"{address}?download",
        size_bytes=said.size_bytes,
        primary=True,
        hashes={"sha256": said.sha256} if said.sha256 else {},
        mirrors=mirrors,
    )
