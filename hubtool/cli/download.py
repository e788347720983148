"""`hubtool download`: verified files into a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import describe, exit_code
from hubtool.cli._options import dry_run_option, transfer_options, with_transfer_options
from hubtool.cli._output import finish, say, show_rows
from hubtool.cli._progress import transfer_bars

if TYPE_CHECKING:
    from hubtool.cli._output import Row
    from hubtool.hubs.batch import Outcome


@click.command(cls=HubtoolCommand)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Default: here."
)
@click.option("--file", "file", default="", metavar="ID|NAME", help="This file of the version, not the primary one.")
@click.option("--all-files", is_flag=True, help="Every file of the version.")
@click.option("--name", default="", metavar="NAME", help="Store it under this name.")
@click.option("--no-verify", is_flag=True, help="Ignore the size and hashes that the hub publishes.")
@transfer_options
@click.option("--smallest-first", is_flag=True, help="Of several files, begin with the smallest.")
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

    settings = with_transfer_options(current_run().settings(), options)
    wish = Wish(
        str(options["file"]), bool(options["all_files"]), bool(options["dry_run"]), bool(options["smallest_first"])
    )
    with transfer_bars() as watch:
        transfer = Transfer(
            folder=folder,
            name=str(options["name"]),
            verify=not options["no_verify"],
            resume=bool(options["resume"]),
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
