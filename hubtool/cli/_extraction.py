"""What `extract` says: its options as the operation takes them, its report as a file, its result in words."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubtool.cli._context import current_run
from hubtool.cli._output import plain
from hubtool.errors import OutputExists, UsageProblem
from hubtool.formats.atomic import write_text
from hubtool.operations.extract_options import ExtractOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hubtool.operations.extract_report import Extraction


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


@dataclass(frozen=True, slots=True)
class SideFiles:
    """The report and the plot, where they are asked for."""

    report: Path | None
    plot: Path | None
    force: bool
    dry_run: bool

    def write(self, extraction: Extraction) -> None:
        """Write them; a dry run has nothing to say."""
        if self.report is not None and not self.dry_run:
            table = plain(extraction)
            document = {"schema": 1, "command": "extract"} | (table if isinstance(table, dict) else {})
            write_text(self.report, json.dumps(document, indent=1) + "\n", force=self.force)
        if self.plot is not None and not self.dry_run:
            from hubtool.cli._extraction_plot import draw

            draw(extraction, self.plot, force=self.force)


def side_files(options: dict[str, object], others: Sequence[Path]) -> SideFiles:
    """Takes `--report` and `--plot` out of the options, and says before the work what would fail after it.

    `others` are the inputs and the LoRA.

    Raises:
        OutputExists: one of them exists, and is not to be replaced.
        UsageProblem: a plot that is neither PNG nor SVG, or a file that is another one, too.
        MissingExtra: matplotlib is not installed.
    """
    report, plot = (Path(str(path)) if (path := options.pop(name)) else None for name in ("report", "plot"))
    force = bool(options["force"])
    taken = [*others]
    for path in (report, plot):
        if path is None:
            continue
        if not force and os.path.lexists(path):
            raise OutputExists(path)
        if any(_is_same(path, other) for other in taken):
            raise UsageProblem(f"{path} is an input or another output.", hint="Choose another name.")
        taken.append(path)
    if plot is not None:
        from hubtool.cli._extraction_plot import check_plot

        check_plot(plot)
    return SideFiles(report, plot, force, bool(options["dry_run"]))


def _is_same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))


def extraction_text(found: Extraction) -> str:
    """A few lines for people."""
    parts = ", ".join(f"{count} {name}" for name, count in found.components.items())
    unwritten = " (not written)" if found.size_bytes is None else ""
    lines = [
        f"{found.output}{unwritten}",
        f"  {found.architecture}, {found.modules} modules ({parts}), {found.dialect} keys",
    ]
    if found.rank and found.energy is not None and found.relative_error is not None:
        ranks = f"rank {found.rank.min}" + (f" to {found.rank.max}" if found.rank.max > found.rank.min else "")
        lines.append(
            f"  {ranks}: holds {found.energy:.1%} of the change's energy, relative error {found.relative_error:.3g}"
        )
        lines.append(f"  {_verdict(found)}")
        lines.append(f"  {found.skipped_unchanged} modules were unchanged; {found.seconds:.1f} s")
    return "\n".join([*lines, *(f"  Note: {note}" for note in found.notes)])


def _verdict(found: Extraction) -> str:
    """Whether the LoRA is faithful, and what rank would be."""
    energy, rank, suggested = found.energy or 0.0, found.rank, found.suggested_rank
    if energy > 0.98:
        verdict = "The LoRA is a faithful copy of the change"
        enough = rank is not None and suggested is not None and suggested < rank.max
        return f"{verdict}; rank {suggested} would hold nine tenths of it." if enough else f"{verdict}."
    if found.parametrization != "lora":
        return "Much of the change is not of this form; LoRA factors (the default) can hold more."
    verdict = "The LoRA holds most of the change" if energy > 0.8 else "Much of the change is not in the LoRA"
    if suggested is None:
        return f"{verdict}."
    least = "at least " if rank is not None and suggested > rank.max else ""
    return f"{verdict}; nine tenths of it take {least}rank {suggested} (try `--energy 0.9`)."
