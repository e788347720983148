"""Results of `diff`, `conflicts` and `stats` in words and tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hubtool.cli._output import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubtool.operations.conflicts import Conflicts
    from hubtool.operations.diff import Diff
    from hubtool.operations.diff_modules import ModuleDiff
    from hubtool.operations.stats import Stats

_SHOWN = 10
_VERDICTS = {
    "identical": "identical: the same tensors and metadata",
    "same tensors": "the same tensors, other metadata",
    "equal": "equal: they do the same to the model, but for rounding",
    "different": "different",
}


def diff_text(found: Diff) -> str:
    """The verdict, then what differs."""
    lines = [f"{found.a.path.name} and {found.b.path.name} are {_VERDICTS[found.verdict]}"]
    for side in (found.a, found.b):
        what = f"{side.architecture}, {side.dialect} keys" if side.architecture else "no adapter"
        lines.append(f"  {side.path}: {what}, {side.tensors} tensors, {side.size_bytes / 1e6:.1f} MB")
    header, tensors = found.header, found.tensors
    lines.append(f"  metadata: {_counts(header.only_a, header.only_b, header.changed)}")
    lines.append(f"  tensors: {tensors.same} the same, {_counts(tensors.only_a, tensors.only_b, tensors.changed)}")
    if found.modules:
        lines += _modules(found)
    elif tensors.changed and found.verdict == "different":
        rows = [(t.key, " ".join(t.dtype), _number(t.relative_error)) for t in tensors.changed[:_SHOWN]]
        lines += ["", table(rows, ("Tensor", "Dtypes", "Error"))]
    return "\n".join([*lines, *(f"  Note: {note}" for note in found.notes)])


def _counts(only_a: Sequence[object], only_b: Sequence[object], changed: Sequence[object]) -> str:
    return f"{len(changed)} changed, {len(only_a)} only in the first, {len(only_b)} only in the second"


def _modules(found: Diff) -> list[str]:
    counts = Counter(row.status for row in found.modules)
    words = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    lines = [f"  modules: {words}"]
    if found.relative_error is not None:
        lines.append(f"  all changes: relative error {found.relative_error:.3g}, cosine {_number(found.cosine, 6)}")
    worst = sorted((r for r in found.modules if r.status not in {"equal", "nothing"}), key=_badness)[:_SHOWN]
    if worst and found.verdict == "different":
        rows = [(r.module, r.status, _number(r.relative_error), _number(r.cosine, 4)) for r in worst]
        lines += ["", table(rows, ("Module", "Status", "Error", "Cosine"))]
    return lines


def _badness(row: ModuleDiff) -> float:
    return -(row.relative_error if row.relative_error is not None else float("inf"))


def conflicts_text(found: Conflicts) -> str:
    """Files, pairs, and the blocks where one overpowers the others."""
    rows: list[Sequence[object]] = [
        (
            i,
            f.file.name,
            f"{f.strength:g}",
            _number(f.norm),
            _share(f.energy_share, 0),
            f.dominates,
            "–" if f.suggested_strength is None else f"{f.suggested_strength:g}",
        )
        for i, f in enumerate(found.files, 1)
    ]
    headings = ("No", "File", "Strength", "Norm", "Energy", "Dominates", "Suggested")
    lines = [table(rows, headings), ""]
    for pair in found.pairs:
        angle = "" if pair.cosine is None else f"cosine {pair.cosine:+.3f}, "
        shared = f"{pair.shared_modules} modules of both"
        lines.append(f"{pair.first} and {pair.second}: {angle}{_PAIRS[pair.verdict]}; {shared}")
    if found.together is not None:
        lines.append(f"Together they are {found.together:.2f} times as large as independent changes would be.")
    names = [f"{i}" for i in range(1, len(found.files) + 1)]
    pairs = [f"{p.first}·{p.second}" for p in found.pairs]
    blocks = [
        (b.block, *map(_number, b.norms), *(_number(c, 2) for c in b.cosines), b.dominant or "") for b in found.blocks
    ]
    lines += ["", table(blocks, ("Block", *(f"Norm {n}" for n in names), *(f"Cosine {p}" for p in pairs), "Dominant"))]
    return "\n".join([*lines, *(f"Note: {note}" for note in found.notes)])


_PAIRS = {
    "independent": "nearly independent",
    "alike": "doing much the same, so that they add up",
    "against": "working against each other",
    "unknown": "not known without the base model",
    "nothing": "nothing to compare, for one of them changes nothing",
}


def stats_text(found: Stats) -> str:
    """A summary and a table of blocks."""
    families = ", ".join(f"{count} {id}" for id, count in found.parametrizations.items())
    lines = [f"{found.path}: {found.architecture}, {found.dialect} keys, {found.modules} modules ({families})"]
    lines.append(f"  norm of the change   {'–' if found.norm is None else f'{found.norm:.4g}'}")
    if found.effective_rank is not None:
        lines.append(f"  effective rank       {found.effective_rank:.1f}")
        lines.append(f"  rank for 90 % / 99 % of the energy, in nine modules of ten: {found.rank_90} / {found.rank_99}")
    if found.untrained:
        lines.append(f"  {found.untrained} modules change nothing")
    rows = [(b.block, b.modules, _number(b.norm), _share(b.energy_share, 1)) for b in found.blocks]
    lines += ["", table(rows, ("Block", "Modules", "Norm", "Energy"))]
    largest = sorted((row for row in found.layers if row.rms), key=lambda row: -(row.rms or 0.0))[:_SHOWN]
    strong = [(r.module, r.rank or "", f"{r.rms:.2e}", _number(r.effective_rank, 1), r.rank_99 or "") for r in largest]
    if strong:
        lines += ["", table(strong, ("Strongest modules", "Rank", "RMS", "Effective rank", "Rank 99 %"))]
    return "\n".join([*lines, *(f"Note: {note}" for note in found.notes)])


def _share(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if digits is None else f"{value:.{digits}f}"
