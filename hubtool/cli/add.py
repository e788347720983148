"""`hubtool add`: a LoRA into the project's manifest."""

from __future__ import annotations

from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand
from hubtool.cli._options import dry_run_option
from hubtool.cli._output import Row, answer_each, row_of


@click.command(cls=HubtoolCommand)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--name", default="", metavar="NAME", help="What to call it, here and in prompts.")
@click.option("--weight", type=float, help="The strength that the project uses it with.")
@click.option("--convert", default="", metavar="DIALECT", help="Rewrite it in this dialect.")
@click.option("--subdir", default="", metavar="DIR", help="Folder below the LoRA folder.")
@click.option("--target", metavar="NAME[=ROOT]", help="The UI whose LoRA folder is meant. Default: the configured one.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="This very LoRA folder.")
@dry_run_option
def command(specs: tuple[str, ...], target: str | None, to: Path | None, *, dry_run: bool, **choices: object) -> None:
    """Install LoRAs and write them into loras.toml and loras.lock of the current folder.

    \b
    hubtool add 120096 --name pixel-art --weight 0.8
    hubtool sync
    """
    from hubtool.cli._project import project
    from hubtool.errors import UsageProblem
    from hubtool.library.manifest import Wanted

    if choices["name"] and len(specs) > 1:
        raise UsageProblem("`--name` is for a single SPEC.")
    weight = choices.pop("weight")
    texts = {key: str(value) for key, value in choices.items()}
    wanted = Wanted(spec="", weight=weight if isinstance(weight, float) else None, **texts)
    with project(target, to, dry_run=dry_run) as work:

        def added(spec: str) -> Row:
            row = row_of(work.add(spec, wanted))
            return {**row, "spec": row["spec"] or spec}

        answer_each(specs, added, lambda row: f"{row['name']}: {row['path']}", name="spec")
