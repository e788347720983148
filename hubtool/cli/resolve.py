"""`hubtool resolve`: the LoRAs that a picture, a workflow or a prompt used."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer_each, row_of, say, table, verdict_of

if TYPE_CHECKING:
    from hubtool.cli._output import Row
    from hubtool.library.index import Index
    from hubtool.settings import Settings


@click.command(cls=HubtoolCommand)
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE|WORKFLOW|TEXT...")
@click.option("--install", is_flag=True, help="Install what is missing, as far as a hub knows it.")
def command(inputs: tuple[str, ...], *, install: bool) -> None:
    """Say which LoRAs a picture was made with, at which strengths, and which of them are here.

    Reads what A1111, Forge, SD.Next, ComfyUI, SwarmUI, InvokeAI and Fooocus write into PNG, JPEG and WebP, workflow files of
    ComfyUI, and prompts. A hash counts before a name: `renamed` is a file that has another name here, `missing` is one that a hub
    can be asked for, `unknown` one of which only a name is known.

    \b
    hubtool resolve picture.png
    hubtool resolve workflow.json --install
    hubtool resolve "a castle <lora:pixel-art:0.8>" --json
    """
    from hubtool.library.scan import fresh_index

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        said: set[str] = set()
        answer_each(
            inputs,
            lambda text: _row(text, index, settings, install=install),
            lambda row: _text(row, said, install=install),
            name="input",
        )


def _row(text: str, index: Index, settings: Settings, *, install: bool) -> Row:
    from hubtool.library.resolving import Completed, hashes_unknown, installed_missing, read_input, resolve_all

    reading = read_input(text)
    done = Completed(resolve_all(index, reading))
    if install:
        done = installed_missing(settings, done.references, say)
    return {
        "input": text,
        "program": reading.program,
        "references": [row_of(reference) for reference in done.references],
        "note": hashes_unknown(index) if any(one.status == "missing" and one.hash for one in done.references) else "",
        "_exit": verdict_of(done.asked, done.errors),
    }


def _text(row: Row, said: set[str], *, install: bool) -> str:
    """Lines for people; `said` are the notes that they have read already."""
    references = row["references"]
    rows = references if isinstance(references, list) else []
    if not rows:
        say(f"{row['input']}: no LoRA was used.")
        return ""
    for reference in rows:
        if reference["note"]:
            say(reference["note"])
        if reference["section"]:
            say(f"{reference['name']} is for SwarmUI's section {reference['section']} alone.")
        if reference["status"] == "missing" and reference["spec"] and not install:
            say(f"{reference['name']} is not here: hubtool install {shlex.quote(str(reference['spec']))}")
    note = str(row["note"])
    if note and note not in said:
        said.add(note)
        say(note)
    cells = [(one["name"], f"{one['weight']:g}", one["status"], one["path"] or one["spec"] or "") for one in rows]
    return table(cells, ("NAME", "STRENGTH", "STATUS", "FILE"))
