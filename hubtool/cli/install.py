"""`hubtool install`: LoRAs into a UI's folder, with sidecars."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hubtool.cli._context import HubtoolCommand, current_run
from hubtool.cli._errors import exit_code
from hubtool.cli._options import dry_run_option, transfer_options, with_transfer_options
from hubtool.cli._output import finish, say, show_rows
from hubtool.cli._progress import transfer_bars


@click.command(cls=HubtoolCommand)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC|FILE...")
@click.option(
    "--target",
    multiple=True,
    metavar="NAME[=ROOT]",
    help="The UI to install for, and where it lies: a1111, comfyui=~/ComfyUI. Repeatable: one file, several folders.",
)
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Install into this very folder.")
@click.option(
    "--subdir", default="", metavar="TEMPLATE", help="Folder below the LoRA folder, such as {base_model}/{creator}."
)
@click.option("--name", default="", metavar="NAME", help="Call it so, instead of by the file's own name.")
@click.option("--file", "file", default="", metavar="ID|NAME", help="This file of the version, not the primary one.")
@click.option("--convert", default="", metavar="DIALECT", help="Rewrite it in this dialect first.")
@click.option(
    "--sidecar",
    metavar="LIST",
    help="Sidecars to write: a1111, civitai_info, lora_manager, sdnext, stability_matrix, swarm; or none. Default: the target's.",
)
@click.option("--no-preview", is_flag=True, help="Fetch no picture.")
@click.option(
    "--link",
    type=click.Choice(["hard", "sym", "copy"]),
    default="copy",
    show_default=True,
    help="How a local FILE comes into the folder.",
)
@transfer_options
@click.option("--force", is_flag=True, help="Replace another file of that name; install what is there already.")
@dry_run_option
def command(specs: tuple[str, ...], **options: object) -> None:
    """Install LoRAs into the folder of a UI: fetched, verified, checked, named, with sidecars and a preview.

    Without --target and --to they go into models/Lora below the current folder (or --library, or the configured one).
    The same content is never installed twice into one folder, and nothing that you wrote into a sidecar is overwritten.

    \b
    hubtool install 120096
    hubtool install https://civitai.com/models/120096 --target comfyui=~/ComfyUI
    hubtool install ./style.safetensors --name my-style --subdir "{architecture}"
    hubtool install @list.txt --dry-run
    """
    from hubtool.cli._installation import orders_from, outcome_row, outcome_text
    from hubtool.hubs.link_lists import expand_lists
    from hubtool.hubs.spec import expand
    from hubtool.library.spreading import install_everywhere

    settings = with_transfer_options(current_run().settings(), options)
    with transfer_bars() as watch:
        outcomes = install_everywhere(
            settings, expand_lists(settings, expand(specs, sys.stdin)), orders_from(settings, options, watch), say
        )
    show_rows([outcome_row(outcome) for outcome in outcomes], outcome_text)
    finish([exit_code(outcome.error.code) if outcome.error else 0 for outcome in outcomes])
