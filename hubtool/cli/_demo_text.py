"""How the demonstration is shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._errors import printable_lines

if TYPE_CHECKING:
    from hubtool.cli._demo import DemoReport, StepResult

_SHOWN_LINES = 14  # of each answer
_SHOWN_COLUMNS = 150


def show_step(step: StepResult) -> None:
    """Print one step: the command, what it said, what was checked."""
    lines = [
        f"[{step.number}/{step.of}] {step.name}",
        *([f"  ({step.note})"] if step.note else []),
        f"$ {step.command}",
    ]
    lines += map(_shown, step.output[:_SHOWN_LINES])
    if len(step.output) > _SHOWN_LINES:
        lines.append(f"    … {len(step.output) - _SHOWN_LINES} more lines")
    lines.append(f"  {'ok' if step.ok else 'FAILED'} ({step.seconds:.1f} s): {step.checked}\n")
    click.echo(printable_lines("\n".join(lines)))


def ending(report: DemoReport) -> str:
    """What it came to, what was left out, and where to look."""
    last = report.steps[-1]
    good = f"All {len(report.steps)} steps succeeded and were checked, in {report.seconds:.1f} s."
    lines = [good if report.ok else f"Step {last.number} of {last.of} failed: {last.name}."]
    if report.left_out:
        lines.append(f"Left out, because torch is not installed: {'; '.join(report.left_out)}.")
        lines.append("`pip install 'hubtool[torch]'` brings it.")
    if report.folder:
        lines.append(f"The files are in {report.folder}; to go on there:")
        lines.append(f"  cd {report.folder} && export HUBTOOL_HOME={report.folder / 'home'}")
    return "\n".join(lines)


def _shown(line: str) -> str:
    return f"    {line if len(line) <= _SHOWN_COLUMNS else line[: _SHOWN_COLUMNS - 1] + '…'}".rstrip()
