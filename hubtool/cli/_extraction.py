"""What `extract` says: its options as the operation takes them, its report as a file, its result in words."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._output import plain
from hubtool.errors import OutputExists
from hubtool.formats.atomic import write_text
from hubtool.operations.extract import Extraction, ExtractOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def extract_options(given: Mapping[str, object], progress: Callable[[int, int], None]) -> ExtractOptions:
    """The operation's options from the command's."""
    options = dict(given)
    names = str(options.pop("components") or "")
    return ExtractOptions(
        **options,  # type: ignore[arg-type]  # click checked each
        components=tuple(name.strip() for name in names.split(",") if name.strip()),
        workers=current_run().jobs,
        progress=progress,
    )


def output_for(tuned: Path, output: Path | None) -> Path:
    """The file named, or one in the folder named, or one beside the tuned model."""
    name = f"{tuned.stem}.lora.safetensors"
    if output is None:
        return tuned.parent / name
    return output / name if output.is_dir() or str(output).endswith("/") else output


def refuse_existing(report: Path | None, *, force: bool) -> None:
    """Say that the report exists before the work, not after it.

    Raises:
        OutputExists: it does, and is not to be replaced.
    """
    if report is not None and not force and os.path.lexists(report):
        raise OutputExists(report)


def write_report(path: Path | None, extraction: Extraction, *, force: bool) -> None:
    """The report as a JSON file."""
    if path is not None:
        document = {"schema": 1, "command": "extract"}
        table = plain(extraction)
        write_text(
            path, json.dumps(document | (table if isinstance(table, dict) else {}), indent=1) + "\n", force=force
        )


def extraction_text(found: Extraction) -> str:
    """A few lines for people."""
    parts = ", ".join(f"{count} {name}" for name, count in found.components.items())
    lines = [f"{found.output}", f"  {found.architecture}, {found.modules} modules ({parts}), {found.dialect} keys"]
    if found.rank and found.energy is not None and found.relative_error is not None:
        ranks = f"rank {found.rank.min}" + (f" to {found.rank.max}" if found.rank.max > found.rank.min else "")
        lines.append(
            f"  {ranks}: holds {found.energy:.1%} of the change's energy, relative error {found.relative_error:.3g}"
        )
        lines.append(f"  {_verdict(found.energy)}")
        lines.append(f"  {found.skipped_unchanged} modules were unchanged; {found.seconds:.1f} s")
    return "\n".join([*lines, *(f"  Note: {note}" for note in found.notes)])


def _verdict(energy: float) -> str:
    if energy > 0.98:
        return "The LoRA is a faithful copy of the change."
    if energy > 0.8:
        return "The LoRA holds most of the change; a higher rank would hold more."
    return "Much of the change is not of low rank; a higher --rank (or --energy 0.9) tells how much a LoRA can hold."
