"""Newer versions of what is installed: of the same base model, published after it, and not put aside by the user.

A model's page holds versions for several base models, so "the first of the list" is no answer, nor is "any version
that is missing".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError, LibraryProblem
from hubtool.hubs.hub import choose_file
from hubtool.hubs.opening import open_hub
from hubtool.library.acquire import Order, acquire
from hubtool.library.install import Wish
from hubtool.library.sidecar import choose_sidecars
from hubtool.library.target import Place, target_named
from hubtool.library.tidying import Tidier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hubtool.hubs.hub import Hub, Model, Version
    from hubtool.library.acquire import Outcome
    from hubtool.library.index import Index
    from hubtool.library.record import Installed
    from hubtool.settings import Settings

PIN = "pin"  # in the user's tags: never updated
IGNORE = "ignore:"  # followed by a version's id


@dataclass(frozen=True, slots=True)
class Update:
    """One installed file and what there is instead; the fields are the contract's."""

    name: str
    path: Path
    installed: str  # version id
    available: str | None
    available_name: str | None
    size_bytes: int | None
    reason: str  # newer, variant, current, pinned, early_access, unknown_origin, or what the hub said
    spec: str | None = None


def updates(hub: Hub, models: Sequence[Installed], *, variants: bool, early_access: bool) -> Iterator[Update]:
    """What there is for each file, in order; a hub that fails for one is said in its row."""
    pages: dict[str, Model | HubtoolError] = {}
    for one in models:
        origin = one.origin
        if origin is None or not origin.model_id.isdecimal() or not origin.version_id:
            yield _row(one, "unknown_origin")
            continue
        if PIN in one.own.tags:
            yield _row(one, "pinned")
            continue
        if origin.model_id not in pages:
            pages[origin.model_id] = _page(hub, origin.model_id)
        page = pages[origin.model_id]
        if isinstance(page, HubtoolError):
            yield _row(one, str(page))
        else:
            yield from _offers(one, page, variants=variants, early_access=early_access)


def _page(hub: Hub, model_id: str) -> Model | HubtoolError:
    try:
        return hub.model(int(model_id))
    except HubtoolError as error:
        return error


def _offers(one: Installed, page: Model, *, variants: bool, early_access: bool) -> Iterator[Update]:
    """The newest version of the same family; with `variants`, the newest of every other base model too."""
    origin = one.origin
    mine = next((version for version in page.versions if origin and str(version.id) == origin.version_id), None)
    base = mine.base_model if mine else one.base_model
    since = (mine.published_at if mine else None) or ""
    ignored = {tag.removeprefix(IGNORE) for tag in one.own.tags if tag.startswith(IGNORE)}
    families: dict[str, Version] = {}
    waiting = False
    for version in sorted(page.versions, key=lambda version: version.published_at or "", reverse=True):
        if version is mine or str(version.id) in ignored or not version.files:
            continue
        if is_early_access(version) and not early_access:
            waiting = waiting or version.base_model == base
            continue
        if version.base_model != base or (version.published_at or "") > since:
            families.setdefault(version.base_model, version)
    if base in families:
        yield _offer(one, families[base], "newer")
    else:
        yield _row(one, "early_access" if waiting else "current")
    if variants:
        yield from (_offer(one, version, "variant") for family, version in families.items() if family != base)


def is_early_access(version: Version) -> bool:
    """Whether a version is for paying users for now, as its record says."""
    return str(version.raw.get("availability", "")) == "EarlyAccess" or not version.downloadable


def _offer(one: Installed, version: Version, reason: str) -> Update:
    try:
        size = choose_file(version).size_bytes
    except HubtoolError:  # only pickles, or several: `install` will say so
        size = None
    return Update(
        one.name,
        one.path,
        one.origin.version_id if one.origin else "",
        str(version.id),
        version.name,
        size,
        reason,
        f"v:{version.id}",
    )


def _row(one: Installed, reason: str) -> Update:
    return Update(one.name, one.path, one.origin.version_id if one.origin else "", None, None, None, reason)


def find_updates(
    index: Index, settings: Settings, names: Sequence[str], *, variants: bool = False, early_access: bool = False
) -> list[Update]:
    """What there is for the files of these names, or for everything that came from a hub.

    Raises:
        NotInstalled: no such file. UsageProblem: no such hub.
    """
    chosen = Tidier(index, settings).find_all(names)
    models = chosen or [one for one in index.adapters() if one.origin and one.origin.version_id]
    return list(updates(open_hub(settings), models, variants=variants, early_access=early_access))


def fetch_updates(
    index: Index, settings: Settings, found: Sequence[Update], say: Callable[[str], None], *, replace: bool
) -> list[tuple[Path, Outcome]]:
    """Install what is newer into the folder of the old file, which goes into the trash if it is to be replaced."""
    done = []
    for one in found:
        old = index.at(one.path)
        if one.spec is None or old is None:
            continue
        deep = any(folder.deep and folder.path == old.folder for folder in index.folders())
        place = Place(target_named(old.target), old.folder, deep)
        inside = old.path.parent.relative_to(old.folder).as_posix()
        wish = Wish(subdir="" if inside == "." else inside, sidecars=choose_sidecars(None, place.target.sidecars))
        (outcome,) = acquire(settings, [one.spec], Order(place, wish), say)
        done.append((one.path, outcome))
        if outcome.installation and replace and outcome.installation.path != one.path:
            try:
                Tidier(index, settings).trash([str(one.path)])
            except LibraryProblem as error:
                say(f"The old file stays beside the new one: {error}")
    return done
