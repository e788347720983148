"""ModelScope: repositories of files in the manner of Hugging Face, with the SHA-256 of every file in its listing.

`GET /api/v1/models/{repo}/repo/files?Revision=master&Recursive=true`. Its storage honours a range and still answers 200, with a
Content-Range; the transfer goes by that header, so continuing works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from pydantic import AliasPath, BeforeValidator, Field

from hubtool.errors import BadSpec
from hubtool.hubs.hub import Found, Model, RemoteFile, SearchPage, Version, choose_file
from hubtool.hubs.remote import Remote
from hubtool.hubs.spec import ByRepository
from hubtool.hubs.text import one_line
from hubtool.hubs.tolerant import Count, Flag, Line, Tolerant, only_objects, read, sha256_digits

if TYPE_CHECKING:
    from hubtool.hubs.hub import Query
    from hubtool.hubs.spec import Spec

_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".bin", ".zip")


class _File(Tolerant):
    path: Line = Field("", validation_alias="Path")
    size_bytes: Count = Field(None, validation_alias="Size")
    sha256: Annotated[str, BeforeValidator(sha256_digits)] = Field("", validation_alias="Sha256")
    type: Line = Field("", validation_alias="Type")


class _Listing(Tolerant):
    ok: Flag = Field(None, validation_alias="Success")
    message: Line = Field("", validation_alias="Message")
    files: Annotated[list[_File], BeforeValidator(only_objects)] = Field(
        [], validation_alias=AliasPath("Data", "Files")
    )


class ModelScope(Remote):
    """`Catalogue` over modelscope.cn: repositories by name; it is not searched."""

    def search(self, query: Query) -> SearchPage:
        """Nothing: there is no documented search.

        Raises:
            BadSpec: always.
        """
        raise BadSpec(f"{self._name} cannot be searched for {query.text!r}.", hint="Name a repository: ms:OWNER/REPO.")

    def look_up(self, wanted: Spec) -> Found:
        """A repository at a revision, with the file if the SPEC names one."""
        if not isinstance(wanted, ByRepository):
            raise BadSpec("ModelScope knows repositories only.", hint="Write ms:OWNER/REPO[@REVISION][/FILE].")
        revision = wanted.revision or "master"
        parameters = [("Revision", revision), ("Recursive", "true")]
        path = f"/api/v1/models/{wanted.name}/repo/files"
        listing = read(_Listing, self._client.get_json(path, parameters, _refusal), self._name)
        files = [self._file(wanted.name, revision, entry) for entry in listing.files if _is_weights(entry)]
        safe = [file for file in files if file.name.endswith(".safetensors")]
        version = Version(
            id=revision, model_id=wanted.name, name=revision, files=tuple(files), must_choose=len(safe) > 1
        )
        owner, _, name = wanted.name.partition("/")
        url = f"{self._client.site.base}/models/{wanted.name}"
        model = Model(id=wanted.name, name=name, creator=owner, url=url, versions=(version,))
        return Found(model, version, choose_file(version, wanted.path) if wanted.path else None)

    def offer(self, version: Version, wanted: str) -> RemoteFile:
        """The file called so, else the only one."""
        return choose_file(version, wanted)

    def _file(self, repository: str, revision: str, entry: _File) -> RemoteFile:
        path = f"/models/{repository}/resolve/{quote(revision, safe='')}/{quote(entry.path)}"
        return RemoteFile(
            id=entry.path,
            name=entry.path.rpartition("/")[2],
            url=f"{self._client.site.base}{path}",
            size_bytes=entry.size_bytes,
            hashes={"sha256": entry.sha256} if entry.sha256 else {},
        )


def _refusal(value: object) -> str:
    """What an answer says against the question: errors come with status 200 too."""
    said = read(_Listing, value, "ModelScope") if isinstance(value, dict) else _Listing()
    return one_line(said.message) or "no reason given" if said.ok is False else ""


def _is_weights(entry: _File) -> bool:
    return entry.type != "tree" and entry.path.lower().endswith(_WEIGHTS)
