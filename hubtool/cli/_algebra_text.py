"""Results of `resize`, `merge` and `bake` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubtool.cli._algebra import ranks, size

if TYPE_CHECKING:
    from hubtool.operations.bake import Baking
    from hubtool.operations.merge import Merging
    from hubtool.operations.resize import Resizing


def resizing_text(found: Resizing) -> str:
    """A few lines for people."""
    before = f", was {ranks(found.rank_before)}" if found.rank_before else ""
    if found.rank is None:
        return f"{found.output}\n  {found.architecture}, {found.modules} modules{before}; nothing was written"
    if found.energy is None or found.relative_error is None:
        held = "no module changes anything, before and after"
    else:
        held = f"holds {found.energy:.2%} of the change's energy, relative error {found.relative_error:.3g}"
    lines = [
        f"{found.output}",
        f"  {found.architecture}, {found.modules} modules, {found.dialect} keys, {found.dtype}",
        f"  {ranks(found.rank)}{before}; {size(found.size_bytes)}, was {size(found.size_before_bytes)}",
        f"  {held}; {found.seconds:.1f} s",
    ]
    return "\n".join([*lines, *(f"  Note: {note}" for note in found.notes)])


def merging_text(found: Merging) -> str:
    """A few lines for people."""
    head = [
        f"{found.output}",
        f"  {found.architecture}, {found.modules} modules, {found.dialect} keys, {found.dtype}; {found.method}",
    ]
    notes = [f"  Note: {note}" for note in found.notes]
    if found.size_bytes is None:
        return "\n".join([*head, "  nothing was written", *notes])
    lines = [*head, f"  {ranks(found.rank)}, {size(found.size_bytes)}" if found.rank else f"  {size(found.size_bytes)}"]
    if found.energy is not None and found.relative_error is not None:
        lines.append(f"  holds {found.energy:.2%} of the sum's energy, relative error {found.relative_error:.3g}")
    else:
        lines.append("  exact, but for the rounding of stored values")
    return "\n".join([*lines, *notes])


def baking_text(found: Baking) -> str:
    """A few lines for people."""
    verb = "taken out of" if found.reverse else "baked into"
    lines = [
        f"{found.output}",
        f"  {', '.join(source.label for source in found.inputs)} {verb} {found.checkpoint.name} ({found.architecture})",
        f"  {found.modules} modules in {found.tensors_changed} tensors changed, {found.tensors_copied} copied as they are",
    ]
    lines += [
        f"  {row.modules} modules of {row.file} are not in the checkpoint, such as {row.first}" for row in found.skipped
    ]
    lines.append(f"  {size(found.size_bytes)}; {found.seconds:.1f} s" if found.size_bytes else "  nothing was written")
    return "\n".join([*lines, *(f"  Note: {note}" for note in found.notes)])
