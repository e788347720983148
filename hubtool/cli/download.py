"""`hubtool download`: verified files into a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import finish, say, show_rows
from hubtool.cli._progress import transfer_bars

if TYPE_CHECKING:
    from hubtool.cli._output import Row
    from hubtool.hubs.batch import Outcome

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _bytes_a_second(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """`500K`, `2.5M`: bytes a second, at least 1024."""
    if value is None:
        return None
    text = value.upper().removesuffix("/S").removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "")
    if not number.replace(".", "", 1).isdigit() or float(number) * _UNITS.get(unit, 1) < 1024:
        raise click.BadParameter(f"{value!r} is no rate of at least 1K; write it like 500K or 2M.")
    return float(number) * _UNITS.get(unit, 1)


@click.command(cls=HubtoolCommand)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Default: here."
)
@click.option("--file", "file", default="", metavar="ID|NAME", help="This file of the version, not the primary one.")
@click.option("--all-files", is_flag=True, help="Every file of the version.")
@click.option("--name", default="", metavar="NAME", help="Store it under this name.")
@click.option("--no-verify", is_flag=True, help="Ignore the size and hashes that the hub publishes.")
@click.option("--connections", type=click.IntRange(1, 16), default=1, help="Accepted; a file uses one so far.")
@click.option(
    "--limit-rate", callback=_bytes_a_second, metavar="R", help="At most so many bytes a second and file: 500K, 2M."
)
@click.option("--resume/--no-resume", default=True, help="Go on with what an interrupted run left (default).")
@dry_run_option
def command(specs: tuple[str, ...], folder: Path, **options: object) -> None:
    """Download verified files into a folder, and nothing else.

    \b
    hubtool download 120096 -o loras
    hubtool download v:135931 --file 98765
    hubtool download @list.txt --jobs 3 --limit-rate 5M
    hubtool download hf:owner/repo
    hubtool download "list:https://rentry.org/PAGE#LABEL"
    """
    from hubtool.hubs.batch import Wish, download_all
    from hubtool.hubs.link_lists import expand_lists
    from hubtool.hubs.opening import open_hub
    from hubtool.hubs.spec import expand
    from hubtool.hubs.transfer import Transfer

    settings = current_run().settings()
    wish = Wish(str(options["file"]), bool(options["all_files"]), bool(options["dry_run"]))
    with transfer_bars() as watch:
        transfer = Transfer(
            folder=folder,
            name=str(options["name"]),
            verify=not options["no_verify"],
            resume=bool(options["resume"]),
            limit_bytes_s=options["limit_rate"],  # type: ignore[arg-type]  # its callback made it a float
            watch=watch,
        )
        outcomes = download_all(
            open_hub(settings), list(expand_lists(settings, expand(specs, sys.stdin))), wish, transfer, settings.jobs
        )
    show_rows([_row(outcome) for outcome in outcomes], _text)
    finish([exit_code(outcome.error.code) if outcome.error else 0 for outcome in outcomes])


def _row(outcome: Outcome) -> Row:
    resolved, done = outcome.resolved, outcome.downloaded
    error = describe(outcome.error) if outcome.error else None
    return {
        "spec": outcome.spec,
        "status": "failed" if error else done.status if done else "planned",
        "path": str(done.path if done else outcome.planned or "") or None,
        "size_bytes": done.size_bytes if done else resolved.file.size_bytes if resolved else None,
        "sha256": done.sha256 if done else resolved.file.sha256 if resolved else None,
        "verified": bool(done and done.verified),
        "resumed_from": done.resumed_from if done else 0,
        "hub": (resolved.hub or None) if resolved else None,
        "model_id": (resolved.model.id or None) if resolved else None,
        "version_id": (resolved.version.id or None) if resolved else None,
        "file_id": (resolved.file.id or None) if resolved else None,
        "error": error,
    }


def _text(row: Row) -> str:
    notes = {"present": "Already there", "planned": "Would be downloaded to"}
    proof = (
        ""
        if row["verified"] or row["status"] == "planned"
        else " (not verified: there was no published hash to compare)"
    )
    say(f"{notes.get(str(row['status']), 'Downloaded and verified' if row['verified'] else 'Downloaded')}{proof}:")
    return str(row["path"])
