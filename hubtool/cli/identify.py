"""`hubtool identify`: whose file is this?"""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import exit_code
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import Row, finish, row_of, say, show_rows


@click.command(cls=HubtoolCommand)
@click.argument("words", nargs=-1, required=True, metavar="FILE|NAME|DIR...")
@click.option("--save", is_flag=True, help="Remember what the hub says of installed files, as if they came from there.")
@dry_run_option
def command(words: tuple[str, ...], *, save: bool, dry_run: bool) -> None:
    """Ask the hubs which model and version files are, by their hashes; a whole folder takes a few questions.

    Shows what a file was trained on apart from the architecture that it fits, and who says so.

    \b
    hubtool identify downloads/mystery.safetensors
    hubtool identify models/Lora --save
    """
    from hubtool.hubs.opening import open_hub
    from hubtool.library.identifying import Identifier, files_of
    from hubtool.library.scan import fresh_index

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        paths = list(files_of(index, settings, words))
        said = Identifier(index, open_hub(settings), save and not dry_run).identify(paths)
    show_rows([row_of(one) | {"error": None} for one in said.files], _text)
    for failure in said.failures:
        say(f"Not everything was asked: {failure}", always=True)
    finish([0, *(exit_code(failure.code) for failure in said.failures)])


def _text(row: Row) -> str:
    if row["status"] != "found":
        return f"{row['path']}: no version of the hub has this hash"
    lines = [
        f"{row['path']}: {row['name'] or ''} (model {row['model_id']}, version {row['version_id']}, by {row['hash_kind']})"
    ]
    claims: object = row["lineage"]
    known = claims if isinstance(claims, list) else []
    return "\n".join([*lines, *(f"  trained on {claim['claim']} ({claim['evidence']})" for claim in known)])
