"""Whose files are these? Thousands at once by SHA-256, then by the hash of the tensors, then at the further hubs.

One question settles ten thousand files, one more a hundred names. What is left is asked for one by one, at the hub's pace, and
what nobody knew is not asked for again for a while. A hub that fails is not asked any further; what the others know stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import BadAnswer, HubProblem, NotFound
from hubtool.hubs.hub import Match, newest
from hubtool.hubs.spec import ByHash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubtool.hubs.answers import Misses
    from hubtool.hubs.civitai import CivitaiHub
    from hubtool.hubs.hub import Catalogue, Fingerprint


@dataclass(frozen=True, slots=True)
class Identities:
    """What was found, by SHA-256, and which hubs could not be asked to the end."""

    matches: Mapping[str, Match]
    failures: tuple[HubProblem, ...] = ()


def identify(
    first: CivitaiHub, further: Sequence[Catalogue], wanted: Sequence[Fingerprint], misses: Misses
) -> Identities:
    """Ask `first` for all of them at once, and `further` for those that it does not know.

    Raises:
        HubProblem: `first` refuses, or is away.
    """
    prints = {each.sha256.lower(): each for each in wanted}
    found = _at_once(first, sorted(prints), misses)
    failures: list[HubProblem] = []
    # the tensors' hash survives the tools that rewrite a file's metadata
    steps: list[tuple[Catalogue, str]] = [(first, "autov3"), *((hub, "sha256") for hub in further)]
    for hub, kind in steps:
        left = {digest: each.autov3 if kind == "autov3" else digest for digest, each in prints.items()}
        questions = {digest: ByHash(kind, value) for digest, value in left.items() if value and digest not in found}
        matches, failure = _one_by_one(hub, questions, misses)
        found |= matches
        failures += [failure] if failure else []
    return Identities(found, tuple(failures))


def _at_once(hub: CivitaiHub, digests: Sequence[str], misses: Misses) -> dict[str, Match]:
    recent = misses.recent(hub.name)
    asked = [digest for digest in digests if digest not in recent]
    found: dict[str, Match] = {}
    for match in hub.matches(asked):
        known = found.setdefault(match.sha256, match)
        if int(match.version_id) < int(known.version_id):  # the oldest is the one that the others copied
            found[match.sha256] = match
    misses.add(hub.name, set(asked) - set(found))
    return _described(hub, found)


def _described(hub: CivitaiHub, found: dict[str, Match]) -> dict[str, Match]:
    """The matches with what the hub says of each version, where it answers that for many at once."""
    try:
        for whole in hub.described(list(found)):
            match = found.get(whole.sha256)
            if match and match.version_id == whole.version_id:
                found[whole.sha256] = whole
    except (NotFound, BadAnswer):  # a smaller server; whoever needs more asks for each
        return found
    return found


def _one_by_one(
    hub: Catalogue, questions: Mapping[str, ByHash], misses: Misses
) -> tuple[dict[str, Match], HubProblem | None]:
    recent, missed = misses.recent(hub.name), set[str]()
    found: dict[str, Match] = {}
    failure: HubProblem | None = None
    for digest, wanted in questions.items():
        key = digest if wanted.kind == "sha256" else f"{wanted.kind}:{wanted.hexadecimal}"
        if key in recent:
            continue
        try:
            known = hub.look_up(wanted)
            version = known.version or newest(known.model)
        except NotFound:
            missed.add(key)
        except HubProblem as error:
            failure = error
            break
        else:
            found[digest] = Match(digest, known.model.id, version.id, hub.name, wanted.kind, known)
    misses.add(hub.name, missed)
    return found, failure
