"""`hubtool resolve`: the LoRAs that a picture, a workflow or a prompt used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._output import answer_each, row_of, say, table

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
        answer_each(inputs, lambda text: _row(text, index, settings, install=install), _text, name="input")


def _row(text: str, index: Index, settings: Settings, *, install: bool) -> Row:
    from hubtool.library.resolving import installed_missing, read_input, resolve_all

    reading = read_input(text)
    references = resolve_all(index, reading)
    if install:
        references = installed_missing(settings, references, say)
    return {"input": text, "program": reading.program, "references": [row_of(reference) for reference in references]}


def _text(row: Row) -> str:
    references = row["references"]
    rows = references if isinstance(references, list) else []
    if not rows:
        say(f"{row['input']}: no LoRA was used.")
        return ""
    for reference in rows:
        if reference["note"]:
            say(reference["note"])
        if reference["status"] == "missing" and reference["spec"]:
            say(f"{reference['name']} is not here: hubtool install {reference['spec']}")
    cells = [(one["name"], f"{one['weight']:g}", one["status"], one["path"] or one["spec"] or "") for one in rows]
    return table(cells, ("NAME", "STRENGTH", "STATUS", "FILE"))
