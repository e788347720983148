"""Whether installed files still are what they were: by header and size, or by every byte against all hashes that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.library.digest import digests_of
from hubtool.library.problem import LibraryFinding
from hubtool.library.walking import stamp_of
from hubtool.operations.validate import check_header, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Digests, Installed, Origin
    from hubtool.operations.rules.problem import Problem


def verify(
    index: Index, models: Sequence[Installed], *, full: bool, progress: Callable[[Installed], None] | None = None
) -> Iterator[LibraryFinding]:
    """Everything that is wrong with these files; what is found to be right is remembered with its hashes.

    Quick: each is a sound adapter by its header, and as long as that says. Full: each is read whole, its values are usable
    numbers, and its hashes are what they were when they were first computed, and what the hub published.
    """
    for model in models:
        if progress:
            progress(model)
        try:
            yield from _findings(model, check_header(model.path) if not full else _all_problems(model))
            if full:
                yield from _content(index, model)
        except HubtoolError as error:
            yield LibraryFinding("unreadable", "error", model.path, str(error), _again(model))


def _all_problems(model: Installed) -> Sequence[Problem]:
    return validate(model.path, check_all_values=True).problems


def _findings(model: Installed, problems: Iterable[Problem]) -> Iterator[LibraryFinding]:
    for problem in problems:
        if problem.severity in {"error", "refused"}:
            yield LibraryFinding(problem.code, "error", model.path, problem.message, _again(model))


def _content(index: Index, model: Installed) -> Iterator[LibraryFinding]:
    before, stamp = model.digests, stamp_of(model.path.stat())
    now = digests_of(model.path)
    if before.sha256 and before.sha256 != now.sha256:
        message = f"{model.name} has other bytes than when it was hashed, though size and time are the same."
        yield LibraryFinding("changed", "error", model.path, message, _again(model))
        return
    published = hub_sha256(model.origin)
    converted = bool(model.origin and model.origin.source_sha256)
    if published and not converted and now.sha256 not in published:
        message = f"{model.name} is not the file that its hub published for this version."
        yield LibraryFinding("not_as_published", "warning", model.path, message, _again(model))
    if not before.sha256 and stamp == model.stamp:
        with index.writing():
            index.store_digests(_with(model, now))


def hub_sha256(origin: Origin | None) -> frozenset[str]:
    """SHA-256 of every file of the version as the hub published it."""
    files = origin.snapshot.get("files") if origin else None
    hashes = (file.get("hashes") for file in files if isinstance(file, dict)) if isinstance(files, list) else ()
    found = (table.get("SHA256") for table in hashes if isinstance(table, dict))
    return frozenset(digits.lower() for digits in found if isinstance(digits, str))


def _with(model: Installed, digests: Digests) -> Installed:
    return replace(model, digests=digests)


def _again(model: Installed) -> str:
    """How to get the file once more."""
    origin = model.origin
    if origin and origin.hub and origin.version_id:
        hub = "" if origin.hub == "civitai" else f" --hub {origin.hub}"
        return f"hubtool install v:{origin.version_id} --force{hub}"
    return "Get the file again from where it came; nothing here knows its source."
