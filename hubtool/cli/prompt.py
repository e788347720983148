"""`hubtool prompt`: the adapters that a prompt names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from hubtool.cli._context import current_run
from hubtool.cli._group import HubtoolGroup
from hubtool.cli._output import answer, finish, say, table, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hubtool.library.index import Index
    from hubtool.library.prompt_writing import Rewritten
    from hubtool.library.references import References
    from hubtool.settings import Settings

    Change = Callable[[Index, Settings, str], Rewritten]

DIALECTS = ("a1111", "forge", "comfyui", "swarmui", "sdnext", "fooocus", "invokeai")
_dialect = click.option(
    "--dialect",
    default="a1111",
    show_default=True,
    type=click.Choice(DIALECTS),
    help="How to read the tags: of two numbers, A1111 puts the text encoder first, ComfyUI and SwarmUI last.",
)


@click.group(cls=HubtoolGroup)
def command() -> None:
    """Work with the <lora:NAME:WEIGHT> tags of prompts.

    \b
    hubtool prompt parse "a castle <lora:pixel-art:0.8>"
    """


@command.command()
@click.argument("text")
@click.option("--negative", is_flag=True, help="TEXT is a negative prompt.")
@click.option("--install", is_flag=True, help="Install what is missing, where TEXT has its hash (an infotext has).")
@_dialect
def parse(text: str, dialect: str, *, negative: bool, install: bool) -> None:
    """Say which adapters a prompt uses, at which strengths, and which of them are installed.

    TEXT is the prompt; `-` reads it from stdin.

    \b
    hubtool prompt parse "a castle <lora:pixel-art:0.8>"
    hubtool prompt parse --dialect swarmui "<lora:styles/ink:1:0.5>"
    echo "$PROMPT" | hubtool prompt parse - --json
    """
    from hubtool.library.references import read_prompt
    from hubtool.library.resolving import Completed, install_named
    from hubtool.library.scan import fresh_index

    settings, prompt, done = current_run().settings(), _read(text), Completed([])
    with fresh_index(settings, say) as index:
        if install:
            done = install_named(index, settings, prompt, say)
        found = read_prompt(index, settings, prompt, dialect, negative=negative)
    here = {one.name: one.path.stem for one in done.references if one.status == "renamed" and one.path}
    answer({"tags": found.tags, "prompt": found.prompt, "missing": found.missing}, lambda: _text(found, here))
    finish([verdict_of(done.asked, done.errors)])


@command.command()
@click.argument("text")
@click.option("--to", required=True, type=click.Choice(DIALECTS), help="The UI that shall read it.")
@_dialect
def convert(text: str, to: str, dialect: str) -> None:
    """Spell the tags of a prompt for another UI, each LoRA by the name by which that UI finds its file.

    What that UI cannot say, and names of which the library knows no file, are told.

    \b
    hubtool prompt convert --to comfyui "a castle <lora:pixel-art:0.5:0.8>"
    hubtool prompt convert --dialect swarmui --to a1111 - < prompt.txt
    """
    from hubtool.library.relinking import converted

    _change(lambda index, settings, said: converted(index, settings, said, dialect, to), text)


@command.command()
@click.argument("text")
@click.option("--name", "names", multiple=True, metavar="NAME", help="Only this LoRA (repeatable).")
@_dialect
def strip(text: str, names: tuple[str, ...], dialect: str) -> None:
    """Take the LoRAs out of a prompt.

    \b
    hubtool prompt strip "a castle <lora:pixel-art:0.8>"
    """
    from hubtool.library import prompt_writing

    _show(prompt_writing.strip(_read(text), dialect, names))


@command.command()
@click.argument("name")
@click.argument("text", default="")
@click.option("--triggers/--no-triggers", default=True, help="Add its trigger words, too.", show_default=True)
@click.option("--first", type=click.IntRange(1), metavar="N", help="Only the first N trigger words.")
@click.option(
    "--outfit", default="", metavar="NAME", help="The words of this outfit (`hubtool mark --outfit`) instead."
)
@_dialect
def add(name: str, text: str, dialect: str, **wish: object) -> None:
    """Add the installed LoRA NAME, or NAME:STRENGTH, and its trigger words to a prompt.

    Without a strength the one that you prefer is taken, else 1. What belongs into the negative prompt is said.

    \b
    hubtool prompt add pixel-art:0.8 "a castle"
    hubtool prompt add hero --outfit armor
    """
    from hubtool.library.adding import Words, added

    first = wish["first"] if isinstance(wish["first"], int) else None
    words = Words(first if wish["triggers"] else 0, str(wish["outfit"]))
    _change(lambda index, _, said: added(index, said, name, dialect, words), text)


@command.command()
@click.argument("text")
@_dialect
def relink(text: str, dialect: str) -> None:
    """Replace names that are unknown here by those that the same files have here.

    A text with "Lora hashes" (what A1111 writes into pictures) is matched by hash, another by names that differ in case,
    blanks or punctuation only.

    \b
    hubtool prompt relink - < infotext.txt
    """
    from hubtool.library.relinking import relinked

    _change(lambda index, settings, said: relinked(index, settings, said, dialect), text)


@command.command()
@click.argument("text")
@click.option("--total", type=float, default=1.0, show_default=True, help="What the strengths may add up to.")
@_dialect
def balance(text: str, total: float, dialect: str) -> None:
    """Scale the strengths of a prompt down together, so that their sum is at most a total.

    \b
    hubtool prompt balance --total 1.2 "<lora:a:1><lora:b:0.8>"
    """
    from hubtool.library import prompt_writing

    _show(prompt_writing.balance(_read(text), dialect, total))


@command.command()
@click.argument("text")
@_dialect
def hashes(text: str, dialect: str) -> None:
    """Print the line of hashes that A1111 (or SD.Next) would write below a picture made with this prompt.

    \b
    hubtool prompt hashes "a castle <lora:pixel-art:0.8>"
    """
    from hubtool.library.relinking import hashes_line
    from hubtool.library.scan import fresh_index

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        line = hashes_line(index, settings, _read(text), dialect)
    answer({"hashes": line}, lambda: line)


def _read(text: str) -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\r\n") if text == "-" else text


def _change(change: Change, text: str) -> None:
    """Rewrite a prompt with what the library knows."""
    from hubtool.library.scan import fresh_index

    settings = current_run().settings()
    with fresh_index(settings, say) as index:
        done = change(index, settings, _read(text))
    _show(done)


def _show(done: Rewritten) -> None:
    for sentence in done.lost:
        say(sentence)
    answer({"prompt": done.prompt, "lost": done.lost, "changed": done.changed}, lambda: done.prompt)


def _text(found: References, here: Mapping[str, str]) -> str:
    """Lines for people; `here` are the names that files have of which that was told already."""
    for tag in found.tags:
        if tag.problem:
            say(f"{tag.raw}: {tag.problem}.")
        if tag.block_weights:
            say(f"{tag.name} has strengths by block: {':'.join(tag.extras)}.")
        if tag.section:
            say(f"{tag.name} is for {tag.section} alone.")
        if tag.suggestions and tag.name not in here:
            say(f"{tag.name} is not installed. Did you mean {' or '.join(tag.suggestions)}?")
    if not found.tags:
        say("The prompt names no adapters.")
        return ""
    files = [tag.path or (f"here as {here[tag.name]}" if tag.name in here else "not installed") for tag in found.tags]
    cells = [
        (tag.name, f"{tag.text_encoder:g}", f"{tag.denoiser:g}", file)
        for tag, file in zip(found.tags, files, strict=True)
    ]
    return table(cells, ("NAME", "TEXT ENCODER", "DENOISER", "FILE"))
