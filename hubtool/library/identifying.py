"""Whose file is this? Hubs are asked by hash, for whole folders at once.

What a file was trained on is kept apart from what it fits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.formats.safetensors import read_safetensors
from hubtool.hubs.hub import Fingerprint, Resolved
from hubtool.library.companions import MODELS
from hubtool.library.digest import digests_of, hashed
from hubtool.library.facts import read_facts
from hubtool.library.finding import Finder
from hubtool.library.origins import origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hubtool.errors import HubProblem
    from hubtool.hubs.hub import Hub, Match
    from hubtool.library.index import Index
    from hubtool.library.record import Digests
    from hubtool.settings import Settings


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a file was trained on, each claim with its evidence; the architecture is not one."""

    claim: str  # a base model's name, or a checkpoint's hash
    evidence: str  # who says so


@dataclass(frozen=True, slots=True)
class Identified:
    """One file; the fields are the contract's."""

    path: Path
    sha256: str
    status: str  # found, unknown
    hub: str | None = None
    model_id: int | str | None = None
    version_id: int | str | None = None
    hash_kind: str | None = None  # by which it was found
    name: str | None = None
    base_model: str | None = None
    url: str | None = None
    architecture: str | None = None  # what its tensors fit
    lineage: tuple[Lineage, ...] = ()


def files_of(index: Index, settings: Settings, words: Iterable[str]) -> Iterator[Path]:
    """The files that names, paths and folders stand for.

    Raises:
        NotInstalled: a word is neither.
    """
    finder = Finder(index, settings)
    for word in words:
        path = Path(word)
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.suffix.lower() in MODELS and one.is_file())
        elif path.is_file():
            yield path
        else:
            yield finder.find(word).path


@dataclass(frozen=True, slots=True)
class Answered:
    """Every file in order, and which hubs could not be asked to the end."""

    files: tuple[Identified, ...]
    failures: tuple[HubProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class Identifier:
    """Asks hubs about files. With `save`, what they say of installed ones goes into the index, as if they came from there."""

    index: Index
    hub: Hub
    save: bool = False

    def identify(self, paths: Sequence[Path]) -> Answered:
        """Whose these files are: by SHA-256 and by the hash of the tensors.

        Raises:
            HubProblem: the hub cannot be asked. FileProblem, StorageProblem: a file cannot be read.
        """
        known = [(path, self._digests(path)) for path in paths]
        if not known:
            return Answered(())
        said = self.hub.identify([Fingerprint(digests.sha256, digests.autov3 or "") for _, digests in known])
        files = tuple(self._identified(path, digests, said.matches.get(digests.sha256)) for path, digests in known)
        return Answered(files, said.failures)

    def _digests(self, path: Path) -> Digests:
        installed = self.index.at(path.absolute())
        return hashed(self.index, installed).digests if installed and installed.is_there() else digests_of(path)

    def _identified(self, path: Path, digests: Digests, match: Match | None) -> Identified:
        installed = self.index.at(path.absolute())
        facts = installed.facts if installed and installed.is_there() else read_facts(path)
        trained = tuple(_trained_on(path))
        bare = Identified(path, digests.sha256, "unknown", architecture=facts.architecture, lineage=trained)
        if match is None:
            return bare
        ids = {"model_id": match.model_id or None, "version_id": match.version_id or None}
        bare = replace(bare, status="found", hub=match.hub, hash_kind=match.kind, **ids)  # type: ignore[arg-type]  # ids both
        resolved = self._resolved(match)
        return self._described(bare, resolved) if resolved else bare

    def _resolved(self, match: Match) -> Resolved | None:
        """What the hub says of a match; None where the ids are all there is."""
        found = match.found
        if found and found.version and found.file and not (self.save and match.kind == "sha256"):
            return Resolved(match.hub, found.model, found.version, found.file)
        try:  # what is to be kept is asked for in full
            return self.hub.resolve(f"v:{match.version_id}")
        except HubtoolError:  # archived, paid, with several files
            return None

    def _described(self, bare: Identified, resolved: Resolved) -> Identified:
        origin = origin_of(resolved)
        if self.save and (installed := self.index.at(bare.path.absolute())):
            with self.index.writing():
                self.index.store(replace(installed, origin=origin))
        said = (Lineage(origin.base_model, f"{resolved.hub}: base model of the version"),) if origin.base_model else ()
        return replace(
            bare,
            name=f"{resolved.model.name} {resolved.version.name}".strip(),
            base_model=origin.base_model or None,
            url=origin.url or None,
            lineage=(*said, *bare.lineage),
        )


def _trained_on(path: Path) -> Iterator[Lineage]:
    """What the header says of the checkpoint that was trained on; `ss_base_model_version` says the architecture only."""
    try:
        metadata = read_safetensors(path).metadata
    except HubtoolError:
        return
    name, digits = metadata.get("ss_sd_model_name", ""), metadata.get("ss_new_sd_model_hash", "")
    if name:
        yield Lineage(Path(name.replace("\\", "/")).name, "header: ss_sd_model_name")
    if digits:
        yield Lineage(f"checkpoint with SHA-256 {digits}", "header: ss_new_sd_model_hash")
