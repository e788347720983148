"""`hubtool prompt`: the adapters that a prompt names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import current_run
from hubtool.cli._group import HubtoolGroup
from hubtool.cli._output import answer, say, table

if TYPE_CHECKING:
    from hubtool.library.references import References


@click.group(cls=HubtoolGroup)
def command() -> None:
    """Work with the <lora:NAME:WEIGHT> tags of prompts.

    \b
    hubtool prompt parse "a castle <lora:pixel-art:0.8>"
    """


@command.command()
@click.argument("text")
@click.option(
    "--dialect",
    default="a1111",
    show_default=True,
    metavar="a1111|comfyui|swarmui|sdnext|fooocus",
    help="How to read the tags: of two numbers, A1111 puts the text encoder first, ComfyUI and SwarmUI last.",
)
def parse(text: str, dialect: str) -> None:
    """Say which adapters a prompt uses, at which strengths, and which of them are installed.

    TEXT is the prompt; `-` reads it from stdin.

    \b
    hubtool prompt parse "a castle <lora:pixel-art:0.8>"
    hubtool prompt parse --dialect swarmui "<lora:styles/ink:1:0.5>"
    echo "$PROMPT" | hubtool prompt parse - --json
    """
    from hubtool.library.references import read_prompt
    from hubtool.library.scan import fresh_index

    settings = current_run().settings()
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\r\n")
    with fresh_index(settings, say) as index:
        found = read_prompt(index, settings, text, dialect)
    answer({"tags": found.tags, "prompt": found.prompt, "missing": found.missing}, lambda: _text(found))


def _text(found: References) -> str:
    for tag in found.tags:
        if tag.problem:
            say(f"{tag.raw}: {tag.problem}.")
        if tag.suggestions:
            say(f"{tag.name} is not installed. Did you mean {' or '.join(tag.suggestions)}?")
    if not found.tags:
        say("The prompt names no adapters.")
        return ""
    cells = [
        (tag.name, f"{tag.text_encoder:g}", f"{tag.denoiser:g}", tag.path or "not installed") for tag in found.tags
    ]
    return table(cells, ("NAME", "TEXT ENCODER", "DENOISER", "FILE"))
