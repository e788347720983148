"""Whether installed files still are what they were: by header and size, or by every byte against all hashes that are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hubtool.errors import HubtoolError
from hubtool.library.digest import digests_of
from hubtool.library.problem import LibraryFinding
from hubtool.library.published import fetch_again, published_files
from hubtool.library.walking import stamp_of
from hubtool.operations.validate import check_header, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hubtool.library.index import Index
    from hubtool.library.record import Digests, Installed


def verify(
    index: Index, models: Sequence[Installed], *, full: bool, progress: Callable[[Installed], None] | None = None
) -> Iterator[LibraryFinding]:
    """Everything that is wrong with these files; what is found to be right is remembered with its hashes.

    Quick: each is a sound adapter by its header, and as long as that says. Full: each is read whole, its values are usable
    numbers, and its hashes are what they were when they were first computed, what the hub published, and what its header states.
    """
    for model in models:
        if progress:
            progress(model)
        try:
            problems = validate(model.path, check_all_values=True).problems if full else check_header(model.path)
            for problem in problems:
                if problem.severity in {"error", "refused"}:
                    yield _finding(index, model, problem.code, problem.message)
            if full:
                yield from _content(index, index.with_snapshot(model))
        except HubtoolError as error:
            yield _finding(index, model, "unreadable", str(error))


def _finding(index: Index, model: Installed, code: str, message: str, severity: str = "error") -> LibraryFinding:
    return LibraryFinding(code, severity, model.path, message, fetch_again(index.with_snapshot(model)))


def _content(index: Index, model: Installed) -> Iterator[LibraryFinding]:
    before, stamp = model.digests, stamp_of(model.path.stat())
    now = digests_of(model.path)
    if before.sha256 and before.sha256 != now.sha256:
        message = f"{model.name} has other bytes than when it was hashed, though size and time are the same."
        yield _finding(index, model, "changed", message)
        return
    yield from _against_claims(index, model, now)
    if not before.sha256 and stamp == model.stamp:
        with index.writing():
            index.store_digests(replace(model, digests=now))


def _against_claims(index: Index, model: Installed, now: Digests) -> Iterator[LibraryFinding]:
    """What the hub published, and else what the header states, differ from the bytes.

    Damage keeps the size of a file; one of another size that is sound was converted or edited by somebody.
    """
    published = published_files(model.origin)
    if any(file.sha256 == now.sha256 for file in published):
        return
    if published and not (model.origin and model.origin.source_sha256):
        message = f"{model.name} is not the file that its hub published for this version"
        if now.autov3 and any(file.autov3 == now.autov3 for file in published):
            yield _finding(index, model, "not_as_published", f"{message}: its header was edited.", "warning")
        elif any(file.has_size(model.stamp.size_bytes) for file in published):
            yield _finding(index, model, "not_as_published", f"{message}.")
        else:
            message += ", and has another size: it was converted, edited or replaced."
            yield _finding(index, model, "not_as_published", message, "warning")
    elif (stated := model.facts.embedded_hash) and now.tensors_sha256 and not now.tensors_sha256.startswith(stated):
        message = f"The tensors of {model.name} hash to {now.tensors_sha256[:12]}…, its header states {stated[:12]}…."
        yield _finding(index, model, "not_as_stated", message, "warning")  # tools that re-order tensors copy the claim
