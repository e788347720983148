"""`hubtool demo`: the whole job, on sample files, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer, finish


@click.command(cls=HubtoolCommand)
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Work in this new folder and leave it there."
)
def command(keep: Path | None) -> None:
    """Walk through the whole job with real commands, against a hub of sample files on this machine.

    Search, download, install, inspect, convert, extract, prompt: each step shows the command, what it answered and what
    was checked. Nothing of yours is read or changed, and no network is used. Without torch some steps are left out.

    \b
    hubtool demo
    hubtool demo --keep tryout
    """
    from hubtool.cli._demo import plan_here, run_demo
    from hubtool.cli._demo_text import ending, show_step

    report = run_demo(plan_here(), keep, (lambda _: None) if current_run().json else show_step)
    answer(
        {
            "ok": report.ok,
            "steps": report.steps,
            "left_out": report.left_out,
            "folder": report.folder,
            "seconds": report.seconds,
        },
        lambda: ending(report),
    )
    finish([0 if report.ok else 1])
