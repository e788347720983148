"""`hubtool mark`: what you have to say about your LoRAs."""

from __future__ import annotations

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._options import NOTHING_WRITTEN, dry_run_option
from hubtool.cli._output import Row, answer_each, row_of, say, shown


@click.command(cls=HubtoolCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Add a tag (repeatable).")
@click.option("--untag", "untags", multiple=True, metavar="TAG", help="Remove a tag (repeatable).")
@click.option("--favourite/--no-favourite", default=None, help="Make it a favourite, or no longer.")
@click.option("--rating", type=click.IntRange(0, 5), help="From 1 to 5; 0 takes it back.")
@click.option(
    "--weight", type=click.FloatRange(-100, 100), metavar="W", help="The strength that you prefer; 0 takes it back."
)
@click.option("--triggers", metavar="WORDS", help="Your own trigger words, separated by commas.")
@click.option("--negative", metavar="WORDS", help="What belongs into the negative prompt.")
@click.option(
    "--outfit",
    "outfits",
    multiple=True,
    metavar="NAME: WORDS",
    help="A group of trigger words.",
)
@click.option("--notes", metavar="TEXT", help="Anything.")
@dry_run_option
def command(names: tuple[str, ...], *, dry_run: bool, **said: object) -> None:
    """Tag, rate and annotate installed LoRAs; set the strength and the trigger words that you prefer.

    Written into the sidecars that UIs read (A1111's, SwarmUI's, LoRA Manager's) and into NAME.hubtool.json for what they have no
    place for, beside every copy of the file. Without options, shows what was said.

    \b
    hubtool mark pixel-art --favourite --tag style --weight 0.8
    hubtool mark hero --outfit "armor: silver armor, cape / casual clothes"
    """
    from hubtool.library.finding import Finder
    from hubtool.library.marking import changes_from, copies_of, mark, said_after
    from hubtool.library.scan import fresh_index

    if dry_run:
        say(NOTHING_WRITTEN)
    settings, work = current_run().settings(), said_after if dry_run else mark
    with fresh_index(settings, say) as index:
        finder = Finder(index, settings)

        def marked(name: str) -> Row:
            model = finder.find(name, copies_alike=True)
            says_something = bool(changes_from(model.said, said))
            said_now = work(index, model, lambda before: changes_from(before, said)) if says_something else model.said
            also = [str(twin.path) for twin in copies_of(index, model)]
            return {"name": model.name, "path": str(model.path), "also": also} | row_of(said_now)

        answer_each(names, marked, _text, name="name")


def _text(row: Row) -> str:
    fields = ((key, value) for key, value in row.items() if key not in {"name", "path", "also", "error"} and value)
    return "\n".join([str(row["name"]), *(f"  {key}: {shown(value)}" for key, value in fields)])
